"""A group's reading: this process is one of the members that share the partitions.

A member's life is told by the coordinator. Assigned: a lane per partition, from the group's offset.
Revoked: handlers at work have twenty seconds, what is done is committed, the rest is dropped and is
delivered to whoever is assigned next. In between it polls without a pause, whatever the handlers
do, so that it stays a member while they wait; a partition with enough waiting is paused meanwhile.

Offsets are committed a few times a second, by the assignment that read them and by no other. A
consumer that fails, or that stands still while there is something to read, is replaced.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, NoReturn

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from rapport.common.bus.kafka.brokers import Brokers, closed
from rapport.common.bus.kafka.fetching import SETTINGS, Fetching
from rapport.common.bus.kafka.lanes import Lane, finish
from rapport.common.bus.kafka.topics import no_offsets
from rapport.common.bus.port import Expired, Handler, Lag, Position
from rapport.common.clock import Clock
from rapport.common.errors import TemporaryError, pause_after, reason_of

COMMIT_SECONDS: Final = 0.1
COMMIT_LIMIT_SECONDS: Final = 5.0
LOCATE_SECONDS: Final = 20.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: what a member of a group is given, and gives its handlers.

    `drain` is what handlers get when a partition is revoked, and is less than `rebalance`, after
    which others would get it at the same time. `stall` is how long a consumer may stand still while
    there is something to read. `publish` is how long publishing may take.
    """

    session: float = 45.0
    heartbeat: float = 3.0
    rebalance: float = 60.0
    poll: float = 300.0
    drain: float = 20.0
    stall: float = 60.0
    publish: float = 8.0


class GroupReader(ConsumerRebalanceListener):  # type: ignore[misc]
    """The subscription of one group's member, from `subscribe` until `stop`."""

    def __init__(
        self,
        brokers: Brokers,
        clock: Clock,
        timing: Timing,
        group: str,
        places: Sequence[TopicPartition],
        judged: Collection[str],
        handler: Handler,
        max_batch: int,
    ) -> None:
        self.group = group
        self._brokers = brokers
        self._clock = clock
        self._timing = timing
        self._places = places
        self._topics = sorted({place.topic for place in places})
        self._judged = judged
        self._handler = handler
        self._max_batch = max_batch
        self._lanes: dict[TopicPartition, Lane] | None = None
        self._failures: dict[TopicPartition, Exception] = {}
        self._behind_since: dict[TopicPartition, tuple[int, float]] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._fetching: Fetching | None = None
        self._committing = asyncio.Lock()
        self._joining = False
        self._moved = asyncio.Event()
        self._broken = asyncio.Event()
        self._unassigned_since = monotonic()
        self._uncommitted_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def failures(self) -> Mapping[Position, Exception]:
        """The partitions that stopped, each with what its handler raised."""
        return {(place.topic, place.partition): why for place, why in self._failures.items()}

    async def start(self) -> None:
        """Connect and join the group; raises TemporaryError where no broker answers."""
        await self._connect()
        self._task = asyncio.create_task(self._keep_reading(), name=f"{self.group} reads")

    async def stop(self, drain: float = 20.0) -> None:
        """Stop reading; handlers at work have `drain` seconds to finish."""
        self._joining = False
        await self._leave_lanes(drain)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._disconnect()

    async def lag(self) -> Lag:
        """Return how far the group is behind: in this member's partitions, and in the others'.

        Of its own records a member knows the age; elsewhere it is how long an end that was seen has
        not been reached. Raises TemporaryError while this member waits for its partitions or for
        what it is to read first, or nobody can say.

        Of the others' partitions only those of `judged` topics count: a foreign producer's
        transactions leave marks in a log that nobody's offset ever passes.
        """
        lanes = self._lanes
        if lanes is None or any(lane.position is None for lane in lanes.values()):
            raise TemporaryError(f"{self.group} waits for its partitions")
        ends = await self._brokers.ends(self._places)
        done = await self._brokers.committed(self.group)
        behind: dict[TopicPartition, int] = {}
        for place, end in ends.items():
            lane = lanes.get(place)
            if lane is None:
                if place.topic in self._judged:
                    behind[place] = end - done.get(place, 0)
            elif await self._behind(lane, end):
                if lane.failure is None and not lane.has_read:
                    raise TemporaryError(f"{self.group} has not read yet where it is behind")
                behind[place] = end - (lane.position or 0)
        behind = {place: records for place, records in behind.items() if records > 0}
        return Lag(sum(behind.values()), self._age(behind, ends, lanes))

    def _age(
        self,
        behind: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        lanes: Mapping[TopicPartition, Lane],
    ) -> float:
        """Return for how many seconds at least the oldest of what is behind has waited."""
        now, ages = monotonic(), [0.0]
        since: dict[TopicPartition, tuple[int, float]] = {}
        for place, records in behind.items():
            end, moment = self._behind_since.get(place, (0, now))
            is_reached = ends[place] - records >= end
            since[place] = (ends[place], now) if is_reached else (end, moment)
            ages.append(now - since[place][1])
            oldest = lanes[place].oldest if place in lanes else None
            if oldest is not None:
                ages.append(time.time() - oldest / 1000)
        self._behind_since = since
        return max(ages)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish what is at work, commit what is done, give up the rest."""
        try:
            await self._leave_lanes(self._timing.drain)
        except Exception as error:
            self._break(error)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Open a lane for each partition."""
        if not self._joining:
            return
        lanes = {
            place: Lane(self.group, place, self._handler, self._max_batch, self._lane_moved)
            for place in sorted(assigned)
        }
        self._failures = {place: why for place, why in self._failures.items() if place in assigned}
        for place, failure in self._failures.items():
            lanes[place].failure = failure
        self._lanes = lanes
        try:
            async with asyncio.timeout(LOCATE_SECONDS):
                await self._locate(lanes)
        except Exception as error:
            self._break(error)

    async def _locate(self, lanes: Mapping[TopicPartition, Lane]) -> None:
        """Begin at the group's offsets; what the client has fetched before that is dropped.

        A partition that has none came after the topics were applied: where its log is still whole
        it is read from the start, else it is stopped.
        """
        consumer, fetching = self._consumer, self._fetching
        assert consumer is not None
        assert fetching is not None
        committed = await self._brokers.committed(self.group, LOCATE_SECONDS)
        unread = [place for place in lanes if place not in committed]
        starts = await self._brokers.starts(unread) if unread else {}
        begins = {**starts, **committed}
        positions = {place: begins[place] for place in lanes}
        for place, position in positions.items():
            consumer.seek(place, position)
        fetching.positions = positions
        for place, lane in lanes.items():
            lane.begin(positions[place])
            if lane.failure is not None:
                consumer.pause(place)
            elif starts.get(place, 0) > 0:
                self._stop_lane(lane, no_offsets(self.group, [place]))

    async def _keep_reading(self) -> None:
        tries = 0
        while True:
            began = monotonic()
            try:
                if self._consumer is None:
                    await self._connect()
                await self._read()
            except Exception as error:
                tries = 1 if monotonic() - began > self._timing.stall else tries + 1
                log.warning("bus.reads_again", group=self.group, reason=reason_of(error))
                self._joining = False
                await self._leave_lanes(self._timing.drain)
                await self._disconnect()
                await self._clock.sleep(pause_after(error, tries))

    async def _connect(self) -> None:
        """Open a consumer and join its group.

        Partitions go round, so that every member gets some of each topic, the busy ones included. A
        sticky assignment would save nothing: all lanes are left at a rebalance anyway.
        """
        timing = self._timing
        self._broken.clear()
        self._unassigned_since = monotonic()
        consumer = await self._brokers.consumer(
            group_id=self.group,
            session_timeout_ms=_ms(timing.session),
            heartbeat_interval_ms=_ms(timing.heartbeat),
            rebalance_timeout_ms=_ms(timing.rebalance),
            max_poll_interval_ms=_ms(timing.poll),
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            **SETTINGS,
        )
        self._consumer = consumer
        self._fetching = Fetching(consumer, self._brokers)
        self._joining = True
        consumer.subscribe(self._topics, listener=self)

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await closed(consumer)

    async def _read(self) -> NoReturn:
        """Poll, commit and watch, until one of these fails."""
        work = [
            asyncio.create_task(each)
            for each in (self._poll(), self._keep_committed(), self._watch())
        ]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
        failures = (found for found in results if isinstance(found, Exception))
        raise next(failures, TemporaryError("reading has ended"))

    async def _poll(self) -> NoReturn:
        """Hand over what is fetched.

        It is not cancelled while the consumer is used: the client would count on it for ever.
        """
        assert self._fetching is not None
        while True:
            try:
                fetched = await self._fetching.some()
            except OffsetOutOfRangeError as error:
                for place, offset in error.args[0].items():
                    self._lost(place, offset)
            except NoOffsetForPartitionError:
                await asyncio.sleep(COMMIT_SECONDS)  # the lane's beginning is being looked for
            except KafkaError as error:
                raise TemporaryError(f"reading failed: {type(error).__name__}") from error
            else:
                for place, records in fetched.items():
                    self._take(place, records)

    def _take(self, place: TopicPartition, records: list[Any]) -> None:
        lane = (self._lanes or {}).get(place)
        if lane is not None and lane.takes_more:
            lane.add(records)
            if lane.is_full:
                self._pause(place)

    def _lane_moved(self, lane: Lane) -> None:
        self._moved.set()
        if lane.closing:
            return
        if lane.failure is not None:
            self._stop_lane(lane, lane.failure)
        elif not lane.is_full and self._consumer is not None:
            with suppress(IllegalStateError):
                self._consumer.resume(lane.place)

    def _lost(self, place: TopicPartition, offset: int) -> None:
        lane = (self._lanes or {}).get(place)
        if lane is not None and lane.failure is None:
            lane.fail(Expired(f"{place.topic}/{place.partition} starts after offset {offset}"))
            self._lane_moved(lane)

    def _stop_lane(self, lane: Lane, failure: Exception) -> None:
        if lane.failure is None:
            lane.fail(failure)
        self._failures[lane.place] = failure
        self._pause(lane.place)

    def _pause(self, place: TopicPartition) -> None:
        if self._consumer is not None:
            with suppress(IllegalStateError):
                self._consumer.pause(place)

    async def _keep_committed(self) -> NoReturn:
        while True:
            await self._moved.wait()
            self._moved.clear()
            if not await self._commit():
                self._moved.set()
            await asyncio.sleep(COMMIT_SECONDS)

    async def _commit(self) -> bool:
        """Commit what is done and is not committed yet; tell whether there is nothing to try again.

        A commit that comes too late is dropped: what it was about is delivered to somebody else.

        The client would try for ever, at last for another assignment, so it gets little time; and
        this waits for the one before it, so that none is left when partitions are given away.
        """
        async with self._committing:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_LIMIT_SECONDS):
                    return await self._commit_done()
        log.warning("bus.commit_failed", group=self.group, reason="TimeoutError")
        return False

    async def _commit_done(self) -> bool:
        consumer = self._consumer
        done = {
            lane: lane.position
            for lane in (self._lanes or {}).values()
            if lane.position is not None and lane.position > lane.committed
        }
        if consumer is None or not done:
            return True
        self._uncommitted_since = self._uncommitted_since or monotonic()
        try:
            await consumer.commit({lane.place: position for lane, position in done.items()})
        except (CommitFailedError, IllegalStateError):
            log.info("bus.commit_dropped", group=self.group)
        except Exception as error:
            log.warning("bus.commit_failed", group=self.group, reason=type(error).__name__)
            return False
        else:
            for lane, position in done.items():
                lane.committed = position
            self._uncommitted_since = None
        return True

    async def _leave_lanes(self, drain: float) -> None:
        """End the lanes of this assignment, and commit what they have done."""
        lanes = self._lanes
        if lanes is None:
            return
        await finish(list(lanes.values()), drain)
        if self._lanes is lanes:
            await self._commit()
            self._lanes = self._uncommitted_since = None
            self._unassigned_since = monotonic()

    async def _watch(self) -> NoReturn:
        """Raise TemporaryError once the consumer stands still."""
        stall = self._timing.stall
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(stall / 4):
                    await self._broken.wait()
                    raise TemporaryError("the group's offsets cannot be had")
            lanes, now = self._lanes, monotonic()
            if lanes is None:
                if now - self._unassigned_since > stall + self._timing.rebalance:
                    raise TemporaryError("no partitions have been assigned for a long time")
                continue
            if self._uncommitted_since is not None and now - self._uncommitted_since > stall:
                raise TemporaryError("nothing has been committed for a long time")
            quiet = [
                lane
                for lane in lanes.values()
                if lane.is_idle and lane.failure is None and now - lane.touched > stall
            ]
            with suppress(TemporaryError):
                ends = await self._brokers.ends([lane.place for lane in quiet])
                if any([await self._behind(lane, ends[lane.place]) for lane in quiet]):
                    break
        raise TemporaryError("the consumer stands still")

    async def _behind(self, lane: Lane, end: int) -> bool:
        """Tell whether there is something to do below `end`.

        A foreign producer's transactions leave marks in the log that no record is made of: the
        consumer knows that it is past them.
        """
        if lane.position is None or lane.position >= end:
            return False
        if lane.is_idle and lane.failure is None and self._consumer is not None:
            with suppress(IllegalStateError, KafkaError, TimeoutError):
                async with asyncio.timeout(1.0):
                    return bool(await self._consumer.position(lane.place) < end)
        return True

    def _break(self, error: Exception) -> None:
        log.warning("bus.assignment_failed", group=self.group, reason=reason_of(error))
        self._broken.set()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
