"""What records that nobody can read cost, on both buses: a line without poison, and with it.

The line is the one of `kafka`: a pipeline reads feedback, derives the id of what follows, encodes
it and publishes it. Of a poisoned topic's records some have a broken body; the pipeline logs each
of those and publishes it as a dead letter. What is logged goes to a file, as under an operator.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from benchmarks import real_servers
from benchmarks.bus import _messages
from benchmarks.following import following, pipeline
from benchmarks.harness import Row, compare_async, print_table
from benchmarks.kafka import Watch
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.kafka import KafkaBus, apply
from rapport.common.bus.port import Bus
from rapport.common.events.codec import Message, Record
from rapport.common.events.ids import random_id
from rapport.common.events.topics import DEAD_LETTERS, Topic
from rapport.common.serving import run_on_loop
from rapport.common.telemetry import configure_logs

ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))
RECORDS: Final = int(os.environ.get("RECORDS", "10000"))
BATCH: Final = 500
BROKEN: Final = b'{"feedback_id": "'

POISONED: Final = ((100, 0.9), (1, 0.4))
"""One record of so many is broken, and what is left of the rate at least."""


class Line:
    """A bus with a topic for each share of poison, and a pipeline over any of them."""

    def __init__(self, name: str, bus: Bus, prefix: str) -> None:
        self.name = name
        self._bus = bus
        self._out = f"{prefix}.out"
        self._prefix = prefix

    def topic(self, every: int) -> str:
        """Return the name of the topic in which one record of `every` is broken, of 0 none."""
        return f"{self._prefix}.one-of-{every}"

    async def fill(self) -> None:
        """Publish what is to be read."""
        messages = _messages(RECORDS)
        for every in (0, *(every for every, _ in POISONED)):
            topic = self.topic(every)
            told = [
                _broken(message, topic)
                if every and number % every == 0
                else message._replace(topic=topic)
                for number, message in enumerate(messages)
            ]
            for first in range(0, RECORDS, BATCH):
                await self._bus.publish(told[first : first + BATCH])

    async def rate(self, every: int) -> float:
        """Read a topic from its start; return how many of its records per second were done."""
        topic, watch = self.topic(every), Watch(RECORDS)
        line = pipeline(self._bus, topic, partial(following, out=self._out))

        async def handle(records: Sequence[Record]) -> None:
            watch.begin()
            await line.handle(records)
            watch.done(len(records))

        reader = await self._bus.subscribe(random_id(), [topic], handle, max_batch=BATCH)
        rate = await watch.rate()
        await reader.stop()
        return rate


def topics(prefix: str) -> dict[str, Topic]:
    """Return what lines of this prefix need, the dead letters among it."""
    names = ["out", "one-of-0", *(f"one-of-{every}" for every, _ in POISONED)]
    found = [Topic(f"{prefix}.{name}", writer="bench") for name in names]
    return {topic.name: topic for topic in (*found, DEAD_LETTERS)}


def _broken(message: Message, topic: str) -> Message:
    return message._replace(topic=topic, value=BROKEN)


async def _rows(line: Line) -> list[Row]:
    await line.fill()
    return [
        await compare_async(
            f"{line.name}: pipeline, {100 / every:g} % poison",
            "itself, no poison",
            partial(line.rate, every),
            partial(line.rate, 0),
            rounds=ROUNDS,
            at_least=at_least,
            meaning="records done per second, dead letters included, of those without poison",
        )
        for every, at_least in POISONED
    ]


async def embedded(folder: Path) -> list[Row]:
    """Measure on the embedded bus."""
    prefix = "bench"
    bus = EmbeddedBus(folder / "bus.db", topics=topics(prefix))
    await bus.start()
    rows = await _rows(Line("embedded", bus, prefix))
    await bus.stop()
    return rows


async def kafka(servers: str) -> list[Row]:
    """Measure on Kafka."""
    prefix = f"bench.{random_id()}"
    needed = topics(prefix)
    await apply(servers, {}, needed, {})
    bus = KafkaBus(servers, topics=needed)
    await bus.start()
    rows = await _rows(Line("Kafka", bus, prefix))
    await bus.stop()
    return rows


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write logs, as the services do, to a file while the block runs."""
    with path.open("w") as file:
        with redirect_stderr(file):
            configure_logs()
        structlog.configure(cache_logger_on_first_use=False)
        try:
            yield
        finally:
            configure_logs("ERROR")


def run() -> list[Row]:
    """Return the rows of the report; those of Kafka only where there is a broker."""
    with TemporaryDirectory() as folder, logged(Path(folder) / "log"):
        rows = run_on_loop(embedded(Path(folder)))
        with real_servers.kafka() as servers:
            return rows + (run_on_loop(kafka(servers)) if servers else [])


if __name__ == "__main__":
    print_table(run())
