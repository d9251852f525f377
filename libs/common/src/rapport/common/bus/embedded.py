"""The bus in one process: the port's promises on one SQLite file, with no server to run.

Publishing is group commit (told in its module). A commit wakes those who read: the newest records are
handed over from memory, older ones are read from the file in another thread, so that reading and
writing never wait for each other.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import crc32

from rapport.common.bus.group_commit import Entry, GroupCommit
from rapport.common.bus.lanes import GroupReader, Lane
from rapport.common.bus.log import SEGMENT_RECORDS, Log, Partition
from rapport.common.bus.port import HEADERS_LIMIT, MESSAGE_LIMIT, Expired, Handler, Position
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record, pack
from rapport.common.events.topics import TOPICS, Topic

RECENT_BYTES: Final = 16 * 1024 * 1024
RECORD_OVERHEAD: Final = 2048


class EmbeddedBus:
    """The bus over the log file at `path`, which belongs to one process while it is open.

    It is started and stopped once. Somebody has to call `trim` now and then.
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
        self._partitions: dict[str, list[Partition]] = {}
        self._recent = _Recent()
        self._watchers: defaultdict[Partition, list[Callable[[], None]]] = defaultdict(list)
        self._groups: list[GroupReader] = []

    async def start(self) -> None:
        """Open the log; raises TemporaryError where it is in use or cannot be used."""
        run = asyncio.get_running_loop().run_in_executor
        partitions, positions = await run(self._writer, self._log.open)
        for partition in partitions:
            self._partitions.setdefault(partition.topic, []).append(partition)
        self._commit = GroupCommit(self._log, self._writer, self._clock, positions, self._appended)

    async def stop(self) -> None:
        """Stop those who still read, write what is under way, close the log."""
        if self._commit is None:
            return
        for group in tuple(self._groups):
            await group.stop()
        commit, self._commit = self._commit, None
        await commit.stop()
        for partition in tuple(self._watchers):
            self._wake(partition)
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
        positions = self._opened().positions
        partitions = self._all(topics)
        others = (reader.lanes for reader in self._groups if reader.group == group)
        if {lane.partition for lanes in others for lane in lanes} & set(partitions):
            raise PermanentError(f"{group} reads some of these topics already")
        reader = GroupReader(group, self, self._clock, handler, max_batch)
        for partition in partitions:
            if (group, partition.id) not in positions:
                self.move(group, partition, partition.start)
            lane = Lane(reader, partition, positions[group, partition.id])
            reader.lanes.append(lane)
            self._watchers[partition].append(lane.wake)
            lane.wake()
        self._groups.append(reader)
        return reader

    async def tail(
        self, topics: Sequence[str], after: Mapping[Position, int] | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """Read without a group until the bus stops; see the port."""
        given = after or {}
        partitions = self._all(topics)
        positions = {
            partition: given.get((partition.topic, partition.number), partition.end - 1) + 1
            for partition in partitions
        }
        moved = asyncio.Event()
        for partition in partitions:
            self._watchers[partition].append(moved.set)
        try:
            while self._commit is not None:
                moved.clear()
                for partition, position in positions.items():
                    if position < partition.end:
                        records = await self.read(partition, position)
                        positions[partition] = records[-1].offset + 1
                        moved.set()
                        yield records
                await moved.wait()
        finally:
            for partition in partitions:
                self._watchers[partition].remove(moved.set)

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset that the next record will get."""
        return {(item.topic, item.number): item.end for item in self._all(topics)}

    async def trim(self) -> int:
        """Forget what is older than its topic's retention and done by every group; return how much.

        A group that has ever read a topic holds its records until it comes back.
        """
        run = asyncio.get_running_loop().run_in_executor
        floors = self._opened().floors()
        forgotten = 0
        for partition in self._all(self._partitions):
            limit = self._clock.now() - self._topics[partition.topic].retention
            before = int(limit.timestamp() * 1000)
            floor = floors.get(partition.id, partition.end)
            while True:
                start = await run(self._writer, self._log.trim, partition, before, floor)
                if start == partition.start:
                    break
                forgotten += start - partition.start
                partition.start = start
        return forgotten

    async def read(self, partition: Partition, position: int) -> Sequence[Record]:
        """Return some of the records from `position` on, of which there are some; else Expired."""
        if records := self._recent.read(partition, position):
            return records
        run = asyncio.get_running_loop().run_in_executor
        records = await run(self._reader, self._log.read, partition, position)
        if not records or records[0].offset != position:
            raise Expired(f"{partition.topic}/{partition.number}: {position} has left the log")
        return records

    async def oldest(self, places: Sequence[tuple[Partition, int]]) -> int:
        """Return the earliest timestamp, in epoch ms, of the records at these positions."""
        run = asyncio.get_running_loop().run_in_executor
        return await run(self._reader, self._log.oldest, places)

    def move(self, group: str, partition: Partition, position: int) -> None:
        """Note that `group` is done with everything below `position`."""
        self._opened().move((group, partition.id), position)

    def leave(self, reader: GroupReader) -> None:
        """Note that `reader` reads no more."""
        for lane in reader.lanes:
            self._watchers[lane.partition].remove(lane.wake)
        self._groups.remove(reader)

    def _opened(self) -> GroupCommit:
        if self._commit is None:
            raise TemporaryError("the bus is not open")
        return self._commit

    def _of(self, topic: str) -> list[Partition]:
        try:
            return self._partitions[topic]
        except KeyError:
            self._opened()
            raise PermanentError(f"{topic} is not a declared topic") from None

    def _all(self, topics: Iterable[str]) -> list[Partition]:
        return [partition for topic in topics for partition in self._of(topic)]

    def _entry(self, message: Message) -> Entry:
        topic, key, value, headers = message
        name = b"" if key is None else key.encode()
        packed = pack(headers)
        size = len(name) + len(value or b"")
        if size > MESSAGE_LIMIT:
            raise PermanentError(f"a message for {topic} is over {MESSAGE_LIMIT} bytes")
        if len(packed.names) + len(packed.values) > HEADERS_LIMIT:
            raise PermanentError(f"the headers for {topic} are over {HEADERS_LIMIT} bytes")
        partitions = self._of(topic)
        if packed is not headers:
            message = Message(topic, key, value, packed)
        return partitions[crc32(name) % len(partitions)], message, size + len(packed.values)

    def _appended(self, partition: Partition, first: int, messages: Sequence[Message], timestamp: int) -> None:
        if self._watchers[partition]:
            records = [Record(partition.topic, partition.number, offset, timestamp, *message[1:]) for offset, message in enumerate(messages, first)]
            self._recent.add(partition, records)
            self._wake(partition)

    def _wake(self, partition: Partition) -> None:
        for wake in self._watchers[partition]:
            wake()

    def _close(self) -> None:
        self._reader.shutdown()
        self._log.close()


class _Recent:
    """The newest records of all partitions, within a bound of memory; the oldest make way."""

    def __init__(self) -> None:
        self._records: defaultdict[Partition, deque[Record]] = defaultdict(deque)
        self._batches: deque[tuple[Partition, int, int]] = deque()
        self._size = 0

    def add(self, partition: Partition, records: Sequence[Record]) -> None:
        """Keep records that follow those that `partition` got before."""
        size = sum(len(record.value or b"") + RECORD_OVERHEAD for record in records)
        self._records[partition].extend(records)
        self._batches.append((partition, len(records), size))
        self._size += size
        while self._size > RECENT_BYTES:
            oldest, count, freed = self._batches.popleft()
            for _ in range(count):
                self._records[oldest].popleft()
            self._size -= freed

    def read(self, partition: Partition, position: int) -> list[Record]:
        """Return up to 500 records from `position` on; none where it is not kept here any more."""
        records = self._records[partition]
        if not records or position < records[0].offset:
            return []
        first = position - records[0].offset
        return list(islice(records, first, first + SEGMENT_RECORDS))
