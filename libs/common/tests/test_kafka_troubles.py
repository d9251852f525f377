"""What a broker or the client says at bad moments, which a real broker does not say when asked to.

The answers are the client's own types; who gives them is made up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError

from rapport.common.bus.kafka import Timing, brokers
from rapport.common.bus.kafka.brokers import Brokers
from rapport.common.bus.kafka.fetching import Fetching
from rapport.common.bus.kafka.lanes import Lane
from rapport.common.bus.kafka.reading import GroupReader
from rapport.common.clock import SystemClock
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Record

LOADING: Final = 14
MOVED: Final = 16
NOT_ALLOWED: Final = 30

NO_TEXT: Final = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

P1: Final = TopicPartition("t", 1)
P2: Final = TopicPartition("t", 2)


# The group's offsets


@dataclass
class Coordinator:
    """In place of the client: its coordinator says these codes first, then what was committed."""

    codes: deque[int] = field(default_factory=deque)
    partition_code: int = 0
    closed: bool = False

    async def bootstrap(self) -> None:
        """Be there."""

    async def close(self) -> None:
        """Be gone."""
        self.closed = True

    def get_random_node(self) -> int:
        """Return the only one."""
        return 0

    async def send(self, node: int, request: object) -> object:
        """Answer as brokers do: with an error of the group's there are no topics."""
        if type(request).__name__ == "FindCoordinatorRequest":
            return SimpleNamespace(error_code=0, coordinator_id=1)
        if self.codes:
            return SimpleNamespace(error_code=self.codes.popleft(), topics=[])
        topics = [("t", [(1, 7, "", self.partition_code), (2, -1, "", 0)])]
        return SimpleNamespace(error_code=0, topics=topics)


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    there = Coordinator()
    monkeypatch.setattr(brokers, "AIOKafkaClient", lambda **options: there)
    monkeypatch.setattr(brokers, "PAUSE_SECONDS", 0.0)
    return there


async def test_a_coordinator_that_is_loading_has_not_said_that_nothing_was_committed(
    coordinator: Coordinator,
) -> None:
    coordinator.codes.extend([LOADING, MOVED])
    assert await Brokers("nowhere:9", {}).committed("g") == {P1: 7}


@pytest.mark.parametrize("in_answer", [True, False], ids=["for the group", "for a partition"])
async def test_an_error_is_no_offset(coordinator: Coordinator, in_answer: bool) -> None:
    if in_answer:
        coordinator.codes.append(NOT_ALLOWED)
    else:
        coordinator.partition_code = NOT_ALLOWED
    with pytest.raises(TemporaryError, match="GroupAuthorizationFailedError"):
        await Brokers("nowhere:9", {}).committed("g")
    assert not coordinator.closed


# Reading


@dataclass
class Consumer:
    """In place of the client's consumer: a log of `t/1`, in which some records cannot be read."""

    log: int = 5
    unreadable: frozenset[int] = frozenset()
    troubles: deque[Exception] = field(default_factory=deque)
    at: dict[TopicPartition, int] = field(default_factory=dict)
    meanwhile: Callable[[TopicPartition], None] = lambda place: None

    def assignment(self) -> set[TopicPartition]:
        """Return all partitions."""
        return set(self.at)

    def paused(self) -> set[TopicPartition]:
        """Return none."""
        return set()

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Go there."""
        self.at[place] = offset

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int, max_records: int = 500
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return what there is, or raise as the client does."""
        if self.troubles:
            raise self.troubles.popleft()
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        for place in places or tuple(self.at):
            self.meanwhile(place)
            offsets = range(self.at[place], min(self.log, self.at[place] + max_records))
            if self.unreadable.intersection(offsets):
                raise NO_TEXT
            if offsets:
                found[place] = [_record(place, offset) for offset in offsets]
                self.at[place] = offsets[-1] + 1
        return found


def _record(place: TopicPartition, offset: int) -> ConsumerRecord:
    return ConsumerRecord(*place, offset, 0, 0, b"k", b"v", 0, 1, 1, ())


class Ends(Brokers):
    """Brokers that know where the log ends."""

    async def ends(self, places: Any) -> dict[TopicPartition, int]:
        """Return that."""
        return dict.fromkeys(sorted(places), 5)


def begun(consumer: Consumer, *places: TopicPartition) -> Fetching:
    """Return what fetches these partitions from their beginning."""
    consumer.at = dict.fromkeys(places, 0)
    found = Fetching(consumer, Ends("nowhere:9", {}))
    found.positions = dict.fromkeys(places, 0)
    return found


def offsets(records: Sequence[Record]) -> list[tuple[int, bool]]:
    """Return each record's offset, and whether it could be read."""
    return [(record.offset, record.value is not None) for record in records]


@pytest.mark.parametrize("trouble", [RuntimeError("the transport is closed"), OSError("reset")])
async def test_trouble_with_the_connection_makes_no_record_unreadable(trouble: Exception) -> None:
    consumer = Consumer(troubles=deque([trouble]))
    reading = begun(consumer, P1)
    with pytest.raises(TemporaryError, match=type(trouble).__name__):
        await reading.some()
    assert reading.positions == {P1: 0}


async def test_what_cannot_be_read_is_stepped_over_but_never_past_the_end() -> None:
    consumer = Consumer(unreadable=frozenset(range(3, 9)))
    reading = begun(consumer, P1)
    assert offsets((await reading.some())[P1]) == [
        (0, True),
        (1, True),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert reading.positions == {P1: 5}


async def test_what_was_read_before_the_partitions_were_given_out_anew_does_not_count() -> None:
    consumer = Consumer(troubles=deque([NO_TEXT]))
    reading = begun(consumer, P1, P2)

    def given_out_anew(place: TopicPartition) -> None:
        if place == P2:
            consumer.meanwhile = lambda place: None
            consumer.at = {P1: 2, P2: 1}
            reading.positions = {P1: 2, P2: 1}

    consumer.meanwhile = given_out_anew
    assert await reading.some() == {}
    read = await reading.some()
    assert [record.offset for record in read[P1]] == [2, 3, 4]
    assert [record.offset for record in read[P2]] == [1, 2, 3, 4]


# Committing


class Committing:
    """In place of the client's consumer: commits fail so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.committed: dict[TopicPartition, int] = {}
        self.is_done = asyncio.Event()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Fail, or commit."""
        if self.failures:
            self.failures -= 1
            raise KafkaConnectionError("reset")
        self.committed |= offsets
        self.is_done.set()


async def _nothing(records: Sequence[Record]) -> None:
    """Handle records."""


async def test_a_commit_that_failed_is_tried_again_though_nothing_moves() -> None:
    reader = GroupReader(
        Ends("nowhere:9", {}), SystemClock(), Timing(), "g", [P1], ["t"], _nothing, 500
    )
    consumer = Committing(failures=2)
    lane = Lane("g", P1, _nothing, 500, reader._lane_moved)
    lane.begin(0)
    lane.position = 5
    reader._lanes, reader._consumer = {P1: lane}, consumer
    reader._moved.set()
    keeping = asyncio.create_task(reader._keep_committed())
    await asyncio.wait_for(consumer.is_done.wait(), 30)
    keeping.cancel()
    assert consumer.committed == {P1: 5}
