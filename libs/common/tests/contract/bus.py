"""What every bus promises: an adapter's test class inherits this and says how to open the bus.

`opener` opens the same log each time it is called, with the topics of the fixture `topics`: `orders`
has four partitions, `letters` has one, and nobody has used them before. `source` is the Python that
opens the bus in another process: with `topics` in scope, it leaves the bus in a variable `bus`.
`forget` lets the log forget what a topic holds, as its retention does one day.
"""

import asyncio
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, ClassVar, Final

import pytest
import structlog

from rapport.common.bus.port import Bus, Expired, Position
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.ids import random_id
from rapport.common.events.topics import Topic

Opener = Callable[[], Bus]
Topics = Mapping[str, Topic]
Forget = Callable[[Bus, str], Awaitable[None]]

PATIENCE: Final = 60.0
"""Seconds after which a test gives up on what should come."""

HEADERS: Final = (("ce_id", b"1"), ("ce_type", b"rapport.order.placed.v1"))


def topics_of(run: str) -> Topics:
    """Return the topics of one test run."""
    orders = Topic(f"tests.{run}.orders", writer="tests", partitions=4)
    letters = Topic(f"tests.{run}.letters", writer="tests", partitions=1)
    return {topic.name: topic for topic in (orders, letters)}


def message(topic: str, key: str, text: str) -> Message:
    return Message(topic, key, text.encode(), HEADERS)


def numbered(topic: str, key: str, count: int, *, first: int = 0) -> list[Message]:
    return [message(topic, key, f"{key}-{number}") for number in range(first, first + count)]


def texts(records: Iterable[Record]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


class Reader:
    """A handler that keeps what it is done with and tells when there is enough of it."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Record]] = []
        self._changed = asyncio.Event()

    async def __call__(self, records: Sequence[Record]) -> None:
        await self.work(records)
        self.batches.append(records)
        self._changed.set()

    async def work(self, records: Sequence[Record]) -> None:
        """Do something before the batch is done; nothing here."""

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    async def until(self, count: int) -> list[Record]:
        """Wait for `count` records and return all that there are."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.records


class Busy(Reader):
    """A handler that gets stuck in batches that hold one of `stuck`, until it is let go on."""

    def __init__(self, *stuck: str) -> None:
        super().__init__()
        self._stuck = set(stuck)
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    async def work(self, records: Sequence[Record]) -> None:
        if self._stuck.intersection(texts(records)):
            self.started.set()
            await self.go_on.wait()


class Raising(Reader):
    """A handler that raises at a batch that holds `text`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    async def work(self, records: Sequence[Record]) -> None:
        if self._text in texts(records):
            raise LookupError(f"cannot do {self._text}")


async def soon(happening: Awaitable[Any]) -> Any:
    """Return what comes, or fail when it takes too long."""
    async with asyncio.timeout(PATIENCE):
        return await happening


async def all_of(bus: Bus, topic: str) -> list[Record]:
    """Return everything that a topic holds, of which nothing has been forgotten."""
    ends = await bus.ends([topic])
    count = sum(ends.values())
    found: list[Record] = []
    if count:
        async with asyncio.timeout(PATIENCE):
            async for records in bus.tail([topic], dict.fromkeys(ends, -1)):
                found += records
                if len(found) >= count:
                    break
    return found


def by_partition(records: Iterable[Record]) -> dict[int, list[Record]]:
    """Return records in the order in which they came, each partition's by themselves."""
    partitions: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        partitions[record.partition].append(record)
    return partitions


class BusContract:
    """The promises of `bus/port.py`, one test each."""

    KILLS: ClassVar[int] = 3

    @pytest.fixture
    def run(self) -> str:
        return random_id()

    @pytest.fixture
    def topics(self, run: str) -> Topics:
        return topics_of(run)

    @pytest.fixture
    def orders(self, run: str) -> str:
        return f"tests.{run}.orders"

    @pytest.fixture
    def letters(self, run: str) -> str:
        return f"tests.{run}.letters"

    @pytest.fixture
    def group(self, run: str) -> str:
        return f"group.{run}"

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def source(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def forget(self) -> Forget:
        raise NotImplementedError

    @pytest.fixture
    async def bus(self, opener: Opener) -> AsyncIterator[Bus]:
        bus = opener()
        await bus.start()
        yield bus
        await bus.stop()

    # Publishing

    async def test_what_is_published_comes_back_as_it_was(self, bus: Bus, letters: str) -> None:
        sent = [
            Message(letters, "case-1", b'{"text": "x"}', HEADERS),
            Message(letters, "", b"", ()),
            Message(letters, "شکایت", "包裹迟到".encode(), (("subject", "پرونده".encode()),)),
            Message(
                letters, "raw", bytes(range(256)), (("raw", bytes(range(256))), ("empty", b""))
            ),
            Message(letters, "twice", b"", (("name", b"\0"), ("name", b"\0\1"), ("名字", b"\1"))),
        ]
        await bus.publish(sent)
        records = await all_of(bus, letters)
        assert [(item.key, item.value, tuple(item.headers)) for item in records] == [
            (item.key, item.value, tuple(item.headers)) for item in sent
        ]
        assert {(record.topic, record.partition) for record in records} == {(letters, 0)}
        assert [record.offset for record in records] == list(range(len(sent)))

    async def test_a_foreign_record_can_lack_everything(self, bus: Bus, letters: str) -> None:
        await bus.publish([Message(letters, None, None, ())])
        (record,) = await all_of(bus, letters)
        assert (record.key, record.value, tuple(record.headers)) == (None, None, ())

    async def test_messages_of_a_key_keep_their_order(self, bus: Bus, orders: str) -> None:
        keys = [f"case-{number}" for number in range(20)]
        for first in (0, 3):
            await bus.publish(
                [
                    message(orders, key, f"{key}-{at}")
                    for at in range(first, first + 3)
                    for key in keys
                ]
            )
        records = await all_of(bus, orders)
        for key in keys:
            own = [record for record in records if record.key == key]
            assert texts(own) == [f"{key}-{at}" for at in range(6)]
            assert len({record.partition for record in own}) == 1
        assert len(by_partition(records)) > 1

    async def test_publishing_nothing_changes_nothing(self, bus: Bus, orders: str) -> None:
        before = await bus.ends([orders])
        await bus.publish([])
        assert await bus.ends([orders]) == before == {(orders, number): 0 for number in range(4)}

    async def test_a_topic_has_to_be_declared(self, bus: Bus) -> None:
        with pytest.raises(PermanentError):
            await bus.publish([message("tests.undeclared", "a", "text")])

    @pytest.mark.parametrize(
        ("value", "headers"),
        [(bytes(1_000_001), ()), (b"", (("large", bytes(40_000)),))],
        ids=["value", "headers"],
    )
    async def test_a_message_has_limits(
        self, bus: Bus, letters: str, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        with pytest.raises(PermanentError):
            await bus.publish([Message(letters, "a", value, headers)])

    async def test_what_is_within_the_limits_goes_through(self, bus: Bus, letters: str) -> None:
        large = Message(letters, "a", bytes(999_999), (("large", bytes(30_000)),))
        await bus.publish([large])
        (record,) = await all_of(bus, letters)
        assert (record.value, tuple(record.headers)) == (large.value, tuple(large.headers))

    async def test_many_publishers_at_once(self, bus: Bus, orders: str) -> None:
        async def publisher(name: str) -> None:
            for sent in numbered(orders, name, 5):
                await bus.publish([sent])

        names = [f"case-{number}" for number in range(100)]
        await asyncio.gather(*(publisher(name) for name in names))
        records = await all_of(bus, orders)
        assert len(records) == 500
        for name in names:
            own = [record for record in records if record.key == name]
            assert texts(own) == [f"{name}-{number}" for number in range(5)]

    async def test_all_of_it_is_there_after_a_restart(self, opener: Opener, orders: str) -> None:
        bus = opener()
        await bus.start()
        under_way = [
            asyncio.create_task(bus.publish(numbered(orders, f"{n}", 3))) for n in range(50)
        ]
        await asyncio.sleep(0)
        await bus.stop()
        await asyncio.gather(*under_way)

        bus = opener()
        await bus.start()
        assert Counter(texts(await all_of(bus, orders))) == Counter(
            f"{key}-{number}" for key in range(50) for number in range(3)
        )
        await bus.stop()

    async def test_a_closed_bus_is_trouble_that_passes(self, opener: Opener, letters: str) -> None:
        bus = opener()
        await bus.start()
        await bus.stop()
        with pytest.raises(TemporaryError):
            await bus.publish([message(letters, "a", "text")])

    async def test_what_was_answered_survives_kill_9(
        self, opener: Opener, source: str, run: str, orders: str
    ) -> None:
        answered: list[str] = []
        for kill in range(self.KILLS):
            answered += await asyncio.to_thread(_run_until_killed, "publish", source, run, kill)
            bus = opener()
            await bus.start()
            found = by_partition(await all_of(bus, orders))
            await bus.stop()
            for records in found.values():
                for key in {record.key for record in records}:
                    own = [text for text in texts(records) if text.startswith(f"{key}:")]
                    assert own == sorted(own)
            assert set(answered) <= {text for records in found.values() for text in texts(records)}

    # Subscribing

    async def test_a_new_group_starts_at_the_start(self, bus: Bus, orders: str, group: str) -> None:
        await bus.publish(numbered(orders, "a", 3))
        reader = Reader()
        subscription = await bus.subscribe(group, [orders], reader)
        await reader.until(3)
        await bus.publish(numbered(orders, "a", 3, first=3))
        assert texts(await reader.until(6)) == [f"a-{number}" for number in range(6)]
        await subscription.stop()

    async def test_a_group_goes_on_where_it_stopped(
        self, opener: Opener, orders: str, group: str
    ) -> None:
        for first in (0, 5):
            bus = opener()
            await bus.start()
            await bus.publish(numbered(orders, "a", 5, first=first))
            for _ in range(2):
                await bus.publish([message(orders, "b", "again")])
                reader = Reader()
                subscription = await bus.subscribe(group, [orders], reader)
                await reader.until(1)
                await subscription.stop()
            ...
            await bus.stop()

    async def test_groups_do_not_know_of_each_other(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        await bus.publish(numbered(orders, "a", 5))
        one, other = Reader(), Busy("a-0")
        first = await bus.subscribe(f"{group}.one", [orders], one)
        second = await bus.subscribe(f"{group}.other", [orders], other)
        assert len(await one.until(5)) == 5
        assert other.records == []
        other.go_on.set()
        assert texts(await other.until(5)) == texts(one.records)
        await first.stop()
        await second.stop()
