"""The lanes of a group's member: one per partition that it has, from assignment to revocation.

What is fetched waits in its lane until the batch before it is done; a lane with enough waiting is
paused. Everything that was fetched is in a lane by then, so pausing throws nothing away. Like the
embedded bus's, a lane has a task only while it has records to hand over, and nothing but the
handler's return moves its position.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final

import structlog
from aiokafka import TopicPartition

from rapport.common.bus.kafka.fetching import PARTITION_BYTES
from rapport.common.bus.port import Handler
from rapport.common.bus.rests import tell_of_rests
from rapport.common.errors import RapportError
from rapport.common.events.codec import Record

RECORD_BYTES: Final = 1024
"""What a record takes beside its value."""

log = structlog.get_logger(__name__)


class Lane:
    """One partition's records on their way to a handler."""

    def __init__(
        self,
        group: str,
        place: TopicPartition,
        handler: Handler,
        max_batch: int,
        moved: Callable[["Lane"], None],
    ) -> None:
        self.place = place
        self.position: int | None = None
        self.committed = 0
        self.failure: Exception | None = None
        self.closing = False
        self.handling = False
        self.has_read = False
        self.task: asyncio.Task[None] | None = None
        self.touched = monotonic()
        self._group = group
        self._handler = handler
        self._max_batch = max_batch
        self._moved = moved
        self._waiting: deque[Record] = deque()
        self._batch: Sequence[Record] = ()
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Whether there is enough waiting to go on with."""
        return len(self._waiting) >= self._max_batch or self.size >= PARTITION_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether it waits for records."""
        return self.task is None and not self._waiting

    @property
    def oldest(self) -> int | None:
        """The time in epoch ms of the first record that is here and not done."""
        first = self._batch or self._waiting
        return first[0].timestamp if first else None

    def begin(self, position: int) -> None:
        """Start at `position`, below which everything is done."""
        self.position = self.committed = position

    def add(self, records: Sequence[Record]) -> None:
        """Let fetched records wait for their turn."""
        self.has_read = True
        self._waiting.extend(records)
        self.size += sum(map(_size, records))
        self.touched = monotonic()
        if self.task is None:
            self.task = asyncio.create_task(self._run())

    def fail(self, failure: Exception) -> None:
        """Stop for good; only our own errors tell their reason, others may carry personal data."""
        self.failure = failure
        log.error(
            "bus.partition_stopped",
            group=self._group,
            topic=self.place.topic,
            partition=self.place.partition,
            offset=self.position,
            cause=type(failure).__name__,
            reason=failure.reason if isinstance(failure, RapportError) else None,
        )

    @property
    def takes_more(self) -> bool:
        """Whether it has begun and is not at its end."""
        return self.position is not None and self.failure is None and not self.closing

    def close(self) -> None:
        """Hand over nothing more, and leave a handler that rests."""
        self.closing = True
        if self.task is not None and not self.handling:
            self.task.cancel()

    async def _run(self) -> None:
        tell_of_rests(self._rest)
        try:
            while self._waiting and self.takes_more:
                self._batch = self._take()
                self._moved(self)
                await self._hand_over(self._batch)
                self._batch = ()
                await asyncio.sleep(0)
        except Exception as failure:
            self.fail(failure)
        finally:
            self.task = None
            self._moved(self)

    def _take(self) -> list[Record]:
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(min(self._max_batch, len(waiting)))]
        self.size -= sum(map(_size, batch))
        return batch

    async def _hand_over(self, batch: Sequence[Record]) -> None:
        self.handling = True
        try:
            await self._handler(batch)
        finally:
            self.handling = False
        self.position = batch[-1].offset + 1
        self.touched = monotonic()

    @contextmanager
    def _rest(self) -> Iterator[None]:
        """Be at work no more while the handler only waits."""
        self.handling = False
        if self.closing:
            self.close()
        try:
            yield
        finally:
            self.handling = True


async def finish(lanes: Sequence[Lane], drain: float) -> None:
    """Leave handlers that rest, let those at work finish within `drain` seconds, or cancel them."""
    for lane in lanes:
        lane.close()
    at_work = {lane.task for lane in lanes if lane.task and lane.handling}
    if at_work:
        await asyncio.wait(at_work, timeout=drain)
    left = [lane.task for lane in lanes if lane.task]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _size(record: Record) -> int:
    return len(record.value or b"") + RECORD_BYTES
