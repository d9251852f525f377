"""A look at an embedded bus from outside: its file is read, beside whoever owns it or on its own.

Nothing is locked or written, so it disturbs nobody; it looks for what is new a few times a second.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rapport.common.bus.log import Partition, open_to_read, read_partitions, read_records
from rapport.common.bus.port import Expired, Position
from rapport.common.errors import NotFound, PermanentError, TemporaryError
from rapport.common.events.codec import Record
from rapport.common.events.topics import TOPICS, Topic

LOOK_SECONDS: Final = 0.2


class Spectator:
    """The readable half of the bus port over the log file at `path`; started and stopped once."""

    def __init__(self, path: Path, *, topics: Mapping[str, Topic] = TOPICS) -> None:
        self._path = path
        self._topics = topics
        self._reader = ThreadPoolExecutor(1, "spectator")
        self._connection: sqlite3.Connection | None = None
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Open the file; raises NotFound where there is none, PermanentError for another format."""
        if not self._path.is_file():
            raise NotFound(f"there is no log at {self._path}")
        run = asyncio.get_running_loop().run_in_executor
        self._connection = await run(self._reader, open_to_read, self._path)

    async def stop(self) -> None:
        """Look no more; what reads ends."""
        self._stopped.set()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await asyncio.get_running_loop().run_in_executor(self._reader, connection.close)
        self._reader.shutdown()

    async def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read without a group until this is stopped; see the port."""
        given = after or {}
        positions = {
            _place(partition): given.get(_place(partition), partition.end - 1) + 1
            for partition in await self._look(topics)
        }
        while not self._stopped.is_set():
            moved = False
            for partition in await self._look(topics):
                place = _place(partition)
                position = positions.setdefault(place, partition.start)
                if position < partition.end and not self._stopped.is_set():
                    records = await self._read(partition, position)
                    positions[place] = records[-1].offset + 1
                    moved = True
                    yield records
            if until is not None and all(positions[place] >= end for place, end in until.items()):
                return
            if not moved:
                await self._pause()

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset of the oldest record that is kept; else its end."""
        return {_place(partition): partition.start for partition in await self._look(topics)}

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset that the next record will get."""
        return {_place(partition): partition.end for partition in await self._look(topics)}

    async def _read(self, partition: Partition, position: int) -> Sequence[Record]:
        run = asyncio.get_running_loop().run_in_executor
        records: Sequence[Record] = []
        if position >= partition.start:
            records = await run(self._reader, read_records, self._opened(), partition, position)
        if not records:
            raise Expired(f"{partition.topic}/{partition.number} starts after offset {position}")
        return records

    async def _look(self, topics: Iterable[str]) -> list[Partition]:
        """Return the partitions as they are now; a topic that the file does not know has none."""
        for topic in topics:
            if topic not in self._topics:
                raise PermanentError(f"{topic} is not a declared topic")
        connection = self._opened()

        def look() -> list[Partition]:
            return [found for topic in topics for found in read_partitions(connection, topic)]

        return await asyncio.get_running_loop().run_in_executor(self._reader, look)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._stopped.wait()
        except TimeoutError:
            pass

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise TemporaryError("the log is not open")
        return self._connection


def _place(partition: Partition) -> Position:
    return partition.topic, partition.number
