"""What every bus promises: an adapter's test class inherits this and says how to open the bus.

`opener` opens the same log each time it is called, with the topics of the fixture `topics`:
`orders` has four partitions, `letters` has one, and nobody has used them before. `source` is the
Python that opens the bus in another process: with `topics` in scope, it leaves the bus in a
variable `bus`. `forget` lets the log forget what a topic holds, as its retention does one day.
"""

import asyncio
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import pytest
import structlog

from rapport.common.bus.history import history
from rapport.common.bus.port import Bus, Expired
from rapport.common.bus.rests import rest
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.ids import random_id
from rapport.common.events.topics import Topic

Opener = Callable[[], Bus]
Topics = Mapping[str, Topic]
Forget = Callable[[Bus, str], Awaitable[None]]

PATIENCE: Final = 60.0
"""Seconds after which a test gives up on what should come."""

SCOUTS: Final = 12

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


async def scout(bus: Bus, topic: str) -> tuple[str, str]:
    """Publish `SCOUTS` messages, each with its own key, and return two keys of two partitions."""
    await bus.publish([message(topic, f"scout-{number}", "scout") for number in range(SCOUTS)])
    scouts = by_partition(await all_of(bus, topic))
    one, other, *_ = [records[0].key for records in scouts.values()]
    assert one
    assert other
    return one, other


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
        self, bus: Bus, letters: str, group: str
    ) -> None:
        got: list[str] = []
        for first in (0, 5, 10):
            await bus.publish(numbered(letters, "a", 5, first=first))
            reader = Reader()
            subscription = await bus.subscribe(group, [letters], reader)
            await reader.until(5)
            await subscription.stop()
            got += texts(reader.records)
        assert got == [f"a-{number}" for number in range(15)]

    async def test_a_group_goes_on_after_a_restart(
        self, opener: Opener, letters: str, group: str
    ) -> None:
        got: list[str] = []
        for first in (0, 5):
            bus = opener()
            await bus.start()
            await bus.publish(numbered(letters, "a", 5, first=first))
            reader = Reader()
            await bus.subscribe(group, [letters], reader)
            await reader.until(5)
            await bus.stop()
            got += texts(reader.records)
        assert got == [f"a-{number}" for number in range(10)]

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

    async def test_a_group_reads_several_topics(
        self, bus: Bus, orders: str, letters: str, group: str
    ) -> None:
        await bus.publish([*numbered(orders, "a", 3), *numbered(letters, "b", 3)])
        reader = Reader()
        subscription = await bus.subscribe(group, [orders, letters], reader)
        records = await reader.until(6)
        assert Counter(record.topic for record in records) == {orders: 3, letters: 3}
        await subscription.stop()

    async def test_a_batch_has_its_size_and_one_partition(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        await bus.publish([sent for key in "abcdefgh" for sent in numbered(orders, key, 10)])
        reader = Reader()
        subscription = await bus.subscribe(group, [orders], reader, max_batch=3)
        await reader.until(80)
        await subscription.stop()
        for batch in reader.batches:
            assert 1 <= len(batch) <= 3
            assert len({record.partition for record in batch}) == 1
        for records in by_partition(reader.records).values():
            assert [record.offset for record in records] == list(range(len(records)))

    async def test_a_partition_is_handled_one_batch_at_a_time(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        at_work: Counter[int] = Counter()

        class Watching(Reader):
            async def work(self, records: Sequence[Record]) -> None:
                at_work[records[0].partition] += 1
                assert at_work[records[0].partition] == 1
                await asyncio.sleep(0)
                at_work[records[0].partition] -= 1

        reader = Watching()
        subscription = await bus.subscribe(group, [orders], reader, max_batch=2)
        for first in range(0, 20, 5):
            await bus.publish(
                [m for key in "abcdef" for m in numbered(orders, key, 5, first=first)]
            )
        await reader.until(120)
        assert subscription.failures == {}
        await subscription.stop()

    async def test_partitions_are_handled_in_parallel(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        met = asyncio.Barrier(2)

        class Meeting(Reader):
            async def work(self, records: Sequence[Record]) -> None:
                if texts(records) == ["met"]:
                    await soon(met.wait())

        one, other = await scout(bus, orders)
        reader = Meeting()
        subscription = await bus.subscribe(group, [orders], reader, max_batch=1)
        await bus.publish([message(orders, one, "met"), message(orders, other, "met")])
        await reader.until(SCOUTS + 2)
        assert subscription.failures == {}
        await subscription.stop()

    async def test_a_stuck_handler_holds_only_its_own_partition(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        stuck, other = await scout(bus, orders)
        reader = Busy("stuck")
        subscription = await bus.subscribe(group, [orders], reader)
        await reader.until(SCOUTS)
        await bus.publish([message(orders, stuck, "stuck"), *numbered(orders, other, 5)])
        done = texts(await reader.until(SCOUTS + 5))
        assert done[SCOUTS:] == [f"{other}-{number}" for number in range(5)]
        reader.go_on.set()
        assert texts(await reader.until(SCOUTS + 6))[-1] == "stuck"
        await subscription.stop()

    async def test_a_handler_that_raises_stops_its_partition_loudly(
        self, bus: Bus, orders: str, group: str
    ) -> None:
        broken, other = await scout(bus, orders)
        reader = Raising("ana@example.com")
        subscription = await bus.subscribe(group, [orders], reader, max_batch=1)
        await reader.until(SCOUTS)
        with structlog.testing.capture_logs() as lines:
            await bus.publish(
                [message(orders, broken, text) for text in ("before", "ana@example.com", "after")]
            )
            await reader.until(SCOUTS + 1)
            await bus.publish(numbered(orders, other, 5))
            await reader.until(SCOUTS + 6)
        assert texts(reader.records)[SCOUTS:] == ["before", *(f"{other}-{n}" for n in range(5))]

        ((place, failure),) = subscription.failures.items()
        assert isinstance(failure, LookupError)
        (line,) = (line for line in lines if line["log_level"] == "error")
        assert (line["event"], line["cause"]) == ("bus.partition_stopped", "LookupError")
        assert (line["group"], line["topic"], line["partition"]) == (group, *place)
        assert "example.com" not in str(lines)
        assert (await subscription.lag()).records == 2
        await subscription.stop()

        again = Reader()
        subscription = await bus.subscribe(group, [orders], again)
        assert texts(await again.until(2)) == ["ana@example.com", "after"]
        await subscription.stop()

    async def test_what_is_cancelled_is_delivered_again_and_nothing_is_skipped(
        self, bus: Bus, letters: str, group: str
    ) -> None:
        await bus.publish(numbered(letters, "a", 10))
        reader = Busy("a-4")
        subscription = await bus.subscribe(group, [letters], reader, max_batch=2)
        await soon(reader.started.wait())
        await subscription.stop(drain=0)
        assert texts(reader.records) == ["a-0", "a-1", "a-2", "a-3"]

        again = Reader()
        subscription = await bus.subscribe(group, [letters], again)
        assert texts(await again.until(6)) == [f"a-{number}" for number in range(4, 10)]
        await subscription.stop()

    async def test_stopping_lets_a_handler_finish(self, bus: Bus, letters: str, group: str) -> None:
        await bus.publish(numbered(letters, "a", 4))
        reader = Busy("a-0")
        subscription = await bus.subscribe(group, [letters], reader, max_batch=2)
        await soon(reader.started.wait())
        stopping = asyncio.create_task(subscription.stop(drain=PATIENCE))
        await asyncio.sleep(0)
        reader.go_on.set()
        await soon(stopping)
        assert texts(reader.records) == ["a-0", "a-1"]

        again = Reader()
        subscription = await bus.subscribe(group, [letters], again)
        assert texts(await again.until(2)) == ["a-2", "a-3"]
        await subscription.stop()
        await subscription.stop()

    async def test_stopping_does_not_wait_for_a_handler_that_rests(
        self, bus: Bus, letters: str, group: str
    ) -> None:
        await bus.publish(numbered(letters, "a", 1))
        pausing = asyncio.Event()

        async def pause(records: Sequence[Record]) -> None:
            pausing.set()
            with rest():
                await asyncio.Event().wait()

        subscription = await bus.subscribe(group, [letters], pause)
        await soon(pausing.wait())
        await soon(subscription.stop(drain=1_000 * PATIENCE))

        again = Reader()
        subscription = await bus.subscribe(group, [letters], again)
        assert texts(await again.until(1)) == ["a-0"]
        await subscription.stop()

    async def test_a_group_knows_how_far_it_is_behind(
        self, bus: Bus, letters: str, group: str
    ) -> None:
        await bus.publish(numbered(letters, "a", 10))
        reader = Busy("a-4")
        subscription = await bus.subscribe(group, [letters], reader, max_batch=2)
        await soon(reader.started.wait())
        lag = await subscription.lag()
        assert lag.records == 6
        assert lag.seconds >= 0
        reader.go_on.set()
        await reader.until(10)
        async with asyncio.timeout(PATIENCE):
            while (lag := await subscription.lag()).records:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert lag.seconds == 0
        await subscription.stop()

    async def test_a_reader_killed_at_work_loses_nothing(
        self, opener: Opener, source: str, run: str, letters: str, group: str
    ) -> None:
        bus = opener()
        await bus.start()
        await bus.publish(numbered(letters, "a", 500))
        await bus.stop()

        started = await asyncio.to_thread(_run_until_killed, "read", source, run, 0)
        bus = opener()
        await bus.start()
        reader = Reader()
        await bus.subscribe(group, [letters], reader)
        async with asyncio.timeout(PATIENCE):
            while texts(reader.records)[-1:] != ["a-499"]:
                await reader.until(len(reader.records) + 1)
        await bus.stop()
        first = int(texts(reader.records)[0].removeprefix("a-"))
        assert texts(reader.records) == [f"a-{number}" for number in range(first, 500)]
        assert started[:first] == [f"a-{number}" for number in range(first)]

    # Reading without a group

    async def test_a_tail_without_positions_begins_now(self, bus: Bus, letters: str) -> None:
        await bus.publish(numbered(letters, "old", 3))
        tail = bus.tail([letters])
        first = asyncio.ensure_future(anext(tail))
        async with asyncio.timeout(PATIENCE):
            while not first.done():
                await bus.publish([message(letters, "new", "new")])
        assert set(texts(await first)) == {"new"}

    async def test_a_tail_begins_after_its_positions_and_goes_on(
        self, bus: Bus, letters: str
    ) -> None:
        await bus.publish(numbered(letters, "a", 5))
        tail = bus.tail([letters], {(letters, 0): 2})
        assert await self.next_texts(tail, 2) == ["a-3", "a-4"]
        await bus.publish(numbered(letters, "a", 2, first=5))
        assert await self.next_texts(tail, 2) == ["a-5", "a-6"]

    async def test_each_item_of_a_tail_is_of_one_partition(self, bus: Bus, orders: str) -> None:
        await bus.publish([sent for key in "abcdefgh" for sent in numbered(orders, key, 5)])
        count = 0
        async for records in bus.tail([orders], {(orders, number): -1 for number in range(4)}):
            assert len({record.partition for record in records}) == 1
            count += len(records)
            if count == 40:
                break

    async def test_a_partition_that_a_tail_is_not_told_of_begins_at_its_end(
        self, bus: Bus, orders: str
    ) -> None:
        one, other = await scout(bus, orders)
        places = {record.key: record.partition for record in await all_of(bus, orders)}
        tail = bus.tail([orders], {(orders, places[one]): -1})
        early = await soon(anext(tail))
        assert {record.partition for record in early} == {places[one]}
        await bus.publish([message(orders, other, "late")])
        assert await self.next_texts(tail, 1) == ["late"]

    async def test_a_tail_says_when_its_positions_have_left_the_log(
        self, bus: Bus, letters: str, forget: Forget
    ) -> None:
        await bus.publish(numbered(letters, "a", 5))
        await forget(bus, letters)
        await bus.publish(numbered(letters, "a", 2, first=5))
        assert await self.next_texts(bus.tail([letters], {(letters, 0): 4}), 2) == ["a-5", "a-6"]
        for lost in (-1, 3):
            with pytest.raises(Expired):
                await soon(anext(bus.tail([letters], {(letters, 0): lost})))

    async def test_a_new_group_starts_where_the_log_starts(
        self, bus: Bus, letters: str, group: str, forget: Forget
    ) -> None:
        await bus.publish(numbered(letters, "a", 5))
        await forget(bus, letters)
        assert await bus.ends([letters]) == {(letters, 0): 5}
        await bus.publish(numbered(letters, "a", 2, first=5))
        reader = Reader()
        subscription = await bus.subscribe(group, [letters], reader)
        assert texts(await reader.until(2)) == ["a-5", "a-6"]
        await subscription.stop()

    async def test_a_tail_can_stop_where_the_ends_were(self, bus: Bus, orders: str) -> None:
        await bus.publish([sent for key in "abcdefgh" for sent in numbered(orders, key, 5)])
        ends = await bus.ends([orders])
        await bus.publish(numbered(orders, "late", 1))
        after = dict.fromkeys(ends, -1)
        async with asyncio.timeout(PATIENCE):
            seen = [one async for some in bus.tail([orders], after, until=ends) for one in some]
        assert len([one for one in seen if one.key != "late"]) == 40

    async def test_the_oldest_that_is_kept_is_where_a_reading_begins(
        self, bus: Bus, letters: str, orders: str, forget: Forget
    ) -> None:
        assert await bus.starts([letters]) == {(letters, 0): 0}
        await bus.publish(numbered(letters, "a", 5))
        assert await bus.starts([letters]) == {(letters, 0): 0}
        await forget(bus, letters)
        assert await bus.starts([letters]) == await bus.ends([letters]) == {(letters, 0): 5}
        await bus.publish([*numbered(letters, "a", 2, first=5), *numbered(orders, "b", 40)])
        seen = [record async for some in history(bus, [letters, orders]) for record in some]
        assert texts(record for record in seen if record.topic == letters) == ["a-5", "a-6"]
        assert texts(record for record in seen if record.topic == orders) == [
            f"b-{number}" for number in range(40)
        ]

    async def test_a_tail_ends_with_the_bus(self, opener: Opener, letters: str) -> None:
        bus = opener()
        await bus.start()
        await bus.publish(numbered(letters, "a", 1))
        tail = bus.tail([letters], {(letters, 0): -1})
        assert await self.next_texts(tail, 1) == ["a-0"]
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        await bus.stop()
        with pytest.raises(StopAsyncIteration):
            await soon(waiting)

    async def next_texts(self, tail: AsyncIterator[Sequence[Record]], count: int) -> list[str]:
        """Return the next `count` texts of a tail."""
        found: list[str] = []
        while len(found) < count:
            found += texts(await soon(anext(tail)))
        return found


def _run_until_killed(task: str, source: str, run: str, kill: int) -> list[str]:
    """Let a real process work, kill it with -9 in the middle, return the lines it printed."""
    command = [sys.executable, __file__, task, source, run, str(kill)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(50 + 17 * kill)]
        process.kill()
        lines += [line.strip() for line in process.stdout if line.endswith("\n")]
    return lines


async def _publish_for_ever(bus: Bus, run: str, kill: str) -> None:
    """Publish from eight sides, and print each text once that is answered."""
    orders = next(name for name in topics_of(run) if name.endswith("orders"))
    await bus.start()

    async def publish(key: str) -> None:
        for number in range(sys.maxsize):
            text = f"{key}:{number:06}"
            await bus.publish([message(orders, key, text)])
            print(text, flush=True)

    await asyncio.gather(*(publish(f"{kill}.{side}") for side in range(8)))


async def _read_for_ever(bus: Bus, run: str, kill: str) -> None:
    """Read as a group, and print each text before it is done."""
    letters = next(name for name in topics_of(run) if name.endswith("letters"))
    await bus.start()

    async def handle(records: Sequence[Record]) -> None:
        for text in texts(records):
            print(text, flush=True)

    await bus.subscribe(f"group.{run}", [letters], handle, max_batch=1)
    await asyncio.Event().wait()


if __name__ == "__main__":
    task, source, run, kill = sys.argv[1:]
    scope: dict[str, Any] = {"topics": topics_of(run)}
    exec(source, scope)
    work = {"publish": _publish_for_ever, "read": _read_for_ever}[task]
    asyncio.run(work(scope["bus"], run, kill))
