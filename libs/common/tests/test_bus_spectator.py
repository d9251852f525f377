"""The embedded bus's log, looked at from outside: beside its owner, and when nobody has it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.history import history
from rapport.common.bus.port import Expired
from rapport.common.bus.spectator import Spectator
from rapport.common.clock import ManualClock
from rapport.common.errors import NotFound, PermanentError, TemporaryError
from rapport.common.events.codec import Record
from rapport.common.events.topics import Topic

from .contract.bus import message, numbered, soon, texts

LETTERS: Final = Topic("tests.letters", writer="tests", partitions=1)
ORDERS: Final = Topic("tests.orders", writer="tests", partitions=4)
LATER: Final = Topic("tests.later", writer="tests", partitions=1)
TOPICS: Final = {topic.name: topic for topic in (LETTERS, ORDERS)}
NAMES: Final = tuple(TOPICS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "bus.db"


@pytest.fixture
def no_database(tmp_path: Path) -> Path:
    path = tmp_path / "bus.db"
    path.write_bytes(b"no database" * 1000)
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 2, 8, tzinfo=UTC))


@pytest.fixture
async def bus(path: Path, clock: ManualClock) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(path, topics=TOPICS, clock=clock)
    await bus.start()
    yield bus
    await bus.stop()


@pytest.fixture
async def spectator(bus: EmbeddedBus, path: Path) -> AsyncIterator[Spectator]:
    """Somebody who looks at the log while it is in use."""
    spectator = Spectator(path, topics=TOPICS)
    await spectator.start()
    yield spectator
    await spectator.stop()


async def everything(spectator: Spectator) -> list[Record]:
    return [record async for records in history(spectator, NAMES) for record in records]


async def next_texts(tail: AsyncIterator[Sequence[Record]], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        found += texts(await soon(anext(tail)))
    return found


async def test_it_sees_what_the_owner_has_published(bus: EmbeddedBus, spectator: Spectator) -> None:
    await bus.publish([*numbered(LETTERS.name, "a", 700), *numbered(ORDERS.name, "b", 3)])

    seen = await everything(spectator)
    assert texts(item for item in seen if item.topic == LETTERS.name) == [
        f"a-{number}" for number in range(700)
    ]
    assert texts(item for item in seen if item.topic == ORDERS.name) == ["b-0", "b-1", "b-2"]
    assert await spectator.ends(NAMES) == await bus.ends(NAMES)
    assert await spectator.starts(NAMES) == await bus.starts(NAMES)


async def test_it_follows_what_is_published_from_then_on(
    bus: EmbeddedBus, spectator: Spectator
) -> None:
    await bus.publish(numbered(LETTERS.name, "old", 1))
    tail = spectator.tail([LETTERS.name])
    first = asyncio.ensure_future(anext(tail))
    async with asyncio.timeout(60):
        while not first.done():
            await bus.publish([message(LETTERS.name, "new", "new")])
    assert set(texts(await first)) == {"new"}

    end = (await spectator.ends([LETTERS.name]))[LETTERS.name, 0]
    rest = spectator.tail([LETTERS.name], {(LETTERS.name, 0): end - 1})
    await bus.publish(numbered(LETTERS.name, "a", 2))
    assert await next_texts(rest, 2) == ["a-0", "a-1"]


async def test_its_tail_ends_when_it_is_stopped(spectator: Spectator) -> None:
    waiting = asyncio.ensure_future(anext(spectator.tail(NAMES)))
    await spectator.starts(NAMES)
    await spectator.stop()
    with pytest.raises(StopAsyncIteration):
        await soon(waiting)


async def test_it_says_when_what_it_is_to_read_has_left_the_log(
    bus: EmbeddedBus, spectator: Spectator, clock: ManualClock
) -> None:
    await bus.publish(numbered(LETTERS.name, "a", 5))
    clock.move(timedelta(days=31))
    await bus.trim()
    await bus.publish(numbered(LETTERS.name, "a", 2, first=5))

    with pytest.raises(Expired):
        await soon(anext(spectator.tail([LETTERS.name], {(LETTERS.name, 0): 3})))
    assert await spectator.starts([LETTERS.name]) == {(LETTERS.name, 0): 5}
    assert texts(await everything(spectator)) == ["a-5", "a-6"]


async def test_it_reads_when_nobody_has_the_log_and_lets_others_have_it(
    bus: EmbeddedBus, path: Path, clock: ManualClock
) -> None:
    await bus.publish(numbered(LETTERS.name, "a", 3))
    await bus.stop()
    spectator = Spectator(path, topics=TOPICS)
    await spectator.start()
    assert texts(await everything(spectator)) == ["a-0", "a-1", "a-2"]

    other = EmbeddedBus(path, topics=TOPICS, clock=clock)
    await other.start()
    await other.publish(numbered(LETTERS.name, "a", 1, first=3))
    assert texts(await everything(spectator))[-1] == "a-3"
    await other.stop()
    await spectator.stop()


async def test_a_topic_that_the_log_does_not_know_yet_is_empty(
    bus: EmbeddedBus, path: Path
) -> None:
    newer = Spectator(path, topics={**TOPICS, LATER.name: LATER})
    await newer.start()
    assert await newer.ends([LATER.name]) == {}
    with pytest.raises(PermanentError):
        await newer.ends(["tests.undeclared"])
    await newer.stop()


async def test_it_makes_no_log(path: Path) -> None:
    spectator = Spectator(path, topics=TOPICS)
    with pytest.raises(NotFound, match="there is no log"):
        await spectator.start()
    with pytest.raises(TemporaryError):
        await spectator.ends(NAMES)
    await spectator.stop()
    assert not path.parent.exists()


async def test_a_file_that_is_no_log_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 7")
    spectator = Spectator(path, topics=TOPICS)
    with pytest.raises(PermanentError, match="format 7"):
        await spectator.start()
    await spectator.stop()


async def test_a_damaged_file_is_trouble(no_database: Path) -> None:
    spectator = Spectator(no_database, topics=TOPICS)
    with pytest.raises(TemporaryError, match="not a database"):
        await spectator.start()
    await spectator.stop()
