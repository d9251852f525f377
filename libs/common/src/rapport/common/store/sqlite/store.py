"""SQLite as a store: a file in WAL mode with one writer, readers beside it, every commit fsynced.

What is asked by ids or by what is due is read on the event loop, lists and counts in threads.

Outboxes are a table of their own in the same file: a save appends to it in its transaction, and a
clear leaves the aggregate's row alone. Tombstones are one, too, so no read has to step over them.
Without a path all of it lives in memory, on one connection without threads, and behaves the same.
"""

import asyncio
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple, TypeVar

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Message, PackedHeaders, pack
from rapport.common.store.fields import microseconds, moment
from rapport.common.store.port import A, Change, Page, Stored, Tally, Where
from rapport.common.store.sqlite import queries
from rapport.common.store.sqlite.queries import Query
from rapport.common.store.sqlite.table import Row, Table, quoted
from rapport.common.store.sqlite.worker import (
    BUSY_SECONDS,
    Worker,
    Writer,
    insert_many,
    transaction,
    translated,
)

T = TypeVar("T")

READERS: Final = 2
CHECKPOINT_PAGES: Final = 8_000
CACHE_KIB: Final = 4_000
SCAN_CACHE_KIB: Final = 500
STATEMENTS: Final = 512

_GONE: Final = -1
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"cache_size = -{CACHE_KIB}",
    "temp_store = MEMORY",
)
_SHARED_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS "rapport:outbox" (
        position INTEGER PRIMARY KEY, collection TEXT NOT NULL, aggregate TEXT NOT NULL,
        event TEXT NOT NULL, topic TEXT NOT NULL, key TEXT, value BLOB, header_names BLOB NOT NULL,
        header_values BLOB NOT NULL, saved_at INTEGER NOT NULL)""",
    """CREATE INDEX IF NOT EXISTS "rapport:outbox(collection,aggregate,saved_at)"
        ON "rapport:outbox" (collection, aggregate, saved_at)""",
    """CREATE TABLE IF NOT EXISTS "rapport:tombstones" (
        collection TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (collection, id)) WITHOUT ROWID""",
)
_INTO_OUTBOX: Final = (
    '"rapport:outbox" '
    "(collection, aggregate, event, topic, key, value, header_names, header_values, saved_at)"
)


class _Save(NamedTuple):
    """A change as rows, prepared before the writer gets it."""

    table: Table
    id: str
    version: int
    row: Row
    messages: list[Row]


class _Connected(NamedTuple):
    """An open database: to read at once, to write, and to scan in threads where it is a file."""

    near: Connection
    writer: Writer
    scans: Worker | None = None
    commits: Worker | None = None


class SqliteStore:
    """A store of `kinds` in the file at `path`, or in memory; see the port for the promises."""

    def __init__(self, path: Path | None, kinds: Sequence[type[Aggregate] | type[Fact]]) -> None:
        self._path = path
        self._tables: dict[type, Table] = {kind: Table(kind) for kind in kinds}
        if len({table.collection for table in self._tables.values()}) < len(self._tables):
            raise TypeError("two kinds share a collection")
        self._connected: _Connected | None = None

    async def start(self) -> None:
        """Open the file, create or extend what the collections need.

        Raises TemporaryError, which names the folder, where the file is in trouble.
        """
        try:
            near, *others = await asyncio.to_thread(self._open)
        except Exception as error:
            told = translated(error)
            if isinstance(told, TemporaryError) and self._path is not None:
                raise TemporaryError(f"{self._path.parent}: {told.reason}") from error
            raise told from error
        if self._path is None:
            self._connected = _Connected(near, Writer(near, None))
        else:
            writing, *scanning = others
            commits = Worker("store-commits", [writing])
            scans = Worker("store-scans", scanning)
            self._connected = _Connected(near, Writer(writing, commits), scans, commits)

    async def stop(self) -> None:
        """Finish the writes under way and close."""
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected.writer.stop()
            for worker in (connected.scans, connected.commits):
                if worker is not None:
                    await worker.stop()
            connected.near.close()

    async def get(self, kind: type[A], id: str) -> A | None:
        """Return one aggregate, None where there is none."""
        return (await self.get_many(kind, [id])).get(id)

    async def get_many(self, kind: type[A], ids: Sequence[str]) -> dict[str, A]:
        """Return those of `ids` that are there, in one read."""
        table = self._tables[kind]
        rows = self._ask(queries.by_ids(table, ids))
        return {id: table.read(found) for id, *found in rows}

    async def find(
        self,
        kind: type[Stored],
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page[Stored]:
        """Return a page in the kind's declared order, ties by id."""
        table = self._tables[kind]

        def to_page(rows: list[Row]) -> Page[Stored]:
            items = table.reader.each((id, found) for _, id, *found in rows[:limit])
            if len(rows) <= limit:
                return Page(items)
            place, id, *_ = rows[limit - 1]
            return Page(items, table.declared.cursor(place, id))

        query = queries.page(table, where, limit + 1, cursor, newest_first=newest_first)
        return await self._scan(query, to_page)

    async def tally(
        self,
        kind: type[Aggregate] | type[Fact],
        by: Sequence[str] = (),
        where: Where | None = None,
        *,
        sums: Sequence[str] = (),
    ) -> list[Tally]:
        """Count, and sum the fields of `sums`, per group of the declared fields `by`."""
        table = self._tables[kind]
        fields = [table.declared.field(name) for name in by]

        def to_tally(row: Row) -> Tally:
            group = tuple(field.decode(value) for field, value in zip(fields, row, strict=False))
            return Tally(group, row[len(fields)], row[len(fields) + 1 :])

        return await self._scan(
            queries.tally(table, by, where, sums), lambda rows: list(map(to_tally, rows))
        )

    async def save_many(self, changes: Sequence[Change]) -> list[bool]:
        """Save each change; True where it was saved, False where another writer was first."""
        now = time.time_ns() // 1_000
        saves = [self._save_of(change, now) for change in changes]
        outcome = await self._write(partial(_save, saves)) if saves else []
        for change, saved in zip(changes, outcome, strict=True):
            if saved:
                change.aggregate.version += 1
        return outcome

    async def insert_facts(self, facts: Sequence[Fact]) -> set[str]:
        """Insert `facts` of one or several kinds; return the ids that were new."""
        rows: dict[Table, dict[str, Row]] = {}
        for fact in facts:
            table = self._tables[type(fact)]
            rows.setdefault(table, {}).setdefault(fact.id, table.row(fact))
        return await self._write(partial(_insert, rows)) if rows else set()

    async def due(self, kind: type[A], now: datetime, *, limit: int = 200) -> list[A]:
        """Return aggregates whose `next_due` is not after `now`, the most overdue first."""
        table = self._tables[kind]

        async def ask(most: int) -> list[tuple[str, Row]]:
            rows = self._ask(queries.due(table, microseconds(now), most))
            return [(row[0], row[1:]) for row in rows]

        return await table.reader.first(limit, ask)

    async def next_due(self, kinds: Sequence[type[Aggregate]]) -> datetime | None:
        """Return when the next item of any of `kinds` falls due."""
        if not kinds:
            return None
        rows = self._ask(queries.next_due([self._tables[kind] for kind in kinds]))
        return min((moment(at) for (at,) in rows if at is not None), default=None)

    async def delete(self, kind: type[Aggregate], id: str) -> bool:
        """Replace an aggregate by a tombstone; False while its outbox is not empty."""
        return await self._write(partial(_delete, self._tables[kind], id))

    async def outboxes(
        self, kind: type[Aggregate], ids: Sequence[str]
    ) -> dict[str, list[tuple[str, Message]]]:
        """Return the outboxes, head first, of those of `ids` that have messages waiting."""
        query = Query(
            """SELECT position, aggregate, event, topic, key, value, header_names, header_values
            FROM "rapport:outbox"
            WHERE collection = ? AND aggregate IN (SELECT value FROM json_each(?))""",
            [kind.COLLECTION, json.dumps(ids)],
        )
        return _outboxes(self._ask(query))

    async def clear_outboxes(
        self, kind: type[Aggregate], published: Mapping[str, Sequence[str]]
    ) -> None:
        """Remove exactly the named event ids from the named aggregates' outboxes."""
        named = [(id, event) for id, events in published.items() for event in events]
        if named:
            await self._write(partial(_clear, kind.COLLECTION, json.dumps(named)))

    async def waiting(
        self, kind: type[Aggregate], before: datetime, *, limit: int = 500
    ) -> list[str]:
        """Return ids of aggregates whose outbox holds something saved before `before`."""
        query = Query(
            """SELECT aggregate FROM "rapport:outbox" WHERE collection = ?
            GROUP BY aggregate HAVING min(saved_at) < ? ORDER BY min(saved_at) LIMIT ?""",
            [kind.COLLECTION, microseconds(before), limit],
        )
        return [id for (id,) in self._ask(query)]

    @property
    def _opened(self) -> _Connected:
        if self._connected is None:
            raise TemporaryError("the store is closed")
        return self._connected

    def _ask(self, query: Query) -> list[Row]:
        try:
            return self._opened.near.execute(*query).fetchall()
        except sqlite3.Error as error:
            raise translated(error) from error

    async def _scan(self, query: Query, answer: Callable[[list[Row]], T]) -> T:
        scans = self._opened.scans
        if scans is None:
            return answer(self._ask(query))
        return await scans.run(lambda connection: answer(connection.execute(*query).fetchall()))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._opened.writer.write(work)

    def _open(self) -> list[Connection]:
        """Return connections: one to read at once and, with a file, one to write and the others."""
        with ExitStack() as opening:
            found = [
                opening.enter_context(closing(_connect(self._path)))
                for _ in range(1 if self._path is None else 2 + READERS)
            ]
            for scanning in found[2:]:
                scanning.execute(f"PRAGMA cache_size = -{SCAN_CACHE_KIB}")
            with transaction(found[0]):
                self._prepare(found[0])
            opening.pop_all()
        return found

    def _prepare(self, connection: Connection) -> None:
        for statement in _SHARED_TABLES:
            connection.execute(statement)
        for table in self._tables.values():
            table.prepare(connection)

    def _save_of(self, change: Change, now: int) -> _Save:
        aggregate = change.aggregate
        table = self._tables[type(aggregate)]
        messages: list[Row] = []
        for event, (topic, key, value, headers) in change.messages:
            packed = pack(headers)
            content = topic, key, value, packed.names, packed.values
            messages.append((table.collection, aggregate.id, event, *content, now))
        return _Save(table, aggregate.id, aggregate.version, _next_row(table, aggregate), messages)


def _next_row(table: Table, aggregate: Aggregate) -> Row:
    """Return the row of the version that is to be; the aggregate becomes it when it is saved."""
    aggregate.version += 1
    try:
        return table.row(aggregate)
    finally:
        aggregate.version -= 1


def _connect(path: Path | None) -> Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        path or ":memory:",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
    )
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _save(saves: Sequence[_Save], connection: Connection) -> list[bool]:
    """Compare and swap, in the writer's transaction: read the versions, write what still fits."""
    ids: dict[Table, list[str]] = defaultdict(list)
    for save in saves:
        ids[save.table].append(save.id)
    stored = {table: _stored(connection, table, ids[table]) for table in ids}
    rows: dict[tuple[Table, tuple[str, ...]], list[Row]] = defaultdict(list)
    messages: list[Row] = []
    outcome: list[bool] = []
    for save in saves:
        table = save.table
        version, *columns = stored[table].get(save.id, (0,))
        outcome.append(version == save.version)
        if version == save.version:
            stored[table][save.id] = (version + 1,)
            rows[table, table.changed(save.row, columns)].append(save.row)
            messages += save.messages
    for (table, changed), some in rows.items():
        insert_many(connection, table.into, some, table.upsert(changed))
    insert_many(connection, _INTO_OUTBOX, messages)
    return outcome


def _stored(connection: Connection, table: Table, ids: Sequence[str]) -> dict[str, Row]:
    """Return version and looked-by columns; a tombstone's version is one that nobody decided on."""
    columns = "".join(f", {quoted(name)}" for name in table.looked_by)
    nothing = ", NULL" * len(table.looked_by)
    asked = json.dumps(ids)
    query = f"""SELECT id, version{columns} FROM {table.name}
        WHERE id IN (SELECT value FROM json_each(?))
        UNION ALL SELECT id, {_GONE}{nothing} FROM "rapport:tombstones"
        WHERE collection = ? AND id IN (SELECT value FROM json_each(?))"""
    rows = connection.execute(query, [asked, table.collection, asked]).fetchall()
    return {id: tuple(known) for id, *known in rows}


def _insert(facts: Mapping[Table, Mapping[str, Row]], connection: Connection) -> set[str]:
    new: set[str] = set()
    for table, rows in facts.items():
        query = f"SELECT id FROM {table.name} WHERE id IN (SELECT value FROM json_each(?))"
        known = {id for (id,) in connection.execute(query, [json.dumps(list(rows))])}
        fresh = {id: row for id, row in rows.items() if id not in known}
        insert_many(connection, table.into, list(fresh.values()))
        new |= fresh.keys()
    return new


def _delete(table: Table, id: str, connection: Connection) -> bool:
    name = [table.collection, id]
    waiting = 'SELECT 1 FROM "rapport:outbox" WHERE collection = ? AND aggregate = ? LIMIT 1'
    if connection.execute(waiting, name).fetchone():
        return False
    connection.execute(f"DELETE FROM {table.name} WHERE id = ?", [id])
    connection.execute('INSERT OR IGNORE INTO "rapport:tombstones" VALUES (?, ?)', name)
    return True


def _clear(collection: str, named: str, connection: Connection) -> None:
    connection.execute(
        """DELETE FROM "rapport:outbox" WHERE position IN (
            SELECT position FROM json_each(?) AS named CROSS JOIN "rapport:outbox" AS waiting
            WHERE waiting.collection = ?
            AND waiting.aggregate = json_extract(named.value, '$[0]')
            AND waiting.event = json_extract(named.value, '$[1]'))""",
        [named, collection],
    )


def _outboxes(rows: list[Row]) -> dict[str, list[tuple[str, Message]]]:
    found: dict[str, list[tuple[str, Message]]] = {}
    for _, aggregate, event, topic, key, value, names, values in sorted(rows):
        message = Message(topic, key, value, PackedHeaders(names, values))
        found.setdefault(aggregate, []).append((event, message))
    return found
