"""The embedded bus's file: the records of every partition, append-only, in SQLite.

What one transaction brings for one partition is one row, a segment, as Kafka packs record batches:
SQLite lets Python's other threads run at every row, so few rows mean few waits to go on. A
segment's id is its partition's number in the file and its first offset, so a partition is read by
primary key.

Nothing here is asynchronous: the bus calls the writing half from one place at a time, and the
reading half from another. Trouble with the file is a TemporaryError, and what a failed call was to
write is not there. Whoever does not own the file can still look at it, through a connection that
only reads.
"""

import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, count, pairwise, repeat
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from rapport.common.bus.port import Position
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, PackedHeaders, Record, pack
from rapport.common.events.topics import Topic

FORMAT: Final = 1
SEGMENT_RECORDS: Final = 500
SEGMENT_BYTES: Final = 512 * 1024
TRIM_SEGMENTS: Final = 1000
_OFFSETS: Final = 1 << 40

_SCHEMA: Final = """
    CREATE TABLE partitions (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        number INTEGER NOT NULL,
        start INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, number)
    );
    CREATE TABLE segments (
        id INTEGER PRIMARY KEY,
        records INTEGER NOT NULL,
        timestamp INTEGER NOT NULL,
        names BLOB NOT NULL,
        data BLOB NOT NULL
    );
    CREATE TABLE positions (
        consumers TEXT NOT NULL,
        partition INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (consumers, partition)
    ) WITHOUT ROWID;
"""
_PARTITIONS: Final = """
    SELECT id, topic, number, start, coalesce(
        (SELECT segments.id + records - partitions.id * (1 << 40) FROM segments
         WHERE segments.id BETWEEN partitions.id * (1 << 40) AND (partitions.id + 1) * (1 << 40) - 1
         ORDER BY segments.id DESC LIMIT 1),
        start)
    FROM partitions WHERE topic = ? ORDER BY number
"""
_FROM: Final = """
    FROM segments
    WHERE id >= (SELECT max(id) FROM segments WHERE id BETWEEN :first AND :place)
    AND id <= :last
    ORDER BY id
"""
_READ: Final = f"SELECT id, records, timestamp, names, data {_FROM}"
_TIMESTAMP: Final = f"SELECT timestamp {_FROM} LIMIT 1"
_OLDEST: Final = """
    SELECT id + records, timestamp FROM segments WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?
"""

Owner = tuple[str, int]
"""A consumer group and the id of a partition: what a position belongs to."""


@dataclass(slots=True, eq=False)
class Partition:
    """A partition: its offsets begin at `start`, and `end` is the one that the next record gets."""

    id: int
    topic: str
    number: int
    start: int
    end: int


def is_past(positions: Mapping[Partition, int], until: Mapping[Position, int] | None) -> bool:
    """Tell whether positions have come to where a reading ends, which is nowhere for None."""
    return until is not None and all(
        position >= until.get((partition.topic, partition.number), 0)
        for partition, position in positions.items()
    )


class Segment(NamedTuple):
    """Messages to append to the partition of this id, the first of them at the offset `first`."""

    partition: int
    first: int
    messages: Sequence[Message]


class InUse(TemporaryError):
    """Another process has the log."""


class Log:
    """One log file; `open` before use, `close` at the end."""

    def __init__(self, path: Path, topics: Mapping[str, Topic]) -> None:
        self._path = path
        self._topics = topics
        self._lock: IO[str] | None = None
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection

    def open(self) -> tuple[list[Partition], dict[Owner, int]]:
        """Take the file, create it where there is none; return its partitions and positions.

        Raises InUse where another process has it, PermanentError where the file is of
        another format or a topic has another number of partitions than it was created with.
        Trouble is told with the folder that it is in.
        """
        try:
            with trouble(self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _lock(self._path.with_name(f"{self._path.name}.lock"))
                self._writer = self._connect("journal_mode = WAL", "wal_autocheckpoint = 4000")
                self._create()
                self._reader = self._connect("query_only = ON")
                partitions = [
                    partition for topic in self._topics.values() for partition in self._take(topic)
                ]
                positions = self._writer.execute("SELECT * FROM positions").fetchall()
        except BaseException:
            self.close()
            raise
        return partitions, {(group, partition): at for group, partition, at in positions}

    def close(self) -> None:
        """Let go of the file."""
        for connection in ("_reader", "_writer"):
            with suppress(AttributeError, sqlite3.Error):
                getattr(self, connection).close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(
        self, segments: Iterable[Segment], timestamp: int, positions: Mapping[Owner, int]
    ) -> None:
        """Write segments, at `timestamp` (epoch ms), and groups' positions; `commit` comes next."""
        rows = [
            (
                _id(partition, first),
                len(messages),
                timestamp,
                pack(messages[0].headers).names,
                _join(messages),
            )
            for segment in sorted(segments, key=attrgetter("partition"))
            for partition, first, messages in _cut(segment)
        ]
        places = [(group, partition, at) for (group, partition), at in positions.items()]
        with self._writing():
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", rows)
            self._writer.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", places)

    def commit(self) -> None:
        """Make durable what was appended."""
        with self._writing():
            self._writer.execute("COMMIT")

    def read(self, partition: Partition, position: int) -> list[Record]:
        """Return records from `position` on, some 500 or half a mebibyte; none where it is gone."""
        return read_records(self._reader, partition, position)

    def oldest(self, places: Iterable[tuple[Partition, int]]) -> int:
        """Return the earliest timestamp, in epoch ms, of the records at these positions."""
        with trouble():
            found = [
                self._reader.execute(_TIMESTAMP, _place(*place)).fetchone() for place in places
            ]
        return int(min(found)[0])

    def trim(self, partition: Partition, before: int, below: int) -> int:
        """Forget the oldest segments: written `before` (epoch ms), with all offsets `below`.

        Returns the partition's new start. One call forgets 1000 segments at most.
        """
        start = partition.start
        first, last = _id(partition.id, 0), _id(partition.id + 1, 0) - 1
        with self._transaction():
            oldest = self._writer.execute(_OLDEST, (first, last, TRIM_SEGMENTS)).fetchall()
            for end, written in oldest:
                if written >= before or end > first + below:
                    break
                start = end - first
            if start == partition.start:
                return start
            gone = (first, first + start - 1)
            self._writer.execute("DELETE FROM segments WHERE id BETWEEN ? AND ?", gone)
            moved = (start, partition.id)
            self._writer.execute("UPDATE partitions SET start = ? WHERE id = ?", moved)
        return start

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in ("synchronous = FULL", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _create(self) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        if found == 0:
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
        else:
            _require_format(self._path, found)

    def _take(self, topic: Topic) -> list[Partition]:
        """Return a topic's partitions, created where the topic is new."""
        known = read_partitions(self._writer, topic.name)
        if not known:
            numbers = [(topic.name, number) for number in range(topic.partitions)]
            with self._transaction():
                self._writer.executemany(
                    "INSERT INTO partitions (topic, number) VALUES (?, ?)", numbers
                )
            known = read_partitions(self._writer, topic.name)
        if len(known) != topic.partitions:
            raise PermanentError(
                f"{topic.name} was created with {len(known)} partitions, not {topic.partitions}; "
                "another number would break the order"
            )
        return known

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._writing():
            self._writer.execute("BEGIN IMMEDIATE")
            yield
            self._writer.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Leave nothing of a transaction that goes wrong."""
        with trouble():
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise


def open_to_read(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, whoever has the file; for `read_partitions` and so on.

    Raises PermanentError where the file is of another format.
    """
    with trouble():
        address = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            _require_format(path, found)
        except BaseException:
            connection.close()
            raise
    return connection


def read_partitions(connection: sqlite3.Connection, topic: str) -> list[Partition]:
    """Return a topic's partitions as they are now; none where the file does not know the topic."""
    with trouble():
        return [Partition(*row) for row in connection.execute(_PARTITIONS, (topic,))]


def read_records(
    connection: sqlite3.Connection, partition: Partition, position: int
) -> list[Record]:
    """Return records from `position` on, some 500 or half a mebibyte; none where it is gone."""
    records: list[Record] = []
    size = 0
    place = _place(partition, position)
    with trouble(), closing(connection.execute(_READ, place)) as segments:
        for id, number, timestamp, names, data in segments:
            records += _split(partition, id % _OFFSETS, number, timestamp, names, data)
            size += len(data)
            if len(records) >= SEGMENT_RECORDS or size >= SEGMENT_BYTES:
                break
    return records[position - records[0].offset :] if records else records


@contextmanager
def trouble(folder: Path | None = None) -> Iterator[None]:
    """Turn trouble with the file into a TemporaryError, which names the folder if it is given."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        where = "" if folder is None else f" in {folder}"
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise TemporaryError(f"the log{where} cannot be used: {why}") from error


def _require_format(path: Path, found: int) -> None:
    if found != FORMAT:
        raise PermanentError(f"{path.name} is a log of format {found}, not {FORMAT}")


def _lock(path: Path) -> IO[str]:
    """Return the open lock file, held until it is closed; it tells the process id of its owner."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read() or "unknown"
        file.close()
        raise InUse(f"{path.stem} is in use by process {owner}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _id(partition: int, offset: int) -> int:
    return partition * _OFFSETS + offset


def _place(partition: Partition, position: int) -> dict[str, int]:
    return {
        "first": _id(partition.id, 0),
        "place": _id(partition.id, position),
        "last": _id(partition.id + 1, 0) - 1,
    }


def _cut(segment: Segment) -> Iterator[Segment]:
    """Cut a segment where the header names change, and what is too long for one."""
    partition, first, messages = segment
    start = size = 0
    names = pack(messages[0].headers).names
    for place, (_, _, value, headers) in enumerate(messages):
        packed = pack(headers)
        size += len(value or b"") + len(packed.values)
        if packed.names != names or size > SEGMENT_BYTES or place - start == SEGMENT_RECORDS:
            if place > start:
                yield Segment(partition, first + start, messages[start:place])
            start, size, names = place, 0, packed.names
    yield Segment(partition, first + start, messages[start:])


def _join(messages: Sequence[Message]) -> bytes:
    """Return messages as one blob: the lengths of their parts (-1 is None), then the parts."""
    parts = [
        part
        for _, key, value, headers in messages
        for part in (None if key is None else key.encode(), value, pack(headers).values)
    ]
    lengths = [-1 if part is None else len(part) for part in parts]
    return struct.pack(f"<{len(parts)}i", *lengths) + b"".join(part for part in parts if part)


def _split(
    partition: Partition, first: int, records: int, timestamp: int, names: bytes, data: bytes
) -> Iterator[Record]:
    """Return the records of a segment; a column at a time, since each record counts here."""
    try:
        lengths = struct.unpack_from(f"<{3 * records}i", data)
    except struct.error:
        damaged = f"{partition.topic}/{partition.number} at {first}"
        raise TemporaryError(f"the log is damaged: {damaged}") from None
    parts = _slices(data, 12 * records, lengths)
    return map(
        Record._make,
        zip(
            repeat(partition.topic),
            repeat(partition.number),
            count(first),
            repeat(timestamp),
            [None if key is None else key.decode() for key in parts[0::3]],
            parts[1::3],
            map(PackedHeaders, repeat(names), parts[2::3]),
        ),
    )


def _slices(data: bytes, start: int, lengths: Sequence[int]) -> list[Any]:
    """Return the parts of `data` that have these lengths, None for a length of -1."""
    if -1 not in lengths:
        return [data[begin:end] for begin, end in pairwise(accumulate(lengths, initial=start))]
    ends = accumulate((max(length, 0) for length in lengths), initial=start)
    return [
        None if length < 0 else data[begin:end]
        for length, (begin, end) in zip(lengths, pairwise(ends), strict=True)
    ]
