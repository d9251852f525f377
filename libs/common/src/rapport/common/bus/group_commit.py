"""Group commit: while one transaction is written, what comes meanwhile gathers for the next.

So many publishers share one wait for the disk, and each waits for its own messages only. What is
little is appended on the event loop, and only the wait for the disk is a thread's: to hand more
than that over would cost more than to do it.

Groups' positions go along with the next transaction, or alone a moment later: one that a crash
takes away only means that records are delivered again. Positions that could not be written are
tried again by themselves, so nothing waits for somebody to publish once the disk has room again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog

from rapport.common.bus.log import Log, Owner, Partition, Segment
from rapport.common.clock import Clock
from rapport.common.errors import RapportError, TemporaryError
from rapport.common.events.codec import Message
from rapport.common.futures import settle

P = ParamSpec("P")
T = TypeVar("T")

QUEUE_BYTES: Final = 16 * 1024 * 1024
POSITIONS_DELAY: Final = 0.2
RETRY_DELAY: Final = 1.0
LITTLE_BYTES: Final = 256 * 1024

Entry = tuple[Partition, Message, int]
"""A message, the partition that it goes to and its size in bytes."""

Appended = Callable[[Partition, int, Sequence[Message], int], None]
"""Is told of a partition's new records: first offset, messages, timestamp in epoch ms."""

log = structlog.get_logger(__name__)


class _Group:
    """What one transaction will bring, and the calls that wait for it."""

    def __init__(self) -> None:
        self.messages: defaultdict[Partition, list[Message]] = defaultdict(list)
        self.calls: list[asyncio.Future[None]] = []
        self.size = 0


class GroupCommit:
    """Writes to `log` in the one thread of `executor`, group after group."""

    def __init__(
        self,
        log: Log,
        executor: Executor,
        clock: Clock,
        positions: Mapping[Owner, int],
        appended: Appended,
    ) -> None:
        self.positions = dict(positions)
        self._log = log
        self._executor = executor
        self._clock = clock
        self._appended = appended
        self._open = True
        self._one_transaction = asyncio.Lock()
        self._next = _Group()
        self._room = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._durable = dict(positions)
        self._unsaved: dict[Owner, int] = {}
        self._positions_due = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that callers have to wait for `room` before they add to it."""
        return self._next.size > QUEUE_BYTES

    async def room(self) -> None:
        """Return when less waits."""
        while self.is_full and self._open:
            await self._room.wait()

    def add(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        """Let `entries` go with the next transaction; the future is done when they are durable."""
        if not self._open:
            raise TemporaryError("the bus is not open")
        group = self._next
        for partition, message, size in entries:
            group.messages[partition].append(message)
            group.size += size
        call = asyncio.get_running_loop().create_future()
        group.calls.append(call)
        self._write_soon()
        return call

    def move(self, owner: Owner, position: int) -> None:
        """Note that `owner` goes on from `position`; soon it will be durable."""
        self.positions[owner] = self._unsaved[owner] = position
        self._save_positions_in(POSITIONS_DELAY)

    async def trim(self, partition: Partition, before: int, below: int) -> int:
        """Trim the log between two transactions; see there."""
        async with self._one_transaction:
            return await self._in_thread(self._log.trim, partition, before, below)

    def floors(self) -> dict[int, int]:
        """Return, by partition id, the lowest durable position of the groups that read it."""
        floors: dict[int, int] = {}
        for owner in self.positions:
            position = self._durable.get(owner, 0)
            floors[owner[1]] = min(position, floors.get(owner[1], position))
        return floors

    async def stop(self) -> None:
        """Refuse what comes from now on, and write all that came before."""
        self._open = False
        self._room.set()
        if self._timer is not None:
            self._timer.cancel()
        self._save_positions()
        if self._writing is not None:
            await self._writing

    def _save_positions_in(self, seconds: float) -> None:
        if self._timer is None and self._open:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._save_positions)

    def _save_positions(self) -> None:
        self._timer = None
        if self._unsaved:
            self._positions_due = True
            self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write group after group until nothing waits."""
        try:
            while self._next.calls or self._positions_due:
                group, self._next = self._next, _Group()
                positions, self._unsaved = self._unsaved, {}
                self._positions_due = False
                self._room.set()
                self._room.clear()
                await self._write_group(group, positions)
        finally:
            self._writing = None

    async def _write_group(self, group: _Group, positions: Mapping[Owner, int]) -> None:
        timestamp = int(self._clock.now().timestamp() * 1000)
        segments = [
            Segment(partition.id, partition.end, messages)
            for partition, messages in group.messages.items()
        ]
        try:
            await self._append(segments, timestamp, positions, little=group.size <= LITTLE_BYTES)
        except Exception as error:
            reason = error.reason if isinstance(error, RapportError) else type(error).__name__
            log.warning("bus.write_failed", calls=len(group.calls), reason=reason)
            self._unsaved = {**positions, **self._unsaved}
            if self._unsaved:
                self._save_positions_in(RETRY_DELAY)
            settle(group.calls, error)
            return
        self._durable.update(positions)
        settle(group.calls)
        for partition, messages in group.messages.items():
            first, partition.end = partition.end, partition.end + len(messages)
            self._appended(partition, first, messages, timestamp)

    async def _append(
        self,
        segments: Sequence[Segment],
        timestamp: int,
        positions: Mapping[Owner, int],
        *,
        little: bool,
    ) -> None:
        async with self._one_transaction:
            if little:
                self._log.append(segments, timestamp, positions)
            else:
                await self._in_thread(self._log.append, segments, timestamp, positions)
            await self._in_thread(self._log.commit)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do a part of a transaction in the thread; whoever is cancelled leaves when it is over."""
        do = partial(work, *arguments, **named)
        job = asyncio.get_running_loop().run_in_executor(self._executor, do)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait({job})
            raise
