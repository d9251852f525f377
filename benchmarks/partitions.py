"""One partition that stands still: what the others lose by it, on both buses.

A group reads a topic of twelve partitions. Undisturbed, each batch is decoded and what follows is
published. Then one partition's handler meets trouble of our own with every batch and waits, as the
pipeline does, for longer and longer. Only what is done in the other partitions counts, before and
then.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import real_servers
from benchmarks.bus import _messages
from benchmarks.following import following, pipeline
from benchmarks.harness import Row, compare_async, print_table
from benchmarks.kafka import Watch
from benchmarks.poison import logged
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.kafka import KafkaBus, apply
from rapport.common.bus.port import Bus
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.ids import random_id
from rapport.common.events.topics import Topic
from rapport.common.serving import run_on_loop

ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))
RECORDS: Final = int(os.environ.get("RECORDS", "20000"))
BATCH: Final = 500
SLOW: Final = 0
"""The partition that stands still."""


class Lanes:
    """A bus with a topic to read and one to publish to."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._many = Topic(f"{prefix}.many", writer="bench")
        self._out = Topic(f"{prefix}.out", writer="bench")
        self._others = 0

    async def fill(self) -> None:
        """Publish what is to be read."""
        messages = [item._replace(topic=self._many.name) for item in _messages(RECORDS)]
        for first in range(0, RECORDS, BATCH):
            await self._bus.publish(messages[first : first + BATCH])
        ends = await self._bus.ends([self._many.name])
        self._others = RECORDS - ends[self._many.name, SLOW]

    async def undisturbed(self) -> float:
        """Return how many records per second are done in the others when all is well."""
        return await self._rate(in_trouble=False)

    async def disturbed(self) -> float:
        """Return the same while one partition is in trouble."""
        return await self._rate(in_trouble=True)

    async def _rate(self, *, in_trouble: bool) -> float:
        watch = Watch(self._others)
        follow = self._follow if in_trouble else partial(following, out=self._out.name)
        line = pipeline(self._bus, self._many.name, follow)

        async def handle(records: Sequence[Record]) -> None:
            watch.begin()
            await line.handle(records)
            if records[0].partition != SLOW:
                watch.done(len(records))

        reader = await self._bus.subscribe(random_id(), [self._many.name], handle, max_batch=BATCH)
        rate = await watch.rate()
        await reader.stop(drain=0)
        return rate

    def _follow(self, record: Record) -> Message:
        if record.partition == SLOW:
            raise TemporaryError("this partition is in trouble")
        return following(record, self._out.name)


def topics(prefix: str) -> dict[str, Topic]:
    """Return the topics of lanes with this prefix."""
    found = [Topic(f"{prefix}.{name}", writer="bench") for name in ("many", "out")]
    return {topic.name: topic for topic in found}


async def _row(name: str, bus: Bus, prefix: str) -> Row:
    await bus.start()
    lanes = Lanes(bus, prefix)
    await lanes.fill()
    row = await compare_async(
        f"{name}: eleven partitions, the twelfth stands still",
        "the same eleven when all is well",
        lanes.disturbed,
        lanes.undisturbed,
        rounds=ROUNDS,
        at_least=0.9,
        meaning="what the others keep of their rate while one waits for our own infrastructure",
    )
    await bus.stop()
    return row


async def _on_kafka(servers: str) -> Row:
    prefix = f"bench.{random_id()}"
    needed = topics(prefix)
    await apply(servers, {}, needed, {})
    return await _row("Kafka", KafkaBus(servers, topics=needed), prefix)


def run() -> list[Row]:
    """Return the rows of the report; that of Kafka only where there is a broker."""
    with TemporaryDirectory() as folder, logged(Path(folder) / "log"):
        embedded = EmbeddedBus(Path(folder) / "bus.db", topics=topics("bench"))
        rows = [run_on_loop(_row("embedded", embedded, "bench"))]
        with real_servers.kafka() as servers:
            if servers:
                rows.append(run_on_loop(_on_kafka(servers)))
        return rows


if __name__ == "__main__":
    print_table(run())
