"""Intake that is asked for twice of what it can take.

The server is a process of its own, as `rapport up` has it. In turn it is driven to what it can take
by as many clients as it lets in at once, each of which waits for its answer; and offered twice of
that, whether or not anything has been answered. What it takes then is its goodput; all others must
be sent away with 503 and Retry-After, and soon.
"""

import os
from statistics import median
from typing import Final

import uvloop

from benchmarks.harness import Row, compare_async, print_table
from benchmarks.intake import PATH, intake, load, requests, server
from benchmarks.open_loop import Answers, offer
from rapport.intake.api.load import AT_ONCE

ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))
SECONDS: Final = float(os.environ.get("SECONDS", "3"))
CONNECTIONS: Final = 1_000
TIMES: Final = 2.0
REFUSED_WITHIN: Final = 0.050
"""Seconds that 99 of 100 refusals may take."""


async def _run() -> list[Row]:
    overloads: list[Answers] = []
    saturated: list[float] = []
    with server(intake) as (port, token):
        sent = requests(token)

        async def saturation() -> float:
            saturated.append(await load(port, sent, AT_ONCE))
            return saturated[-1]

        async def goodput() -> float:
            answers = await offer(port, sent, TIMES * median(saturated), SECONDS, CONNECTIONS)
            overloads.append(answers)
            return answers.rate(202)

        await saturation()
        row = await compare_async(
            f"POST {PATH}, offered {TIMES:g} x what it takes",
            "itself, its throughput at saturation",
            goodput,
            saturation,
            rounds=ROUNDS,
            at_least=0.9,
            meaning="what it still takes in while as many again are sent away",
        )
    return [row, *_others(overloads[1:])]


def _others(overloads: list[Answers]) -> list[Row]:
    """Return the rows on what was refused."""
    refused = median([answers.p99(503) for answers in overloads])
    taken = median([answers.p99(202) for answers in overloads])
    offered = median([answers.offered for answers in overloads])
    answered = sum(len(found) for item in overloads for found in item.seconds.values())
    proper = sum(
        len(item.seconds.get(202, ())) + len(item.seconds.get(503, ())) - item.without_retry_after
        for item in overloads
    )
    return [
        Row(
            "p99 of a refusal, offered twice of what it takes",
            f"{REFUSED_WITHIN * 1000:.0f} ms",
            REFUSED_WITHIN / refused if refused else 1.0,
            1.0,
            f"{refused * 1000:.1f} ms; p99 of what is taken in {taken * 1000:.0f} ms; "
            f"{offered:,.0f}/s offered",
            "how many times faster than its bound a refusal comes",
        ),
        Row(
            "answers that are 202, or 503 with Retry-After",
            "all answers",
            proper / answered,
            1.0,
            f"{proper:,} of {answered:,}",
            "nobody is left without a proper answer",
        ),
    ]


def run() -> list[Row]:
    """Return the rows of the report."""
    return uvloop.run(_run())


if __name__ == "__main__":
    print_table(run())
