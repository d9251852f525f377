"""Events as bytes: there and back for every type, as the CloudEvents SDK reads them, and poison."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ValidationError

from rapport.common.events import (
    CATALOGUE,
    Event,
    EventData,
    Message,
    Record,
    Undecodable,
    decode,
    encode,
    structured,
)
from rapport.common.events.codec import Headers, PackedHeaders, event_type, pack
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.topics import CASES

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECRET: Final = "ana@example.com"

texts = st.text(st.characters(codec="utf-8"), max_size=20)
words = texts.filter(bool)
moments = st.datetimes(timezones=st.just(UTC))
scalars = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | texts
plain: Mapping[Any, st.SearchStrategy[Any]] = {
    str: texts,
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    datetime: moments,
    AwareDatetime: moments,
    Any: st.recursive(
        scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=4
    ),
    NoneType: st.none(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return what generates values of the types that events are made of."""
    if annotation in plain:
        return plain[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(arguments[0])
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    assert issubclass(annotation, BaseModel), f"no strategy for {annotation}"
    fields = {name: values(field.annotation) for name, field in annotation.model_fields.items()}
    possible = st.fixed_dictionaries(fields).map(partial(built, annotation))
    return possible.filter(lambda model: model is not None)


def built(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel | None:
    """Return the model of these fields, None where it does not take them together."""
    try:
        return model(**fields)
    except ValidationError:
        return None


def events_of(type: str) -> st.SearchStrategy[Event[EventData]]:
    return st.builds(
        Event,
        id=words,
        source=words,
        type=st.just(type),
        subject=words,
        time=moments,
        data=values(CATALOGUE[type]),
        partitionkey=words,
        correlationid=words,
        causationid=st.none() | words,
        sequence=st.none() | words,
        exercise=st.none() | words,
        historical=st.booleans(),
        hops=st.integers(0, 16),
        redrive=st.none() | words,
        traceparent=st.none() | words,
    )


def told(**changes: Any) -> Event[FeedbackReceived]:
    """Return an event as intake publishes it."""
    data = FeedbackReceived(
        feedback_id="f1",
        reference="RP-1",
        case_id="c1",
        client="shop",
        kind="complaint",
        channel="email",
        language="en",
        text="The lamp came broken.",
        occurred_at=NOON,
        received_at=NOON,
    )
    attributes: dict[str, Any] = {
        "id": "e1",
        "source": "/rapport/intake",
        "type": data.TYPE,
        "subject": "c1",
        "time": NOON,
        "data": data,
        "partitionkey": "c1",
        "correlationid": "e1",
    }
    return Event(**(attributes | changes))


def record(value: bytes | None = None, **headers: bytes | None) -> Record:
    """Return a good event's record with its value or some headers changed; None leaves one out."""
    good = encode(told())
    changed = {name: content for name, content in good.headers} | headers
    kept = tuple((name, content) for name, content in changed.items() if content is not None)
    return Record(good.topic, 0, 7, 0, good.key, value or good.value, kept)


def with_data(**fields: Any) -> bytes:
    return json.dumps(json.loads(encode(told()).value or b"") | fields).encode()


# There and back


@pytest.mark.parametrize("type", sorted(CATALOGUE))
@given(data=st.data())
@settings(max_examples=10)
def test_decoding_undoes_encoding(type: str, data: st.DataObject) -> None:
    event = data.draw(events_of(type))
    message = encode(event, CASES.name)
    assert decode(message) == event
    assert decode(Record(message.topic, 0, 0, 0, *message[1:])) == event
    assert event_type(message.headers) == type
    assert message.key == event.partitionkey


def test_an_event_goes_to_the_topic_of_its_type() -> None:
    assert encode(told()).topic == "rapport.feedback"
    assert encode(told(), "rapport.inbound").topic == "rapport.inbound"


def test_times_of_other_zones_are_the_same_moments_in_utc() -> None:
    event = decode(record(ce_time=b"2026-03-02T15:30:00+03:30"))
    assert event.time == NOON
    assert event.time.tzinfo is UTC
    assert decode(record(ce_time=b"2026-03-02T12:00:00Z")).time == NOON


def test_what_a_foreign_writer_leaves_out_is_filled_in() -> None:
    event = decode(
        record(ce_subject=None, ce_partitionkey=None, ce_correlationid=None, ce_hops=None)
    )
    assert (event.subject, event.partitionkey, event.correlationid, event.hops) == (
        "",
        "c1",
        "e1",
        0,
    )


def test_unknown_fields_and_headers_of_newer_writers_are_ignored() -> None:
    assert decode(record(with_data(mood="new"), ce_mood=b"new", trace=b"\xff")) == told()


# The oracle


@pytest.mark.parametrize("type", sorted(CATALOGUE))
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_the_sdk_reads_what_we_write(type: str, data: st.DataObject) -> None:
    event = data.draw(events_of(type))
    message = encode(event, CASES.name)
    assert message.value is not None
    read = from_binary(
        KafkaMessage(dict(message.headers), message.key, message.value), JSONFormat()
    )
    assert attributes_of(read) == attributes_of_ours(event)
    assert read.get_data() == json.loads(message.value)

    read = JSONFormat().read(None, json.dumps(structured(event)))
    assert attributes_of(read) == attributes_of_ours(event) | trace_of(event)
    assert read.get_data() == json.loads(message.value)


@pytest.mark.parametrize("type", sorted(CATALOGUE))
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_we_read_what_the_sdk_writes(type: str, data: st.DataObject) -> None:
    event = data.draw(events_of(type))
    attributes = attributes_of_ours(event) | {"time": event.time}
    message = to_binary(CloudEvent(attributes, event.data.model_dump(mode="json")), JSONFormat())
    headers = tuple(message.headers.items())
    if event.traceparent is not None:
        headers += (("traceparent", event.traceparent.encode()),)
    assert decode(Message(CASES.name, event.partitionkey, message.value, headers)) == event


def attributes_of(event: BaseCloudEvent) -> dict[str, Any]:
    """Return the attributes that the SDK read, as the text of CloudEvents' canonical form."""
    attributes = event.get_attributes() | {"time": str(event.get_time())}
    return {name: _canonical(value) for name, value in attributes.items()}


def attributes_of_ours(event: Event[EventData]) -> dict[str, Any]:
    attributes = {
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": str(event.time),
        "partitionkey": event.partitionkey,
        "correlationid": event.correlationid,
        "causationid": event.causationid,
        "sequence": event.sequence,
        "exercise": event.exercise,
        "historical": "true" if event.historical else None,
        "hops": str(event.hops),
        "redrive": event.redrive,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def trace_of(event: Event[EventData]) -> dict[str, str]:
    """Return the trace context: an extension in JSON, a header without prefix in Kafka."""
    return {} if event.traceparent is None else {"traceparent": event.traceparent}


def _canonical(value: Any) -> str:
    return "true" if value is True else str(value)


# Poison

POISON: Final = {
    "no value": (Record("t", 0, 0, 0, "k", None, tuple(encode(told()).headers)), "no value"),
    "no headers": (Record("t", 0, 0, 0, None, SECRET.encode(), ()), "ce_specversion is missing"),
    "no id": (record(ce_id=None), "ce_id is missing"),
    "empty source": (record(ce_source=b""), "ce_source is missing"),
    "no type": (record(ce_type=None), "ce_type is missing"),
    "no time": (record(ce_time=None), "ce_time is missing"),
    "other version": (record(ce_specversion=SECRET.encode()), "ce_specversion is not 1.0"),
    "unknown type": (record(ce_type=SECRET.encode()), "not known here"),
    "broken header": (record(ce_id=SECRET.encode() + b"\xff"), "not UTF-8"),
    "no time at all": (record(ce_time=SECRET.encode()), "not of its type"),
    "time without a zone": (record(ce_time=b"2026-03-02T12:00:00"), "not of its type"),
    "time before all times": (record(ce_time=b"0001-01-01T00:00:00+14:00"), "not of its type"),
    "hops that are no number": (record(ce_hops=SECRET.encode()), "not of its type"),
    "no JSON": (record(SECRET.encode()), "the whole: json_invalid"),
    "broken UTF-8": (record(b'{"text": "' + SECRET.encode() + b'\xff"}'), "json_invalid"),
    "lone surrogate": (record(b'{"text": "' + SECRET.encode() + b'\\ud800"}'), "json_invalid"),
    "deep JSON": (record(b"[" * 100_000), "json_invalid"),
    "another shape": (record(json.dumps([SECRET]).encode()), "the whole: model_type"),
    "wrong field": (record(with_data(kind=SECRET)), "/kind: enum"),
    "wrong time": (record(with_data(occurred_at=SECRET)), "/occurred_at: datetime_"),
    "time out of range": (
        record(with_data(occurred_at="0001-01-01T00:00:00+14:00")),
        "/occurred_at: value_error",
    ),
    "wrong key": (record(with_data(contact={"handles": {SECRET: 5}})), "/contact: string_type"),
}


@pytest.mark.parametrize("name", POISON)
def test_poison_says_what_is_wrong_and_not_what_it_holds(name: str) -> None:
    poison, reason = POISON[name]
    with pytest.raises(Undecodable) as caught:
        decode(poison)
    assert reason in caught.value.reason
    assert "ana@" not in caught.value.reason
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


headers = st.lists(
    st.tuples(st.sampled_from([name for name, _ in encode(told()).headers]), st.binary(max_size=9)),
    max_size=3,
)


@given(st.binary(max_size=30) | st.just(with_data()), headers)
def test_anything_else_than_an_event_is_undecodable(value: bytes, changes: Headers) -> None:
    try:
        event = decode(record(value, **dict(changes)))
    except Undecodable:
        return
    assert event.time.tzinfo is UTC
    assert isinstance(event.data, FeedbackReceived)


WHOLE = encode(told())


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that were cut into, and had something put in, in a few places."""
    for _ in range(draw(st.integers(1, 3))):
        at, cut = draw(st.integers(0, len(content))), draw(st.integers(0, 6))
        piece = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"]", b"null", b"9" * 999])
        )
        content = content[:at] + piece + content[at + cut :]
    return content


@given(st.data())
def test_no_change_to_an_events_bytes_breaks_the_codec(data: st.DataObject) -> None:
    assert WHOLE.value is not None
    headers = list(WHOLE.headers)
    for place in data.draw(st.lists(st.integers(0, len(headers) - 1), max_size=2)):
        name, value = headers[place]
        headers[place] = name, data.draw(changed(value))
    value = data.draw(st.just(WHOLE.value) | changed(WHOLE.value))
    try:
        event = decode(Record("rapport.feedback", 0, 0, 0, None, value, tuple(headers)))
    except Undecodable:
        return
    assert decode(encode(event)) == event


# Packed headers

pairs = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(["\0", "\1", "\1a"]),
        st.binary(max_size=5) | st.sampled_from([b"\0", b"\1", b"\1a", b"\1b", b"\0\1b"]),
    ),
    max_size=5,
).map(tuple)


@given(pairs)
def test_packed_headers_are_the_headers(headers: tuple[tuple[str, bytes], ...]) -> None:
    packed = pack(headers)
    assert tuple(packed) == headers
    assert packed == headers
    assert pack(packed) is packed
    assert PackedHeaders(packed.names, packed.values) == packed
    assert packed != (*headers, ("one", b"more"))
