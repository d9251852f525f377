"""Events as bytes: CloudEvents' Kafka binary mode, by hand because every event passes here twice.

`encode` and `decode` are each other's inverse (a property test holds them to it, with the
CloudEvents SDK as the oracle for the headers). Structured JSON is for people, HTTP and live
streams. Packed headers are for adapters that keep messages in a database.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from rapport.common.errors import PermanentError
from rapport.common.events.envelope import CATALOGUE, Event, EventData

Data = TypeVar("Data", bound=EventData)

Headers = Iterable[tuple[str, bytes]]
"""Pairs of a name and a value; can be gone through any number of times."""

_ALWAYS: Final = (
    "ce_specversion",
    "content-type",
    "ce_type",
    "ce_id",
    "ce_source",
    "ce_subject",
    "ce_time",
    "ce_partitionkey",
    "ce_correlationid",
    "ce_hops",
)
_SOMETIMES: Final = (
    ("causationid", "ce_causationid"),
    ("sequence", "ce_sequence"),
    ("exercise", "ce_exercise"),
    ("redrive", "ce_redrive"),
    ("traceparent", "traceparent"),
)
_HISTORICAL: Final = "ce_historical"
_REQUIRED: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time")
_READ: Final = frozenset((*_ALWAYS, _HISTORICAL, *(header for _, header in _SOMETIMES)))
_TRACEPARENT: Final = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_END: Final = b"\0"
_ESCAPE: Final = b"\1"


class PackedHeaders:
    """Headers as two blobs, their names and their values, unpacked when somebody looks."""

    __slots__ = ("names", "values")

    def __init__(self, names: bytes, values: bytes) -> None:
        self.names = names
        self.values = values

    @classmethod
    def of(cls, names: tuple[str, ...], values: Sequence[bytes]) -> "PackedHeaders":
        """Return the headers of these names with these values."""
        return cls(_pack_names(names), _pack(values))

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return zip(_unpack_names(self.names), _unpack(self.values), strict=True)

    def first(self, name: str) -> bytes | None:
        """Return the first value of this name, None where there is none."""
        names = _unpack_names(self.names)
        if name not in names:
            return None
        place = names.index(name)
        return _unescape(self.values.split(_END, place + 1)[place])

    def texts(self) -> dict[str, str]:
        """Return them as text, by name; raises UnicodeDecodeError where one is not UTF-8."""
        if _ESCAPE in self.values:
            return {name: value.decode() for name, value in self}
        return dict(zip(_unpack_names(self.names), self.values.decode().split("\0"), strict=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return f"PackedHeaders({tuple(self)})"


class Message(NamedTuple):
    """What is published: a topic, the key that must stay in order, headers and the value's bytes.

    Only a foreign record that is passed on as it was lacks a key or a value.
    """

    topic: str
    key: str | None
    value: bytes | None
    headers: Headers


class Record(NamedTuple):
    """What is read back: a message with its place in the log; `timestamp` is in epoch milliseconds.

    Foreign records may lack a key, a value or headers.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: bytes | None
    headers: Headers


class Undecodable(PermanentError):
    """A record is no event that this code can read; the reason says why, without its content."""

    title = "Undecodable event"


def encode(event: Event[EventData], topic: str | None = None) -> Message:
    """Return `event` as a message for `topic`, by default the topic of its type."""
    if topic is None:
        declared = event.data.TOPIC
        if declared is None:
            raise TypeError(f"{event.type} has no topic of its own")
        topic = declared.name
    names: tuple[str, ...] = _ALWAYS
    values = [
        "1.0",
        "application/json",
        event.type,
        event.id,
        event.source,
        event.subject,
        event.time.isoformat(),
        event.partitionkey,
        event.correlationid,
        str(event.hops),
    ]
    for name, header in _SOMETIMES:
        value = getattr(event, name)
        if value is not None:
            names += (header,)
            values.append(value)
    if event.historical:
        names += (_HISTORICAL,)
        values.append("true")
    data = event.data.__pydantic_serializer__.to_json(event.data)
    headers = PackedHeaders(_pack_names(names), _pack_texts(values))
    return Message(topic, event.partitionkey, data, headers)


def pack(headers: Headers) -> PackedHeaders:
    """Return `headers` packed, unless they are already."""
    if isinstance(headers, PackedHeaders):
        return headers
    names, values = tuple(zip(*headers, strict=True)) or ((), ())
    return PackedHeaders.of(names, values)


def event_type(headers: Headers) -> str | None:
    """Return the CloudEvents type that binary headers name, or None."""
    type = _first(headers, "ce_type")
    return None if type is None else type.decode(errors="replace")


def traceparent(headers: Headers) -> str | None:
    """Return the W3C trace context in headers, None where there is none or it is malformed."""
    text = (_first(headers, "traceparent") or b"").decode(errors="replace")
    return text if _TRACEPARENT.fullmatch(text) else None


def decode(record: Record | Message) -> Event[EventData]:
    """Return the event that a record carries.

    Raises `Undecodable` where it is not binary-mode CloudEvents 1.0, its type is not in the
    catalogue or its data do not fit the type.
    """
    if record.value is None:
        raise Undecodable("the record has no value")
    attributes = _attributes(record.headers)
    known = CATALOGUE.get(attributes["ce_type"])
    if known is None:
        raise Undecodable("the event type is not known here")
    find = attributes.get
    try:
        return Event(
            id=attributes["ce_id"],
            source=attributes["ce_source"],
            type=attributes["ce_type"],
            subject=find("ce_subject", ""),
            time=_utc(attributes["ce_time"]),
            data=known.__pydantic_validator__.validate_json(record.value),
            partitionkey=find("ce_partitionkey", record.key or ""),
            correlationid=find("ce_correlationid", attributes["ce_id"]),
            causationid=find("ce_causationid"),
            sequence=find("ce_sequence"),
            exercise=find("ce_exercise"),
            historical=find("ce_historical") == "true",
            hops=int(find("ce_hops", "0")),
            redrive=find("ce_redrive"),
            traceparent=find("traceparent"),
        )
    except ValidationError as error:
        raise Undecodable(_what_does_not_fit(error)) from None
    except (ValueError, OverflowError):
        raise Undecodable("an attribute is not of its type") from None


def structured(event: Event[EventData]) -> dict[str, Any]:
    """Return `event` as the JSON object of CloudEvents' structured mode."""
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat(),
        "datacontenttype": "application/json",
        "partitionkey": event.partitionkey,
        "correlationid": event.correlationid,
        "hops": event.hops,
    }
    for name, _ in _SOMETIMES:
        value = getattr(event, name)
        if value is not None:
            attributes[name] = value
    if event.historical:
        attributes["historical"] = True
    attributes["data"] = event.data.model_dump(mode="json")
    return attributes


def _attributes(headers: Headers) -> dict[str, str]:
    """Return the headers as text; raises `Undecodable` unless they are CloudEvents 1.0."""
    try:
        attributes = pack(headers).texts()
    except UnicodeDecodeError:
        attributes = _read_texts(headers)
    for name in _REQUIRED:
        if not attributes.get(name):
            raise Undecodable(f"the header {name} is missing")
    if attributes["ce_specversion"] != "1.0":
        raise Undecodable("the header ce_specversion is not 1.0")
    return attributes


def _read_texts(headers: Headers) -> dict[str, str]:
    """Return those that are read as text; what others bring along need not be any."""
    try:
        return {name: value.decode() for name, value in headers if name in _READ}
    except UnicodeDecodeError:
        raise Undecodable("a header is not UTF-8") from None


def _first(headers: Headers, name: str) -> bytes | None:
    if isinstance(headers, PackedHeaders):
        return headers.first(name)
    return next((value for found, value in headers if found == name), None)


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time if time.tzinfo is UTC else time.astimezone(UTC)


def _what_does_not_fit(error: ValidationError) -> str:
    """Name the event's field at fault; steps below it may be keys, which are content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = "".join(f"/{step}" for step in first["loc"][:1])
    return f"the data do not fit the type: {place or 'the whole'}: {first['type']}"


@lru_cache(maxsize=256)
def _pack_names(names: tuple[str, ...]) -> bytes:
    return _pack([name.encode() for name in names])


@lru_cache(maxsize=256)
def _unpack_names(names: bytes) -> tuple[str, ...]:
    return tuple(name.decode() for name in _unpack(names))


def _pack_texts(parts: Sequence[str]) -> bytes:
    """Return texts packed; they are made bytes together, which takes less time than each alone."""
    joined = "\0".join((*parts, ""))
    if "\1" in joined or joined.count("\0") != len(parts):
        return _pack([part.encode() for part in parts])
    return joined.encode()


def _pack(parts: Sequence[bytes]) -> bytes:
    """Return byte strings as one, each closed by a NUL; a NUL inside one is escaped."""
    packed = _END.join((*parts, b""))
    if _ESCAPE in packed or packed.count(_END) != len(parts):
        packed = _END.join((*map(_escape, parts), b""))
    return packed


def _unpack(packed: bytes) -> list[bytes]:
    parts = packed.split(_END)
    parts.pop()
    return [_unescape(part) for part in parts] if _ESCAPE in packed else parts


def _escape(part: bytes) -> bytes:
    return part.replace(_ESCAPE, b"\1a").replace(_END, b"\1b")


def _unescape(part: bytes) -> bytes:
    return part.replace(b"\1b", _END).replace(b"\1a", _ESCAPE)
