"""A group's reading in one process: a lane per partition, one batch at a time, and in turns.

A batch costs as much as some records do, and all lanes share one core. So one is at work at a time
and what comes for the others gathers: batches grow with the load. One that takes long, since it
waits for something or is large, gives its turn to the next: a partition that stands still holds up
no other.

A lane has a task only while it has records to hand over; whoever appends to the partition wakes it.
The handler's return moves the lane's position, and nothing else does, so what was cancelled or
raised is delivered again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from typing import Final, Protocol

import structlog

from rapport.common.bus.log import Partition
from rapport.common.bus.port import Handler, Lag, Position
from rapport.common.bus.rests import tell_of_rests
from rapport.common.clock import Clock
from rapport.common.errors import RapportError, TemporaryError
from rapport.common.events.codec import Record

TURN_SECONDS: Final = 0.1

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where lanes get records from, and where they tell how far they have come."""

    async def read(self, partition: Partition, position: int) -> Sequence[Record]:
        """Return some of the records from `position` on, of which there are some."""

    async def oldest(self, places: Sequence[tuple[Partition, int]]) -> int:
        """Return the earliest timestamp, in epoch ms, of the records at these positions."""

    def move(self, group: str, partition: Partition, position: int) -> None:
        """Note that `group` is done with everything below `position`."""

    def leave(self, reader: "GroupReader") -> None:
        """Note that `reader` reads no more."""


class Lane:
    """One partition's records on their way to a handler."""

    def __init__(self, reader: "GroupReader", partition: Partition, position: int) -> None:
        self._reader = reader
        self.partition = partition
        self.position = position
        self.task: asyncio.Task[None] | None = None
        self.handling = False
        self.failure: Exception | None = None

    @property
    def behind(self) -> int:
        """How many records are not done yet."""
        return self.partition.end - self.position

    def wake(self) -> None:
        """Go on where there are records, unless this lane is at work, has failed or is stopped.

        It goes on with nothing of whoever wakes it: no span, no bound words of a log.
        """
        if self.task is None and self.behind and not self.failure and not self._reader.stopping:
            self.task = asyncio.create_task(self._run(), context=Context())

    def leave(self) -> None:
        """Go on with nothing but a handler that is at work."""
        if self.task is not None and not self.handling:
            self.task.cancel()

    async def _run(self) -> None:
        tell_of_rests(self._rest)
        try:
            while self.behind and not self._reader.stopping:
                async with self._reader.turns.one():
                    await self._hand_over(await self._read())
        except Exception as failure:
            self._fail(failure)
        finally:
            self.task = None

    async def _read(self) -> Sequence[Record]:
        while True:
            try:
                return await self._reader.source.read(self.partition, self.position)
            except TemporaryError as error:
                log.warning("bus.read_failed", group=self._reader.group, reason=error.reason)
                await self._reader.clock.sleep(error.delay)

    async def _hand_over(self, records: Sequence[Record]) -> None:
        reader = self._reader
        for first in range(0, len(records), reader.max_batch):
            if reader.stopping:
                return
            batch = records[first : first + reader.max_batch]
            self.handling = True
            try:
                await reader.handler(batch)
            finally:
                self.handling = False
            self.position = batch[-1].offset + 1
            reader.source.move(reader.group, self.partition, self.position)
            await asyncio.sleep(0)

    @contextmanager
    def _rest(self) -> Iterator[None]:
        """Be at work no more while the handler only waits."""
        self.handling = False
        if self._reader.stopping:
            self.leave()
        try:
            yield
        finally:
            self.handling = True

    def _fail(self, failure: Exception) -> None:
        """Stop for good; only our own errors tell their reason, others may carry personal data."""
        self.failure = failure
        log.error(
            "bus.partition_stopped",
            group=self._reader.group,
            topic=self.partition.topic,
            partition=self.partition.number,
            offset=self.position,
            cause=type(failure).__name__,
            reason=failure.reason if isinstance(failure, RapportError) else None,
        )


class Turns:
    """Lets one after the other be at work, and who takes longer than `TURN_SECONDS` beside it."""

    def __init__(self) -> None:
        self._next = asyncio.Semaphore()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends or it has taken too long."""
        await self._next.acquire()
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._next.release()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, end)
        try:
            yield
        finally:
            timer.cancel()
            end()


class GroupReader:
    """The subscription of one group: its lanes, from `subscribe` until `stop`."""

    def __init__(
        self,
        group: str,
        source: Source,
        clock: Clock,
        handler: Handler,
        max_batch: int,
        positions: Mapping[Partition, int],
    ) -> None:
        self.group = group
        self.source = source
        self.clock = clock
        self.handler = handler
        self.max_batch = max_batch
        self.stopping = False
        self.turns = Turns()
        self.lanes = {
            partition: Lane(self, partition, position) for partition, position in positions.items()
        }

    @property
    def failures(self) -> Mapping[Position, Exception]:
        """The partitions that stopped, each with what its handler raised."""
        return {
            (partition.topic, partition.number): lane.failure
            for partition, lane in self.lanes.items()
            if lane.failure is not None
        }

    async def lag(self) -> Lag:
        """Return how far this group is behind."""
        behind = [lane for lane in self.lanes.values() if lane.behind]
        if not behind:
            return Lag(0, 0.0)
        records = sum(lane.behind for lane in behind)
        oldest = await self.source.oldest([(lane.partition, lane.position) for lane in behind])
        return Lag(records, max(0.0, self.clock.now().timestamp() - oldest / 1000))

    async def stop(self, drain: float = 20.0) -> None:
        """Stop reading; handlers at work have `drain` seconds to finish."""
        self.stopping = True
        for lane in self.lanes.values():
            lane.leave()
        at_work = {lane.task for lane in self.lanes.values() if lane.task and lane.handling}
        if at_work:
            await asyncio.wait(at_work, timeout=drain)
        left = [lane.task for lane in self.lanes.values() if lane.task]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.source.leave(self)
