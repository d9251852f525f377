"""Events as bytes: CloudEvents' Kafka binary mode, by hand because every event passes here twice.

`encode` and `decode` are each other's inverse (a property test holds them to it, with the CloudEvents
SDK as the oracle for the headers). Structured JSON is for people, HTTP and live streams.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from rapport.common.errors import PermanentError
from rapport.common.events.envelope import CATALOGUE, Event, EventData

Data = TypeVar("Data", bound=EventData)

Headers = tuple[tuple[str, bytes], ...]

CONTENT_TYPE: Final = ("content-type", b"application/json")
SPEC_VERSION: Final = ("ce_specversion", b"1.0")
_OPTIONAL: Final = ("causationid", "sequence", "exercise", "redrive")


class Message(NamedTuple):
    """What is published: a topic, the key that must stay in order, headers and the value's bytes."""

    topic: str
    key: str
    value: bytes
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
    """A record is not an event that this code can read; the reason says why, without its content."""

    title = "Undecodable event"


def encode(event: Event[EventData], topic: str | None = None) -> Message:
    """Return `event` as a message for `topic`, by default the topic of its type."""
    if topic is None:
        declared = event.data.TOPIC
        if declared is None:
            raise TypeError(f"{event.type} has no topic of its own")
        topic = declared.name
    headers = [
        SPEC_VERSION,
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_subject", event.subject.encode()),
        ("ce_time", event.time.isoformat().encode()),
        ("ce_partitionkey", event.partitionkey.encode()),
        ("ce_correlationid", event.correlationid.encode()),
        ("ce_hops", b"%d" % event.hops),
        CONTENT_TYPE,
    ]
    for name in _OPTIONAL:
        value = getattr(event, name)
        if value is not None:
            headers.append((f"ce_{name}", value.encode()))
    if event.historical:
        headers.append(("ce_historical", b"true"))
    if event.traceparent is not None:
        headers.append(("traceparent", event.traceparent.encode()))
    value = event.data.__pydantic_serializer__.to_json(event.data)
    return Message(topic, event.partitionkey, value, tuple(headers))


def event_type(headers: Headers) -> str | None:
    """Return the CloudEvents type that binary headers name, or None."""
    for name, value in headers:
        if name == "ce_type":
            return value.decode(errors="replace")
    return None


def decode(record: Record | Message) -> Event[EventData]:
    """Return the event that a record carries.

    Raises `Undecodable` where it is not binary-mode CloudEvents 1.0, its type is not in the
    catalogue or its data do not fit the type.
    """
    if record.value is None:
        raise Undecodable("the record has no value")
    try:
        attributes = {name: value.decode() for name, value in record.headers}
        if attributes["ce_specversion"] != "1.0":
            raise Undecodable(f"CloudEvents version {attributes['ce_specversion']!r} is not 1.0")
        type = attributes["ce_type"]
        known = CATALOGUE.get(type)
        if known is None:
            raise Undecodable(f"the event type {type!r} is not known here")
        return Event(
            id=attributes["ce_id"],
            source=attributes["ce_source"],
            type=type,
            subject=attributes.get("ce_subject", ""),
            time=datetime.fromisoformat(attributes["ce_time"]),
            data=known.__pydantic_validator__.validate_json(record.value),
            partitionkey=attributes.get("ce_partitionkey", record.key or ""),
            correlationid=attributes.get("ce_correlationid", attributes["ce_id"]),
            causationid=attributes.get("ce_causationid"),
            sequence=attributes.get("ce_sequence"),
            exercise=attributes.get("ce_exercise"),
            historical=attributes.get("ce_historical") == "true",
            hops=int(attributes.get("ce_hops", "0")),
            redrive=attributes.get("ce_redrive"),
            traceparent=attributes.get("traceparent"),
        )
    except KeyError as missing:
        raise Undecodable(f"the header {missing.args[0]} is missing") from None
    except UnicodeDecodeError:
        raise Undecodable("a header is not UTF-8") from None
    except ValueError as error:
        raise Undecodable(_what_is_wrong(error)) from None


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
    for name in _OPTIONAL:
        value = getattr(event, name)
        if value is not None:
            attributes[name] = value
    if event.historical:
        attributes["historical"] = True
    if event.traceparent is not None:
        attributes["traceparent"] = event.traceparent
    attributes["data"] = event.data.model_dump(mode="json")
    return attributes


def _what_is_wrong(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if details is None:
        return "an attribute is not of its type"
    first = details(include_input=False, include_url=False, include_context=False)[0]
    place = "/".join(str(step) for step in first["loc"])
    return f"the data do not fit the type: /{place}: {first['type']}"
