"""The whole line: a complaint is accepted, gets its case, and its owner is notified.

Two installations run side by side in this process, over real HTTP: one has few cases stored, the
other many. Each has senders that send a complaint, wait until its owner has been told on the live
stream, and send the next. Where a complaint stands is read from the log, so every stage is timed.
Run by itself, it also says in which code the event loop spends its time.
"""

import asyncio
import cProfile
import json
import os
import pstats
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean, median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.harness import Row, compare_async, print_table
from benchmarks.stored import complaints, fill, installation, request
from rapport.common.events.cases import CaseOpened
from rapport.common.events.codec import Record
from rapport.common.events.notifications import NotificationDelivered, NotificationRequested
from rapport.common.events.topics import CASES, NOTIFICATIONS
from rapport.common.serving import run_on_loop
from rapport.common.telemetry import configure_logs
from rapport.standalone.system import System

FEW: Final = 10_000
MANY: Final = 200_000
ROUNDS: Final = 7
SENDERS: Final = 64
COMPLAINTS: Final = int(os.environ.get("COMPLAINTS", "320"))
WORSE: Final = 1.2
"""How much more an event may cost where many cases are stored."""

STAGES: Final = ("accept", "routing", "notification", "sending")
ENDS: Final = {
    CaseOpened.TYPE: "routing",
    NotificationRequested.TYPE: "notification",
    NotificationDelivered.TYPE: "sending",
}
"""The event that a stage ends with; accepting ends with the answer 202."""

COSTLIEST: Final = 12


class Journey:
    """When a complaint was sent and when each stage was over; `arrived` is set at the end."""

    def __init__(self) -> None:
        self.sent = 0.0
        self.over: dict[str, float] = {}
        self.arrived = asyncio.Event()

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return self.over[STAGES[-1]] - self.sent

    @property
    def stages(self) -> list[float]:
        """How long each stage took, in seconds."""
        moments = [self.sent, *(self.over[stage] for stage in STAGES)]
        return [end - begin for begin, end in pairwise(moments)]


class Line:
    """One installation, its senders, and how what they sent went its way."""

    def __init__(self, up: System) -> None:
        self._up = up
        self._port = int(up.url.rpartition(":")[2])
        self._requests = _requests(up.token("shop", "publisher"))
        self._journeys: defaultdict[str, Journey] = defaultdict(Journey)
        self._rates: list[float] = []

    async def rate(self) -> float:
        """Send complaints through the whole line; return how many per second came to its end."""
        requests = iter(list(islice(self._requests, COMPLAINTS)))
        began = perf_counter()
        await asyncio.gather(*(self._send_always(requests) for _ in range(SENDERS)))
        self._rates.append(COMPLAINTS / (perf_counter() - began))
        return self._rates[-1]

    async def watch(self) -> None:
        """Read from the log where complaints stand, until cancelled."""
        async for records in self._up.bus.tail([CASES.name, NOTIFICATIONS.name]):
            now = perf_counter()
            for record in records:
                self._note(record, now)

    def told(self) -> str:
        """Say how fast it was, and what share of the time each stage took."""
        journeys = list(self._journeys.values())
        percentiles = quantiles([journey.seconds for journey in journeys], n=100)
        means = [fmean(stage) for stage in zip(*(item.stages for item in journeys), strict=True)]
        shares = ", ".join(
            f"{name} {mean / sum(means):.0%}" for name, mean in zip(STAGES, means, strict=True)
        )
        return (
            f"{median(self._rates):.0f} events/s, p50 {percentiles[49]:.3f} s, "
            f"p99 {percentiles[98]:.3f} s; {shares}"
        )

    async def _send_always(self, requests: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for sending in requests:
            sent = perf_counter()
            writer.write(sending)
            receipt = await _answer(reader)
            journey = self._journeys[receipt["id"]]
            journey.sent, journey.over["accept"] = sent, perf_counter()
            await journey.arrived.wait()
        writer.close()
        await writer.wait_closed()

    def _note(self, record: Record, now: float) -> None:
        headers = dict(record.headers)
        stage = ENDS.get(headers["ce_type"].decode())
        if stage is not None:
            journey = self._journeys[headers["ce_correlationid"].decode()]
            journey.over[stage] = now
            if stage == STAGES[-1]:
                journey.arrived.set()


def _requests(token: str) -> Iterator[bytes]:
    return (request(token, complaint) for complaint in complaints(f"line {token[-8:]}"))


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 202"), head
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    receipt: dict[str, Any] = json.loads(await reader.readexactly(length))
    return receipt


@asynccontextmanager
async def line(folder: Path) -> AsyncIterator[Line]:
    """Run the installation in `folder`."""
    async with installation(folder) as up:
        running = Line(up)
        watching = asyncio.create_task(running.watch())
        try:
            yield running
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def run() -> list[Row]:
    """Return the row of the report, and print how the line spends its time."""
    with TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        fill({few: FEW, many: MANY})
        return run_on_loop(compared((FEW, few), (MANY, many), ROUNDS))


async def compared(few: tuple[int, Path], many: tuple[int, Path], rounds: int) -> list[Row]:
    """Measure two installations, each given with how many cases it has stored."""
    configure_logs("ERROR")
    async with AsyncExitStack() as opened:
        small = await opened.enter_async_context(line(few[1]))
        large = await opened.enter_async_context(line(many[1]))
        row = await compare_async(
            "whole line, accept -> case -> notification attempt",
            f"itself, {few[0]:,} cases stored, not {many[0]:,}",
            large.rate,
            small.rate,
            rounds=rounds,
            at_least=1 / WORSE,
            meaning="the rate with many cases over the rate with few; 1 where size costs nothing",
        )
        for stored, measured in ((few[0], small), (many[0], large)):
            print(f"whole line, {SENDERS} at once, {stored:,} cases stored: {measured.told()}")
    return [row]


async def _profiled(folder: Path) -> None:
    """Print which functions the event loop spends its time in, per complaint."""
    configure_logs("ERROR")
    async with line(folder) as measured:
        await measured.rate()
        profile = cProfile.Profile()
        with profile:
            rate = await measured.rate()
        print(f"\n{rate:.0f}/s while profiled; in each function itself, per complaint:")
        for seconds, name in _costliest(profile):
            print(f"  {seconds / COMPLAINTS * 1e6:6.0f} µs  {name}")


def _costliest(profile: cProfile.Profile) -> Sequence[tuple[float, str]]:
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    named = [
        (own, function if row == 0 else f"{'/'.join(Path(file).parts[-2:])}:{row} {function}")
        for (file, row, function), (_, _, own, _, _) in stats.items()
    ]
    return sorted(named, reverse=True)[:COSTLIEST]


def main() -> None:
    print_table(run())
    with TemporaryDirectory() as folder:
        fill({Path(folder): FEW})
        run_on_loop(_profiled(Path(folder)))


if __name__ == "__main__":
    main()
