"""One kind as a collection: how its items become documents and come back, and its indexes.

An aggregate is one document: `document` is its JSON as pydantic writes and reads it, exact and
faster than BSON would be, and legible in the shell; `fields` are the declared fields as indexes
need them. `outbox` is the messages that wait, `waiting_since` when the oldest was saved, `next_due`
is there while something falls due. `shape` names the fields that are filled, so that documents of
code that declared fewer are found and filled. A tombstone has an id and a version that nobody
decided on, and nothing else.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, ReplaceOne, UpdateOne

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import PermanentError
from rapport.common.events.codec import Message, PackedHeaders, pack
from rapport.common.store.documents import Reader, read
from rapport.common.store.fields import Declaration, Primitive, microseconds
from rapport.common.store.mongo.client import Document
from rapport.common.store.mongo.queries import IS_DUE, IS_WAITING, LIVE, path
from rapport.common.store.port import Change

LARGEST: Final = 16 * 1024**2 - 64 * 1024  # MongoDB's own limit, less what is around it
OURS: Final = "rapport("

FOUND: Final = {"schema": 1, "document": 1}

_GONE: Final = -1
_NEVER_INSERTED: Final = {"_id": _GONE}

Write = InsertOne[Any] | UpdateOne | ReplaceOne[Any]


class Shape:
    """What a kind's documents look like."""

    def __init__(self, kind: type[Aggregate | Fact]) -> None:
        self.kind = kind
        self.name = kind.COLLECTION
        self.declared = Declaration(kind)
        self.is_aggregate = issubclass(kind, Aggregate)
        self.reader = Reader(self.read)
        self.live = LIVE if self.is_aggregate else {}
        self._fields = [
            field for name, field in self.declared.fields.items() if path(name) == f"fields.{name}"
        ]
        self.indexes = dict(self._indexes())
        self._shape = _shape_of({field.name for field in self._fields})

    def save(self, change: Change, now: int) -> Write:
        """Return the write that saves a change, and fails where another writer was first.

        A document that is there with another version, or not there at all, matches no update; the
        upsert then tries to insert it under another id than it was asked for by, which MongoDB
        refuses: so each lost race is an error with its place in the batch. Raises PermanentError
        where the change can never be stored.
        """
        aggregate = change.aggregate
        content = self._content(aggregate, aggregate.version + 1)
        messages = [_entry(event, message, now) for event, message in change.messages]
        if aggregate.version == 0:
            outbox = {"outbox": messages, "waiting_since": now} if messages else {}
            return InsertOne(self._packed({"_id": aggregate.id} | content | outbox))
        fields, added = self._packed(content), self._packed({"$each": messages})
        self._check(len(fields.raw) + len(added.raw))
        update: dict[str, Any] = {"$set": fields, "$setOnInsert": _NEVER_INSERTED}
        if "next_due" not in content:
            update["$unset"] = {"next_due": ""}
        if messages:
            update |= {"$push": {"outbox": added}, "$min": {"waiting_since": now}}
        return UpdateOne({"_id": aggregate.id, "version": aggregate.version}, update, upsert=True)

    def insert(self, fact: Fact) -> Write:
        """Return the write that inserts a fact; raises PermanentError as `save`."""
        return InsertOne(self._packed({"_id": fact.id} | self._content(fact)))

    def read(self, found: Document) -> Any:
        """Return the item of a document; raises as `documents.read`, PermanentError for damage."""
        schema, document = found.get("schema", 1), found.get("document")
        if not isinstance(schema, int) or not isinstance(document, str):
            raise PermanentError(f"a stored {self.name} is damaged")
        return read(self.kind, schema, document)

    def lacks(self, shape: object) -> bool:
        """Tell whether documents of a shape want filling."""
        return isinstance(shape, str) and not _names(self._shape) <= _names(shape)

    def fill(self, found: Document) -> Write:
        """Return the write that fills a document's fields, unless it has been saved since."""
        item = self.read(found)
        fields = {path(name): value for name, value in self._values(item)}
        shape = _shape_of(_names(self._shape) | _names(found["shape"]))
        same = {"_id": found["_id"], "version": found.get("version"), "shape": found["shape"]}
        return UpdateOne(same, {"$set": fields | {"shape": shape}})

    def _content(self, item: Aggregate | Fact, version: int = 0) -> Document:
        try:
            content = self._own(item, version) if isinstance(item, Aggregate) else _text(item)
            return content | {"shape": self._shape, "fields": dict(self._values(item))}
        except Exception:
            raise self._refused() from None

    def _own(self, aggregate: Aggregate, version: int) -> Document:
        due = aggregate.next_due
        own = {"version": version, "schema": aggregate.SCHEMA}
        own |= _text(aggregate.model_copy(update={"version": version}))
        return own if due is None else own | {"next_due": microseconds(due)}

    def _values(self, item: Aggregate | Fact) -> Iterator[tuple[str, Primitive]]:
        for field in self._fields:
            yield field.name, field.encode(getattr(item, field.name))

    def _packed(self, document: Document) -> RawBSONDocument:
        try:
            encoded = bson.encode(document)
        except Exception:
            raise self._refused() from None
        self._check(len(encoded))
        return RawBSONDocument(encoded)

    def _check(self, size: int) -> None:
        if size > LARGEST:
            raise PermanentError(f"{self.name} is over 16 MiB with its messages")

    def _refused(self) -> PermanentError:
        return PermanentError(f"{self.name} cannot be stored as it is")

    def _indexes(self) -> Iterator[tuple[str, Document]]:
        for columns in self.declared.indexes:
            only = self.live if columns[0] == self.declared.order.name else {}
            yield _index(columns, [path(name) for name in columns], only)
        yield _index(["shape"], ["shape"], {})
        if self.is_aggregate:
            yield _index(["next_due", "id"], ["next_due", "_id"], IS_DUE)
            yield _index(["waiting_since", "id"], ["waiting_since", "_id"], IS_WAITING)


def tombstone(id: str) -> Write:
    """Return the write that leaves a tombstone, and fails while messages wait."""
    nothing_waits = {"_id": id, "waiting_since": {"$exists": False}}
    return ReplaceOne(nothing_waits, {"version": _GONE}, upsert=True)


def clear(id: str, events: Sequence[str]) -> Write:
    """Return the write that removes messages from an outbox, and notes what the oldest is then."""
    named = {"$in": ["$$this.id", {"$literal": list(events)}]}
    rest = {"$filter": {"input": "$outbox", "cond": {"$not": [named]}}}
    moments = {"$map": {"input": "$outbox", "in": "$$this.saved_at"}}
    oldest = {"$ifNull": [{"$min": moments}, "$$REMOVE"]}
    return UpdateOne(
        {"_id": id, "outbox.id": {"$in": list(events)}},
        [{"$set": {"outbox": rest}}, {"$set": {"waiting_since": oldest}}],
    )


def messages_of(found: Document) -> list[tuple[str, Message]]:
    """Return a document's outbox."""
    return [
        (
            entry["id"],
            Message(
                entry["topic"],
                entry["key"],
                entry["value"],
                PackedHeaders(entry["header_names"], entry["header_values"]),
            ),
        )
        for entry in found.get("outbox", ())
    ]


def _entry(event: str, message: Message, now: int) -> Document:
    packed = pack(message.headers)
    return {
        "id": event,
        "topic": message.topic,
        "key": message.key,
        "value": message.value,
        "header_names": packed.names,
        "header_values": packed.values,
        "saved_at": now,
    }


def _text(item: Aggregate | Fact) -> Document:
    return {"document": item.model_dump_json()}


def _index(names: Sequence[str], keys: Sequence[str], only: Document) -> tuple[str, Document]:
    definition: Document = {"key": [(key, 1) for key in keys]}
    if only:
        definition["partialFilterExpression"] = only
    return f"{OURS}{','.join(names)})", definition


def _shape_of(names: Set[str]) -> str:
    return ",".join(sorted(names))


def _names(shape: str) -> set[str]:
    return set(shape.split(",")) if shape else set()
