"""One collection as a table: the declared fields as columns beside the document, and the indexes.

Every index goes on with the list order and the id, so a page is read from where it starts, whatever
the collection's size. A field declared later gets its column, filled from the documents, when the
store opens; one declared no longer loses it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import Any, Final

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import PermanentError
from rapport.common.store.documents import Reader, read
from rapport.common.store.fields import Declaration, Primitive, microseconds

Row = tuple[Any, ...]

BACKFILL_ROWS: Final = 500

_TYPES: Final = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER", datetime: "INTEGER"}
_FACT: Final = {"id": "TEXT NOT NULL PRIMARY KEY"}
_AGGREGATE: Final = _FACT | {"version": "INTEGER NOT NULL", "schema": "INTEGER NOT NULL"}
_DUE: Final = {"next_due": "INTEGER"}
_DOCUMENT: Final = {"document": "TEXT NOT NULL"}


class Table:
    """The table of one kind. Selects read `found` columns, which `read` turns into an item."""

    def __init__(self, kind: type[Aggregate | Fact]) -> None:
        self.kind = kind
        self.collection = kind.COLLECTION
        self.name = quoted(kind.COLLECTION)
        self.declared = Declaration(kind)
        self.is_aggregate = issubclass(kind, Aggregate)
        self.reader = Reader(self.read)
        self.newest = kind.SCHEMA if issubclass(kind, Aggregate) else 1
        self.found = "schema, document" if self.is_aggregate else "1, document"
        if taken := {"schema", "document"} & self.declared.fields.keys():
            raise TypeError(f"{kind.__name__} may not declare {', '.join(sorted(taken))}")
        own = _AGGREGATE if self.is_aggregate else _FACT
        due = _DUE if self.is_aggregate else {}
        there = own.keys() | due.keys()
        self._fields = [item for name, item in self.declared.fields.items() if name not in there]
        looked_by = due | {field.name: _TYPES[field.type] for field in self._fields}
        self._columns = own | looked_by | _DOCUMENT
        self._own = (*own, "document")
        self.looked_by = tuple(looked_by)
        self.into = f"{self.name} ({', '.join(map(quoted, (*self._own, *self.looked_by)))})"
        self.order = [quoted(name) for name in dict.fromkeys((kind.ORDER, "id"))]

    def row(self, item: Aggregate | Fact) -> Row:
        """Return `item` as a row for `into`; raises PermanentError where it can never be stored."""
        try:
            return self._row(item)
        except Exception as error:
            raise PermanentError(f"{self.collection} cannot be stored as it is") from error

    def changed(self, row: Row, stored: Sequence[Primitive]) -> tuple[str, ...]:
        """Name the columns of `looked_by` in which `row` differs from what is stored."""
        pairs = zip(self.looked_by, row[len(self._own) :], stored, strict=False)
        return tuple(name for name, new, old in pairs if new != old)

    def upsert(self, changed: Sequence[str]) -> str:
        """Say what to do where the id is there: only indexes of `changed` columns are touched."""
        names = map(quoted, (*self._own[1:], *changed))
        return "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in names)

    def read(self, row: Sequence[Any]) -> Any:
        """Return the item of a row of `found`.

        Raises TemporaryError where newer code wrote it, PermanentError where it does not fit.
        """
        schema, document = row
        return read(self.kind, schema, document)

    def prepare(self, connection: Connection) -> None:
        """Bring table, columns and indexes to what the kind declares."""
        columns = ", ".join(f"{quoted(name)} {type}" for name, type in self._columns.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})")
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({self.name})")}
        indexes = dict(self._indexes())
        for name in self._indexes_there(connection) - indexes.keys():
            connection.execute(f"DROP INDEX {quoted(name)}")
        for name in there - self._columns.keys():
            connection.execute(f"ALTER TABLE {self.name} DROP COLUMN {quoted(name)}")
        missing = [field for field in self._fields if field.name not in there]
        for field in missing:
            column = f"{quoted(field.name)} {_TYPES[field.type]}"
            connection.execute(f"ALTER TABLE {self.name} ADD COLUMN {column}")
        if missing:
            self._backfill(connection)
        for statement in indexes.values():
            connection.execute(statement)

    def _row(self, item: Aggregate | Fact) -> Row:
        document = item.__pydantic_serializer__.to_json(item).decode()
        if not isinstance(item, Aggregate):
            return (item.id, document, *self._values(item))
        due = item.next_due
        at = None if due is None else microseconds(due)
        return (item.id, item.version, item.SCHEMA, document, at, *self._values(item))

    def _values(self, item: Aggregate | Fact) -> Iterator[Primitive]:
        for field in self._fields:
            yield field.encode(getattr(item, field.name))

    def _indexes(self) -> Iterator[tuple[str, str]]:
        for columns in self.declared.indexes:
            yield self._index(columns)
        if self.is_aggregate:
            yield self._index(["next_due", "id"], "WHERE next_due IS NOT NULL")

    def _index(self, columns: Sequence[str], only: str = "") -> tuple[str, str]:
        name = f"{self.collection}({','.join(columns)}) {only}".strip()
        keys = ", ".join(map(quoted, columns))
        return name, f"CREATE INDEX IF NOT EXISTS {quoted(name)} ON {self.name} ({keys}) {only}"

    def _indexes_there(self, connection: Connection) -> set[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql <> ''"
        return {name for (name,) in connection.execute(query, (self.collection,))}

    def _backfill(self, connection: Connection) -> None:
        assignments = ", ".join(f"{quoted(field.name)} = ?" for field in self._fields)
        update = f"UPDATE {self.name} SET {assignments} WHERE rowid = ?"
        columns = f"rowid, id, {self.found}"
        select = f"SELECT {columns} FROM {self.name} WHERE rowid > ? ORDER BY rowid LIMIT ?"
        fillings = Reader(self._filling)
        last = 0
        while rows := connection.execute(select, (last, BACKFILL_ROWS)).fetchall():
            found = ((id, (rowid, stored)) for rowid, id, *stored in rows)
            connection.executemany(update, fillings.each(found))
            last = rows[-1][0]

    def _filling(self, found: tuple[int, Sequence[Any]]) -> Row:
        rowid, stored = found
        return (*self._values(self.read(stored)), rowid)


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
