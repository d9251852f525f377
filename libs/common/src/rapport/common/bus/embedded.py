"""The bus in one process: the port's promises on one SQLite file, with no server to run.

Publishing is group commit, told in its module. What is published wakes those who read; to them the
newest records are handed over from memory, and older ones are read from the file in another thread,
so that reading and writing never wait for each other.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import crc32

import structlog

from rapport.common.bus.group_commit import Entry, GroupCommit
from rapport.common.bus.lanes import GroupReader
from rapport.common.bus.log import SEGMENT_RECORDS, Log, Partition, is_past
from rapport.common.bus.port import (
    HEADERS_LIMIT,
    MESSAGE_LIMIT,
    Expired,
    Handler,
    Position,
    headers_size,
)
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record, pack
from rapport.common.events.topics import TOPICS, Topic

TRIM_SECONDS: Final = 3600.0
RECENT_BYTES: Final = 16 * 1024 * 1024
RECORD_BYTES: Final = 1024

log = structlog.get_logger(__name__)


class EmbeddedBus:
    """The bus over the log file at `path`, which belongs to one process while it is open.

    It is started and stopped once, and trims its log every hour.
    """

    def __init__(
        self, path: Path, *, topics: Mapping[str, Topic] = TOPICS, clock: Clock | None = None
    ) -> None:
        self._topics = topics
        self._clock = clock or SystemClock()
        self._log = Log(path, topics)
        self._writer = ThreadPoolExecutor(1, "bus-writer")
        self._reader = ThreadPoolExecutor(1, "bus-reader")
        self._commit: GroupCommit | None = None
        self._partitions: defaultdict[str, list[Partition]] = defaultdict(list)
        self._watchers: defaultdict[Partition, list[Callable[[], None]]] = defaultdict(list)
        self._readers: list[GroupReader] = []
        self._recent = _Recent()
        self._trimming: asyncio.Task[None] | None = None
        self._one_trim = asyncio.Lock()

    async def start(self) -> None:
        """Open the log; raises TemporaryError where another process has it or it is in trouble.

        Raises PermanentError where it does not fit the topics.
        """
        run = asyncio.get_running_loop().run_in_executor
        partitions, positions = await run(self._writer, self._log.open)
        for partition in partitions:
            self._partitions[partition.topic].append(partition)
        self._commit = GroupCommit(self._log, self._writer, self._clock, positions, self._appended)
        self._trimming = asyncio.create_task(self._keep_trimmed(), name="trim the log")

    async def stop(self) -> None:
        """Stop those who still read, write what is under way, close the log."""
        if self._commit is None or self._trimming is None:
            return
        self._trimming.cancel()
        await asyncio.gather(*(reader.stop() for reader in self._readers))
        commit, self._commit = self._commit, None
        await commit.stop()
        for watchers in self._watchers.values():
            for wake in watchers:
                wake()
        await asyncio.get_running_loop().run_in_executor(self._writer, self._close)
        self._writer.shutdown()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make `messages` durable, all of them or none."""
        commit = self._opened()
        entries = [self._entry(message) for message in messages]
        if entries:
            if commit.is_full:
                await commit.room()
            await commit.add(entries)

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> GroupReader:
        """Read `topics` for `group`; PermanentError where it reads one of them already."""
        known = self._opened().positions
        positions = {
            partition: known.get((group, partition.id), partition.start)
            for partition in self._all(topics)
        }
        if any(
            reader.group == group and reader.lanes.keys() & positions.keys()
            for reader in self._readers
        ):
            raise PermanentError(f"{group} reads some of these topics already")
        reader = GroupReader(group, self, self._clock, handler, max_batch, positions)
        self._readers.append(reader)
        for partition, lane in reader.lanes.items():
            self.move(group, partition, positions[partition])
            self._watchers[partition].append(lane.wake)
            lane.wake()
        return reader

    async def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read without a group until the bus stops; see the port."""
        given = after or {}
        positions = {
            partition: given.get((partition.topic, partition.number), partition.end - 1) + 1
            for partition in self._all(topics)
        }
        moved = asyncio.Event()
        for partition in positions:
            self._watchers[partition].append(moved.set)
        try:
            while self._commit is not None and not is_past(positions, until):
                moved.clear()
                for partition, position in positions.items():
                    if position < partition.end and self._commit is not None:
                        records = await self.read(partition, position)
                        positions[partition] = records[-1].offset + 1
                        moved.set()
                        yield records
                await moved.wait()
        finally:
            for partition in positions:
                self._watchers[partition].remove(moved.set)

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset of the oldest record that is kept; else its end."""
        return {
            (partition.topic, partition.number): partition.start for partition in self._all(topics)
        }

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset that the next record will get."""
        return {
            (partition.topic, partition.number): partition.end for partition in self._all(topics)
        }

    async def trim(self) -> None:
        """Forget what is older than its topic's retention and done by all groups.

        A group that has read a topic once holds its records until it has read them.
        """
        async with self._one_trim:
            floors = self._opened().floors()
            for partition in self._all(self._topics):
                await self._trim(partition, floors.get(partition.id, partition.end))

    async def read(self, partition: Partition, position: int) -> Sequence[Record]:
        """Return some of the records from `position` on, where there are some; or raise Expired.

        What is in the file a moment before the bus knows of it is left for the next call.
        """
        records = self._recent.read(partition, position)
        if not records:
            run = asyncio.get_running_loop().run_in_executor
            records = await run(self._reader, self._log.read, partition, position)
            records = records[: partition.end - position]
        if position < partition.start or not records:
            raise Expired(f"{partition.topic}/{partition.number} starts after offset {position}")
        return records

    async def oldest(self, places: Sequence[tuple[Partition, int]]) -> int:
        """Return the earliest timestamp, in epoch ms, of the records at these positions."""
        newest = [self._recent.timestamp(*place) for place in places]
        older = [place for place, at in zip(places, newest, strict=True) if at is None]
        found = [at for at in newest if at is not None]
        if older:
            run = asyncio.get_running_loop().run_in_executor
            found.append(await run(self._reader, self._log.oldest, older))
        return min(found)

    def move(self, group: str, partition: Partition, position: int) -> None:
        """Note that `group` is done with everything below `position`."""
        self._opened().move((group, partition.id), position)

    def leave(self, reader: GroupReader) -> None:
        """Note that `reader` reads no more."""
        if reader in self._readers:
            self._readers.remove(reader)
            for partition, lane in reader.lanes.items():
                self._watchers[partition].remove(lane.wake)

    async def _trim(self, partition: Partition, below: int) -> None:
        oldest_kept = self._clock.now() - self._topics[partition.topic].retention
        before = int(oldest_kept.timestamp() * 1000)
        while True:
            start = await self._opened().trim(partition, before, below)
            if start == partition.start:
                return
            partition.start = start

    async def _keep_trimmed(self) -> None:
        while True:
            try:
                await self.trim()
            except TemporaryError as error:
                log.warning("bus.trim_failed", reason=error.reason)
            await self._clock.sleep(TRIM_SECONDS)

    def _opened(self) -> GroupCommit:
        if self._commit is None:
            raise TemporaryError("the bus is not open")
        return self._commit

    def _of(self, topic: str) -> list[Partition]:
        if topic not in self._partitions:
            raise PermanentError(f"{topic} is not a declared topic")
        return self._partitions[topic]

    def _all(self, topics: Iterable[str]) -> list[Partition]:
        return [partition for topic in topics for partition in self._of(topic)]

    def _entry(self, message: Message) -> Entry:
        topic, key, value, headers = message
        partitions = self._of(topic)
        name = b"" if key is None else key.encode()
        size = len(name) + len(value or b"")
        if size > MESSAGE_LIMIT:
            raise PermanentError(f"a message for {topic} has over {MESSAGE_LIMIT} bytes")
        packed = pack(headers)
        added = len(packed.names) + len(packed.values)
        if added > HEADERS_LIMIT and headers_size(headers) > HEADERS_LIMIT:
            raise PermanentError(f"a message for {topic} has over {HEADERS_LIMIT} bytes of headers")
        if packed is not headers:
            message = message._replace(headers=packed)
        return partitions[crc32(name) % len(partitions)], message, size + added

    def _appended(
        self, partition: Partition, first: int, messages: Sequence[Message], timestamp: int
    ) -> None:
        watchers = self._watchers[partition]
        if watchers:
            topic, number = partition.topic, partition.number
            records = [
                Record(topic, number, offset, timestamp, key, value, headers)
                for offset, (_, key, value, headers) in enumerate(messages, first)
            ]
            self._recent.add(partition, records)
            for wake in watchers:
                wake()

    def _close(self) -> None:
        self._reader.shutdown()
        self._log.close()


class _Recent:
    """The newest records of the partitions that somebody reads, within a bound of memory."""

    def __init__(self) -> None:
        self._records: defaultdict[Partition, deque[Record]] = defaultdict(deque)
        self._added: deque[tuple[Partition, int, int]] = deque()
        self._size = 0

    def add(self, partition: Partition, records: Sequence[Record]) -> None:
        """Keep `records`; the oldest of all partitions make way where there is no room."""
        kept = self._records[partition]
        if kept and kept[-1].offset + 1 != records[0].offset:
            kept.clear()
        kept.extend(records)
        size = sum(len(record.value or b"") + RECORD_BYTES for record in records)
        self._added.append((partition, records[-1].offset, size))
        self._size += size
        while self._size > RECENT_BYTES:
            self._forget(*self._added.popleft())

    def read(self, partition: Partition, position: int) -> list[Record]:
        """Return up to 500 records from `position` on, none where it is not kept."""
        kept = self._records[partition]
        if not kept or position < kept[0].offset:
            return []
        first = position - kept[0].offset
        return list(islice(kept, first, first + SEGMENT_RECORDS))

    def timestamp(self, partition: Partition, position: int) -> int | None:
        """Return when a record was written, in epoch ms; None where it is not kept."""
        kept = self._records[partition]
        if not kept or not kept[0].offset <= position <= kept[-1].offset:
            return None
        return kept[position - kept[0].offset].timestamp

    def _forget(self, partition: Partition, last: int, size: int) -> None:
        kept = self._records[partition]
        while kept and kept[0].offset <= last:
            kept.popleft()
        self._size -= size
