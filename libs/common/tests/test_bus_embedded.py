"""The embedded bus keeps the port's promises; its own are one file with one owner, and bounds."""

import asyncio
import os
import resource
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rapport.common.bus import group_commit, lanes
from rapport.common.bus.embedded import RECENT_BYTES, EmbeddedBus
from rapport.common.bus.group_commit import QUEUE_BYTES
from rapport.common.bus.lanes import GroupReader
from rapport.common.bus.log import Log, Partition, Segment, open_to_read
from rapport.common.bus.port import Bus, Expired
from rapport.common.clock import ManualClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.topics import Topic

from .contract.bus import (
    PATIENCE,
    BusContract,
    Busy,
    Forget,
    Opener,
    Reader,
    Topics,
    all_of,
    message,
    numbered,
    soon,
    texts,
)

MORNING: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)
LETTERS: Final = Topic("tests.letters", writer="tests", partitions=1)
ORDERS: Final = Topic("tests.orders", writer="tests", partitions=4, retention=timedelta(days=7))
TOPICS: Final = {topic.name: topic for topic in (LETTERS, ORDERS)}


class TestTheContract(BusContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "bus.db"

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(MORNING)

    @pytest.fixture
    def opener(self, path: Path, topics: Topics, clock: ManualClock) -> Opener:
        return partial(EmbeddedBus, path, topics=topics, clock=clock)

    @pytest.fixture
    def source(self, path: Path) -> str:
        return (
            "from pathlib import Path\n"
            "from rapport.common.bus.embedded import EmbeddedBus\n"
            f"bus = EmbeddedBus(Path({str(path)!r}), topics=topics)"
        )

    @pytest.fixture
    def forget(self, clock: ManualClock) -> Forget:
        async def forget(bus: Bus, topic: str) -> None:
            assert isinstance(bus, EmbeddedBus)
            clock.move(timedelta(days=31))
            await bus.trim()

        return forget


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MORNING)


@pytest.fixture
def opener(path: Path, clock: ManualClock) -> partial[EmbeddedBus]:
    return partial(EmbeddedBus, path, topics=TOPICS, clock=clock)


@pytest.fixture
async def bus(opener: partial[EmbeddedBus]) -> AsyncIterator[EmbeddedBus]:
    bus = opener()
    await bus.start()
    yield bus
    await bus.stop()


# One file, one owner


async def test_a_log_belongs_to_one_process(bus: EmbeddedBus, opener: partial[EmbeddedBus]) -> None:
    other = opener()
    with pytest.raises(TemporaryError, match=rf"bus\.db is in use by process {os.getpid()}$"):
        await other.start()
    await bus.stop()
    await other.start()
    await other.stop()


def test_a_file_that_is_no_log_is_trouble_until_it_is_gone(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    log = Log(path, TOPICS)
    with pytest.raises(TemporaryError, match="not a database"):
        log.open()
    path.unlink()
    log.open()
    log.close()


def test_a_log_of_another_format_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(PermanentError, match="format 99"):
        Log(path, TOPICS).open()


async def test_the_number_of_partitions_cannot_change(
    path: Path, opener: partial[EmbeddedBus]
) -> None:
    bus = opener()
    await bus.start()
    await bus.stop()
    more = EmbeddedBus(path, topics={LETTERS.name: replace(LETTERS, partitions=2)})
    with pytest.raises(PermanentError, match=r"tests\.letters was created with 1 partitions"):
        await more.start()


async def test_a_topic_can_be_added(path: Path) -> None:
    bus = EmbeddedBus(path, topics={LETTERS.name: LETTERS})
    await bus.start()
    await bus.publish([message(LETTERS.name, "a", "old")])
    await bus.stop()
    bus = EmbeddedBus(path, topics=TOPICS)
    await bus.start()
    await bus.publish([message(ORDERS.name, "a", "new")])
    assert texts(await all_of(bus, LETTERS.name)) == ["old"]
    assert texts(await all_of(bus, ORDERS.name)) == ["new"]
    await bus.stop()


async def test_a_group_has_one_reader_of_a_topic(bus: EmbeddedBus) -> None:
    await bus.subscribe("group", [LETTERS.name], Reader())
    with pytest.raises(PermanentError):
        await bus.subscribe("group", [ORDERS.name, LETTERS.name], Reader())
    await bus.subscribe("group", [ORDERS.name], Reader())


# Trouble


async def test_nothing_of_a_refused_call_is_published(bus: EmbeddedBus) -> None:
    with pytest.raises(PermanentError):
        await bus.publish(
            [message(LETTERS.name, "a", "small"), Message(LETTERS.name, "a", bytes(2_000_000), ())]
        )
    assert await bus.ends([LETTERS.name]) == {(LETTERS.name, 0): 0}


async def test_a_full_disk_is_trouble_that_passes(bus: EmbeddedBus, path: Path) -> None:
    await bus.publish(numbered(LETTERS.name, "a", 2))
    large = [Message(LETTERS.name, "a", bytes(900_000), ())] * 3
    with no_file_over(1_500_000):
        with pytest.raises(TemporaryError, match="the log cannot be used"):
            await bus.publish([*numbered(LETTERS.name, "lost", 2), *large])
        assert texts(await all_of(bus, LETTERS.name)) == ["a-0", "a-1"]
    await bus.publish(numbered(LETTERS.name, "a", 2, first=2))
    assert texts(await all_of(bus, LETTERS.name)) == ["a-0", "a-1", "a-2", "a-3"]


async def test_positions_that_found_no_room_are_kept_by_themselves_later(
    bus: EmbeddedBus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "RETRY_DELAY", 0.05)
    monkeypatch.setattr(group_commit, "POSITIONS_DELAY", 0.0)
    await bus.publish(numbered(LETTERS.name, "a", 2))

    def kept() -> list[int]:
        with closing(open_to_read(path)) as log:
            return [at for (at,) in log.execute("SELECT position FROM positions")]

    with no_file_over(1):
        reader = Reader()
        await bus.subscribe("group", [LETTERS.name], reader)
        await reader.until(2)
        with capture_logs() as logs:
            await until(lambda: bool(logs))
        assert kept() == []
    await until(lambda: kept() == [2])


async def test_reading_goes_on_when_trouble_has_passed(clock: ManualClock) -> None:
    partition = Partition(1, LETTERS.name, 0, start=0, end=1)
    record = Record(LETTERS.name, 0, 0, 0, "a", b"text", ())
    tried = asyncio.Event()

    class Troubled:
        def __init__(self) -> None:
            self.answers: list[Sequence[Record] | TemporaryError] = [
                TemporaryError("disk I/O error", delay=5.0),
                [record],
            ]

        async def read(self, partition: Partition, position: int) -> Sequence[Record]:
            tried.set()
            answer = self.answers.pop(0)
            if isinstance(answer, TemporaryError):
                raise answer
            return answer

        async def oldest(self, places: Sequence[tuple[Partition, int]]) -> int:
            return 0

        def move(self, group: str, partition: Partition, position: int) -> None:
            assert position == 1

        def leave(self, reader: GroupReader) -> None:
            assert reader is subscription

    reader = Reader()
    subscription = GroupReader("group", Troubled(), clock, reader, 10, {partition: 0})
    subscription.lanes[partition].wake()
    await soon(tried.wait())
    clock.move(timedelta(seconds=5))
    assert await reader.until(1) == [record]
    await subscription.stop()


async def until(holds: Callable[[], bool]) -> None:
    """Return when something holds that nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let every write that makes a file longer than `size` bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_comes_while_another_partition_is_at_work_makes_one_batch(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "TURN_SECONDS", PATIENCE)
    reader = Busy("a-0")
    await bus.subscribe("group", [ORDERS.name], reader)
    await bus.publish(numbered(ORDERS.name, "a", 1))
    await soon(reader.started.wait())
    elsewhere = next(k for k in "bcdefgh" if crc32(k.encode()) % 4 != crc32(b"a") % 4)
    for item in numbered(ORDERS.name, elsewhere, 3):
        await bus.publish([item])
    reader.go_on.set()
    await reader.until(4)
    assert list(map(texts, reader.batches)) == [["a-0"], [f"{elsewhere}-{n}" for n in range(3)]]


# Bounds


async def test_publishers_wait_where_too_much_waits_already(bus: EmbeddedBus) -> None:
    count = 3 * QUEUE_BYTES // 900_000
    large = [Message(LETTERS.name, f"{n}", bytes(900_000), ()) for n in range(count)]
    await asyncio.gather(*(bus.publish([item]) for item in large))
    assert await bus.ends([LETTERS.name]) == {(LETTERS.name, 0): count}


async def test_who_is_far_behind_gets_everything_in_order(bus: EmbeddedBus) -> None:
    reader = Busy("a-0")
    await bus.subscribe("group", [LETTERS.name], reader, max_batch=7)
    await bus.publish(numbered(LETTERS.name, "a", 3))
    await soon(reader.started.wait())
    filler = [Message(LETTERS.name, "filler", bytes(900_000), ())]
    for first in range(3, 103, 5):
        await bus.publish(numbered(LETTERS.name, "a", 5, first=first))
        await bus.publish(filler)
    assert 20 * 900_000 > RECENT_BYTES
    reader.go_on.set()
    records = await reader.until(123)
    assert [record.offset for record in records] == list(range(123))
    own = [record for record in records if record.key == "a"]
    assert texts(own) == [f"a-{number}" for number in range(103)]


async def test_who_comes_back_gets_what_nobody_kept_in_memory(bus: EmbeddedBus) -> None:
    for first in range(0, 30, 10):
        reader = Reader()
        subscription = await bus.subscribe("group", [LETTERS.name], reader)
        await bus.publish(numbered(LETTERS.name, "a", 5, first=first))
        await reader.until(5)
        await subscription.stop()
        await bus.publish(numbered(LETTERS.name, "a", 5, first=first + 5))
    reader = Reader()
    await bus.subscribe("other", [LETTERS.name], reader)
    assert texts(await reader.until(30)) == [f"a-{number}" for number in range(30)]


async def test_what_is_in_the_file_before_the_bus_knows_of_it_is_read_when_it_does(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed after it had published; the next reads that from the file, and more."""
    await bus.publish(numbered(LETTERS.name, "a", 1))
    durable, go_on = threading.Event(), threading.Event()
    commit = bus._log.commit

    def held() -> None:
        commit()
        durable.set()
        go_on.wait()

    monkeypatch.setattr(bus._log, "commit", held)
    publishing = asyncio.create_task(bus.publish(numbered(LETTERS.name, "a", 1, first=1)))
    await asyncio.to_thread(durable.wait)
    reader = Reader()
    subscription = await bus.subscribe("group", [LETTERS.name], reader)
    first = texts(await reader.until(1))
    go_on.set()
    await publishing
    assert (first, texts(await reader.until(2))) == (["a-0"], ["a-0", "a-1"])
    assert subscription.failures == {}


# Retention and lag


async def kept(bus: EmbeddedBus, topic: str) -> list[str]:
    """Return what can still be read of a topic."""
    found: list[str] = []
    for place, end in (await bus.ends([topic])).items():
        for last in range(-1, end - 1):
            with suppress(Expired):
                found += texts(await anext(bus.tail([topic], {place: last})))
                break
    return found


async def test_trimming_respects_retention_and_the_slowest_group(
    bus: EmbeddedBus, clock: ManualClock
) -> None:
    slow = Busy("a-2")
    subscription = await bus.subscribe("slow", [ORDERS.name], slow, max_batch=1)
    for number in range(5):
        await bus.publish(numbered(ORDERS.name, "a", 1, first=number))
    await soon(slow.started.wait())
    clock.move(ORDERS.retention)
    await bus.trim()
    assert await kept(bus, ORDERS.name) == ["a-0", "a-1", "a-2", "a-3", "a-4"]

    clock.move(timedelta(seconds=1))
    await bus.publish(numbered(ORDERS.name, "a", 1, first=5))
    await bus.trim()
    assert await kept(bus, ORDERS.name) == ["a-2", "a-3", "a-4", "a-5"]

    slow.go_on.set()
    await slow.until(6)
    await bus.publish(numbered(ORDERS.name, "a", 1, first=6))
    await bus.trim()
    assert await kept(bus, ORDERS.name) == ["a-5", "a-6"]
    await subscription.stop()


async def test_a_log_trims_itself(bus: EmbeddedBus, clock: ManualClock) -> None:
    await bus.publish(numbered(ORDERS.name, "a", 3))
    clock.move(ORDERS.retention + timedelta(seconds=1))
    async with asyncio.timeout(PATIENCE):
        while await kept(bus, ORDERS.name):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_trim_that_is_broken_off_is_over_before_anything_is_written(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.trim()  # the one that it begins with
    under_way, go_on = threading.Event(), threading.Event()
    trim = bus._log.trim

    def held(*place: Any) -> int:
        with bus._log._transaction():
            under_way.set()
            go_on.wait()
        return trim(*place)

    monkeypatch.setattr(bus._log, "trim", held)
    trimming = asyncio.create_task(bus.trim())
    await asyncio.to_thread(under_way.wait)
    trimming.cancel()
    publishing = asyncio.create_task(bus.publish(numbered(LETTERS.name, "a", 1)))
    await asyncio.wait({trimming, publishing}, timeout=0.01)
    go_on.set()
    await publishing
    with pytest.raises(asyncio.CancelledError):
        await trimming
    assert await kept(bus, LETTERS.name) == ["a-0"]


async def test_offsets_go_on_after_everything_was_forgotten(
    opener: partial[EmbeddedBus], clock: ManualClock
) -> None:
    bus = opener()
    await bus.start()
    await bus.publish(numbered(LETTERS.name, "a", 1_200))
    clock.move(timedelta(days=31))
    await bus.trim()
    assert await kept(bus, LETTERS.name) == []
    await bus.stop()

    bus = opener()
    await bus.start()
    assert await bus.ends([LETTERS.name]) == {(LETTERS.name, 0): 1_200}
    reader = Reader()
    await bus.subscribe("group", [LETTERS.name], reader)
    await bus.publish([message(LETTERS.name, "a", "next")])
    (record,) = await reader.until(1)
    assert (record.offset, record.timestamp) == (1_200, clock.now().timestamp() * 1000)
    await bus.stop()


async def test_lag_has_the_age_of_the_oldest_record_that_is_not_done(
    bus: EmbeddedBus, clock: ManualClock
) -> None:
    reader = Busy("a-1")
    subscription = await bus.subscribe("group", [LETTERS.name], reader, max_batch=1)
    for number in range(3):
        await bus.publish(numbered(LETTERS.name, "a", 1, first=number))
        clock.move(timedelta(minutes=1))
    await soon(reader.started.wait())
    lag = await subscription.lag()
    assert (lag.records, lag.seconds) == (2, 120.0)
    await subscription.stop(drain=0)


# The file's format

names = st.text(st.characters(codec="utf-8"), max_size=5)
headers = st.lists(st.tuples(names, st.binary(max_size=20)), max_size=4).map(tuple)
messages = st.builds(
    Message,
    topic=st.just(LETTERS.name),
    key=st.none() | st.text(st.characters(codec="utf-8"), max_size=10),
    value=st.none() | st.binary(max_size=50) | st.integers(0, 600_000).map(bytes),
    headers=headers | st.sampled_from([(), (("ce_id", b"1"),)]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(messages, min_size=1, max_size=20), max_size=4), st.integers(0, 30))
def test_what_is_appended_is_read_from_any_position(
    segments: list[list[Message]], position: int
) -> None:
    with TemporaryDirectory() as folder:
        log = Log(Path(folder) / "bus.db", TOPICS)
        (partition, *_), _ = log.open()
        for sent in segments:
            log.append([Segment(partition.id, partition.end, sent)], 1, {})
            log.commit()
            partition.end += len(sent)
        everything = [item for sent in segments for item in sent]
        found: list[Record] = []
        while position + len(found) < partition.end:
            found += log.read(partition, position + len(found))
        log.close()
    assert found == [
        Record(LETTERS.name, 0, offset, 1, item.key, item.value, item.headers)
        for offset, item in enumerate(everything)
        if offset >= position
    ]
