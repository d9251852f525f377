"""How long intake takes for one request, against the bare route: alone, and at half load.

Alone is one client that sends its next request when it has the answer to the last. At half load the
requests come at half of the rate that intake can take, evenly, to both servers alike. What is
compared is the inverse of a time, answers per second of waiting, so that more is better.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Final

import uvloop

from benchmarks.harness import Row, compare_async, print_table
from benchmarks.intake import PATH, bare_starlette, intake, length_of, load, requests, server
from benchmarks.open_loop import offer

ROUNDS: Final = int(os.environ.get("ROUNDS", "9"))
REQUESTS: Final = int(os.environ.get("REQUESTS", "1000"))
SECONDS: Final = float(os.environ.get("SECONDS", "3"))
CONNECTIONS: Final = 200
SLOWER_ALONE: Final = 1.5
SLOWER_AT_HALF_LOAD: Final = 2.0


async def alone(port: int, sent: list[bytes]) -> float:
    """Send one request after the other; return the inverse of the median of their seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    for number in range(REQUESTS):
        began = perf_counter()
        writer.write(sent[number % len(sent)])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202"), head
        await reader.readexactly(length_of(head))
        seconds.append(perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return 1 / median(seconds)


async def at_rate(port: int, sent: list[bytes], rate: float) -> float:
    """Send so many requests per second; return the inverse of their p99.

    What was refused has taken for ever.
    """
    answers = await offer(port, sent, rate, SECONDS, CONNECTIONS)
    refused = len(answers.seconds.get(503, ()))
    answers.seconds[202] += [math.inf] * refused
    return 1 / answers.p99(202)


async def _run() -> list[Row]:
    with server(intake) as (ours, token), server(bare_starlette) as (bare, _):
        sent = list(requests(token))
        half = median([await load(ours, sent) for _ in range(5)]) / 2

        async def row(what: str, measure: Callable[[int], Awaitable[float]], slower: float) -> Row:
            found = await compare_async(
                f"POST {PATH}, {what}",
                f"bare Starlette route, at most {slower:g} x its time",
                partial(measure, ours),
                partial(measure, bare),
                rounds=ROUNDS,
                at_least=1 / slower,
                meaning="the bare route's time over intake's, so 0.8 is a quarter slower",
            )
            return found

        return [
            await row("one client, 1/p50", partial(alone, sent=sent), SLOWER_ALONE),
            await row(
                f"half load ({half:,.0f}/s), 1/p99",
                partial(at_rate, sent=sent, rate=half),
                SLOWER_AT_HALF_LOAD,
            ),
        ]


def run() -> list[Row]:
    """Return the rows of the report."""
    return uvloop.run(_run())


if __name__ == "__main__":
    print_table(run())
