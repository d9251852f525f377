"""The whole line: a complaint is accepted, gets its case, and its owner's notification is attempted.

Two installations run side by side in this process, over real HTTP: one has few cases stored, one has
many. Each has senders that send a complaint, wait until its owner has been told on the live stream,
and send the next. Where a complaint stands is read from the log, so that every stage is timed.
"""

import asyncio
import cProfile
import json
import pstats
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import uvloop

from benchmarks.harness import Row, compare_async, print_table
from benchmarks.stored import complaints, fill
from rapport.common.events.cases import CaseOpened
from rapport.common.events.codec import Record
from rapport.common.events.notifications import NotificationDelivered, NotificationRequested
from rapport.common.events.topics import CASES, NOTIFICATIONS
from rapport.common.telemetry import configure_logs
from rapport.standalone.system import System, system

FEW: Final = 10_000
MANY: Final = 200_000
ROUNDS: Final = 7
SENDERS: Final = 64
COMPLAINTS: Final = 640
WORSE: Final = 1.2
"""How much more an event may cost with many cases stored."""

STAGES: Final = ("accept", "routing", "notification", "sending")
ENDS: Final = {
    CaseOpened.TYPE: "routing",
    NotificationRequested.TYPE: "notification",
    NotificationDelivered.TYPE: "sending",
}
"""The event that each stage ends with; accepting ends with the answer 202."""


@dataclass
class Journey:
    """When a complaint was sent, and when each stage was over; `told` is done at the end."""

    sent: float
    over: dict[str, float] = field(default_factory=dict)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seconds(self) -> float:
        """From the first byte that was sent until the notification was attempted."""
        return self.over["sending"] - self.sent

    def stages(self) -> list[float]:
        """Return how long each stage took, in seconds."""
        ends = [self.sent, *(self.over[stage] for stage in STAGES)]
        return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]


class Line:
    """One installation, its senders and what became of what they sent."""

    def __init__(self, up: System) -> None:
        self._up = up
        self._complaints = complaints()
        self._journeys: defaultdict[str, Journey] = defaultdict(lambda: Journey(0.0))
        self.done: list[Journey] = []

    async def rate(self) -> float:
        """Send complaints through the whole line; return how many per second came to its end."""
        left = iter(range(COMPLAINTS))
        began = perf_counter()
        await asyncio.gather(*(self._send_always(left) for _ in range(SENDERS)))
        return COMPLAINTS / (perf_counter() - began)

    async def watch(self) -> None:
        """Read from the log where complaints stand, until cancelled."""
        async for records in self._up.bus.tail([CASES.name, NOTIFICATIONS.name]):
            now = perf_counter()
            for record in records:
                self._note(record, now)

    def _note(self, record: Record, now: float) -> None:
        headers = dict(record.headers)
        stage = ENDS.get(headers[b"ce_type".decode()].decode())
        if stage is not None:
            journey = self._journeys[headers["ce_correlationid"].decode()]
            journey.over[stage] = now
            if stage == "sending":
                journey.told.set()
