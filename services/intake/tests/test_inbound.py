"""Other systems publish to `rapport.inbound`: what can be read becomes feedback, the rest waits."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rapport.common import tracing
from rapport.common.bus.port import MESSAGE_LIMIT
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.dead_letters import EventDeadLettered, told
from rapport.common.events.topics import DEAD_LETTERS, INBOUND
from rapport.common.testing import MORNING, Harness, harness
from rapport.intake.service import SERVICE

from .sending import EVENTS, LEAK, complaint, received, send

SUBMITTED = "rapport.feedback.submitted.v1"
BINARY = {
    "content-type": "application/json",
    "ce_specversion": "1.0",
    "ce_id": "e-1",
    "ce_source": "/shop",
    "ce_type": SUBMITTED,
}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PARCELS = """
about: What the parcel service tells of deliveries that went wrong
events: [com.parcels.delivery.*]
each: notes
always: {kind: complaint, channel: partner}
fields: {source: $.source, source_ref: ref, text: words, occurred_at: {from: at, date: unix}}
"""


def record(
    value: Any, headers: Mapping[str, str | bytes] = BINARY, key: str | None = None
) -> Message:
    """Return a record as another system publishes it; what is not bytes becomes JSON."""
    body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    named = [
        (name, text if isinstance(text, bytes) else text.encode()) for name, text in headers.items()
    ]
    return Message(INBOUND.name, key, body, tuple(named))


def binary(id: str = "e-1", data: Any = None, **attributes: str) -> Message:
    """Return an event in binary mode, by default with a complaint."""
    named = {f"ce_{name}": text for name, text in attributes.items()}
    return record(data or complaint(), {**BINARY, "ce_id": id, **named})


def structured(**attributes: Any) -> Message:
    """Return an event in structured mode, by default with a complaint."""
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": SUBMITTED}
    return record(event | {"data": complaint()} | attributes, STRUCTURED)


def parcels(*notes: dict[str, Any], id: str = "p-1") -> Message:
    """Return the parcel service's event with these notes."""
    return binary(id, {"notes": list(notes)}, type="com.parcels.delivery.failed", source="/parcels")


def dead(intake: Harness) -> list[EventDeadLettered]:
    """Return what the dead letters tell."""
    records = [item for item in intake.bus.records if item.topic == DEAD_LETTERS.name]
    return [told(item).data for item in records]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of mappings of somebody's own."""
    (tmp_path / "parcels.yaml").write_text(PARCELS)
    return tmp_path


NAMES: Final = {"feedback_id", "reference", "case_id"}


async def test_an_event_in_either_mode_becomes_the_feedback_that_it_becomes_over_http(
    intake: Harness,
) -> None:
    http = {name.replace("ce_", "ce-"): text for name, text in BINARY.items()}
    await send(intake, EVENTS, as_="/shop", json=complaint(), headers=http)
    await intake.deliver([binary(), structured()])
    over_http, in_headers, in_one_piece = received(intake)
    assert in_headers == in_one_piece
    assert over_http.data.model_dump(exclude=NAMES) == in_headers.data.model_dump(exclude=NAMES)
    assert (in_headers.data.client, in_headers.data.text) == ("/shop", LEAK)


async def test_an_event_that_comes_twice_is_one_message_in_one_case(intake: Harness) -> None:
    await intake.deliver([binary(), binary()])
    assert len({told.id for told in received(intake)}) == 1
    assert len({told.data.case_id for told in received(intake)}) == 1


async def test_nobody_with_a_token_writes_into_a_conversation_of_the_bus(intake: Harness) -> None:
    http = {name.replace("ce_", "ce-"): text for name, text in BINARY.items()}
    await send(intake, EVENTS, as_="/shop", json=complaint(), headers=http)
    await intake.deliver([binary()])
    by_token, on_the_bus = received(intake)
    assert by_token.id != on_the_bus.id
    assert by_token.data.case_id != on_the_bus.data.case_id


async def test_references_of_one_system_are_never_taken_for_those_of_another(
    intake: Harness,
) -> None:
    await intake.deliver([binary("1"), binary("2"), binary("1", source="/other")])
    await send(intake, "/intake/v1/feedback", as_="/shop", json=complaint())
    same, again, other, client = (told.data.case_id for told in received(intake))
    assert same == again
    assert len({same, other, client}) == 3


async def test_an_event_of_somebody_elses_is_read_by_the_mapping_that_serves_it(
    folder: Path,
) -> None:
    async with harness(SERVICE, mapping_dir=folder) as intake:
        await intake.deliver(
            [parcels({"ref": "P-1", "words": "Wet."}, {"ref": "P-2", "words": "Lost."})]
        )
        assert [(told.data.source_ref, told.data.text) for told in received(intake)] == [
            ("P-1", "Wet."),
            ("P-2", "Lost."),
        ]
        assert dead(intake) == []


async def test_the_clocks_of_a_case_count_from_when_the_bus_got_the_event(intake: Harness) -> None:
    message = binary()
    hours_ago = int((MORNING - timedelta(hours=3)).timestamp() * 1000)
    late = Record(INBOUND.name, 0, 0, hours_ago, *message[1:])
    await intake.running.pipeline.handle([late])
    (event,) = received(intake)
    assert event.time == event.data.received_at == MORNING - timedelta(hours=3)


@pytest.mark.parametrize(
    "timestamp", [-1, 0, -(2**63), int((MORNING + timedelta(hours=1)).timestamp() * 1000)]
)
async def test_a_timestamp_that_says_nothing_counts_as_now(intake: Harness, timestamp: int) -> None:
    await intake.running.pipeline.handle([Record(INBOUND.name, 0, 0, timestamp, *binary()[1:])])
    assert received(intake)[0].time == MORNING


async def test_a_drill_and_the_past_stay_what_they_are(intake: Harness) -> None:
    then = complaint(occurred_at="2020-02-02T02:02:02Z")
    await intake.deliver(
        [
            binary("1", exercise="spring"),
            structured(id="1", exercise="spring"),
            binary("2", then, historical="true"),
            structured(id="2", data=then, historical=True),
            structured(id="2", data=complaint(occurred_at="2020-02-02T02:02:02Z", historical=True)),
            binary("3", historical="false"),
        ]
    )
    drill, same_drill, *past, present = received(intake)
    assert drill == same_drill
    assert (drill.exercise, drill.historical) == ("spring", False)
    assert [(told.historical, told.data.occurred_at.year) for told in past] == [(True, 2020)] * 3
    assert (present.exercise, present.historical) == (None, False)
    assert len({told.data.case_id for told in received(intake)}) == 2


async def test_a_mapping_reads_what_is_historical_too(folder: Path) -> None:
    message = parcels({"ref": "P-1", "words": "Wet.", "at": 1_580_608_922})
    past = message._replace(headers=(*message.headers, ("ce_historical", b"true")))
    async with harness(SERVICE, mapping_dir=folder) as intake:
        await intake.deliver([past])
        assert received(intake)[0].historical


async def test_the_trace_of_a_record_goes_on(intake: Harness) -> None:
    traced = record(complaint(), {**BINARY, "traceparent": TRACE})
    odd = record(complaint(), {**BINARY, "traceparent": b"\xff" * 1_000})
    await intake.deliver([traced, odd])
    assert [told.traceparent for told in received(intake)] == [TRACE, None]


async def test_a_redrive_is_read_by_the_group_that_it_is_for(intake: Harness) -> None:
    await intake.deliver(
        [
            record(complaint(), {**BINARY, "ce_redrive": "intake"}),
            record(complaint(), {**BINARY, "ce_redrive": "routing"}),
            record(json.loads(structured().value or b""), {**STRUCTURED, "ce_redrive": "intake"}),
            record(b"poison", {**BINARY, "ce_redrive": "routing"}),
        ]
    )
    assert [told.id for told in received(intake)] == [received(intake)[0].id] * 2
    assert dead(intake) == []


ODD = json.dumps(complaint(text="odd")).encode()
SECRET = "ana@example.org"

POISON: dict[str, tuple[Message, str, str]] = {
    "no headers": (record(ODD, {}), "Invalid", "/specversion is required"),
    "foreign headers": (record(ODD, {"__TypeId__": "com.x.Y"}), "Invalid", "/id is required"),
    "headers of http": (record(ODD, {"ce-id": "1", "ce-type": "x"}), "Invalid", "/id is required"),
    "a header that is not text": (
        record(ODD, {**BINARY, "ce_id": b"\xff"}),
        "Malformed",
        "a header of the record is not UTF-8",
    ),
    "an unknown version": (
        record(ODD, {**BINARY, "ce_specversion": "0.3"}),
        "Invalid",
        "/specversion must be '1.0'",
    ),
    "an unknown type": (
        record(ODD, {**BINARY, "ce_type": "com.example.order.placed.v1"}),
        "Invalid",
        "com.example.order.placed.v1 is served by no mapping",
    ),
    "an unknown version of a type": (
        record(ODD, {**BINARY, "ce_type": "rapport.feedback.submitted.v2"}),
        "Invalid",
        "/type rapport.feedback.submitted.v2 is served by no mapping",
    ),
    "one of our own events": (
        record(ODD, {**BINARY, "ce_type": "rapport.feedback.received.v1"}),
        "Invalid",
        "served by no mapping",
    ),
    "no value": (record(None), "Malformed", "the record has no value"),
    "no value at all": (record(None, {}), "Malformed", "the record has no value"),
    "an empty value": (record(b""), "Invalid", "must be an object"),
    "broken JSON": (record(b'{"kind": '), "Malformed", "is not JSON"),
    "no JSON": (record(b"\xff\x00\x01"), "Malformed", "is not JSON"),
    "a key twice": (record(b'{"kind": "x", "kind": "y"}'), "Malformed", "/kind is given twice"),
    "broken text": (record(b'{"text": "\xff"}'), "Malformed", "/text is not valid Unicode"),
    "nested too deep": (record(b"[" * 5_000), "Malformed", "is nested deeper"),
    "null": (record(b"null"), "Invalid", "must be an object"),
    "a list": (record([complaint()]), "Invalid", "must be an object"),
    "wrong types": (record(complaint(text=7)), "Invalid", "/text must be text"),
    "a word that is none": (record(complaint(kind="rant")), "Invalid", "/kind must be one of"),
    "a field that is none": (
        record(complaint(**{SECRET: 1})),
        "Invalid",
        "/... is not a field that can be sent",
    ),
    "a network that is none": (
        record(complaint(contact={"handles": {SECRET: "x"}})),
        "Invalid",
        "/contact/handles/... is not the name of a network",
    ),
    "something else than JSON": (
        record(ODD, {**BINARY, "content-type": "application/avro"}),
        "Invalid",
        "/datacontenttype must be JSON",
    ),
    "a time that is none": (
        record(ODD, {**BINARY, "ce_time": "yesterday"}),
        "Invalid",
        "/time is not a date and time",
    ),
    "a time without a zone": (
        record(ODD, {**BINARY, "ce_time": "2026-03-02T08:00:00"}),
        "Invalid",
        "/time is not a date and time",
    ),
    "an event of the future": (
        record(ODD, {**BINARY, "ce_time": "2999-01-01T00:00:00Z"}),
        "Invalid",
        "/time is more than a day in the future",
    ),
    "said in the future": (
        record(complaint(occurred_at="2999-01-01T00:00:00Z")),
        "Invalid",
        "/occurred_at is more than a day in the future",
    ),
    "a drill that is none": (
        record(ODD, {**BINARY, "ce_exercise": "a b"}),
        "Invalid",
        "/exercise must be at most 100 letters",
    ),
    "historical or not": (
        record(ODD, {**BINARY, "ce_historical": "maybe"}),
        "Invalid",
        "/historical must be true or false",
    ),
    "historical without a time": (
        record(complaint(), {**BINARY, "ce_historical": "true"}),
        "Invalid",
        "is historical and needs occurred_at",
    ),
    "an id without end": (
        record(ODD, {**BINARY, "ce_id": "1" * 30_000}),
        "Invalid",
        "/id is longer than 500 characters",
    ),
    "an absurd size": (
        record(b'"' + b"x" * MESSAGE_LIMIT + b'"'),
        "TooLarge",
        "the record is over 1,000,000 bytes",
    ),
    "broken, in structured mode": (record(b"{", STRUCTURED), "Malformed", "is not JSON"),
    "nothing, in structured mode": (record({}, STRUCTURED), "Invalid", "/source is required"),
    "a list, in structured mode": (record([], STRUCTURED), "Invalid", "must be an object"),
    "wrong types, in structured mode": (structured(id=5), "Invalid", "/id must be text"),
    "a secret name, in structured mode": (
        record(b'{"%s": 1, "%s": 2}' % ((SECRET.encode(),) * 2), STRUCTURED),
        "Malformed",
        "/... is given twice",
    ),
    "structured, but does not say so": (
        record(json.loads(structured().value or b""), {"content-type": "application/json"}),
        "Invalid",
        "/specversion is required",
    ),
    "a batch": (
        record(
            [json.loads(structured().value or b"")],
            {"content-type": "application/cloudevents-batch+json"},
        ),
        "Invalid",
        "/specversion is required",
    ),
}


@pytest.mark.parametrize("name", POISON)
async def test_what_cannot_be_read_is_put_aside_with_its_cause_and_the_next_is_read(
    intake: Harness, name: str
) -> None:
    poison, cause, reason = POISON[name]
    await intake.deliver([binary("before"), poison, binary("after")])
    assert len(received(intake)) == 2
    (letter,) = dead(intake)
    assert letter.cause.rpartition(".")[2] == cause
    assert reason in letter.reason
    assert SECRET not in letter.reason
    assert (letter.topic, letter.partition, letter.offset) == (INBOUND.name, 0, 1)
    assert letter.group == "intake"


async def test_a_dead_letter_is_the_record_as_it_was(intake: Harness) -> None:
    poison = record(b"\xff", {**BINARY, "x-own": b"\x00\xff"}, key="k-1")
    await intake.deliver([poison])
    (letter,) = [item for item in intake.bus.records if item.topic == DEAD_LETTERS.name]
    assert (letter.key, letter.value) == (poison.key, poison.value)
    assert set(poison.headers) <= set(letter.headers)


async def test_of_what_is_too_large_for_a_dead_letter_the_rest_is_kept(intake: Harness) -> None:
    await intake.deliver(
        [record(b"x" * (MESSAGE_LIMIT + 1)), record(b"x", key="k" * MESSAGE_LIMIT)]
    )
    letters = [item for item in intake.bus.records if item.topic == DEAD_LETTERS.name]
    assert [(item.key, item.value) for item in letters] == [(None, None)] * 2
    headers = dict(letters[0].headers)
    assert headers["kafka_dlt-left-out"] == b"key and value, 1000001 bytes"
    assert headers["ce_id"] == b"e-1"


async def test_a_record_of_the_future_is_put_aside(intake: Harness) -> None:
    tomorrow = int((MORNING + timedelta(days=1, seconds=1)).timestamp() * 1000)
    await intake.running.pipeline.handle([Record(INBOUND.name, 3, 9, tomorrow, *binary()[1:])])
    (letter,) = dead(intake)
    assert letter.reason == "the record's timestamp is more than a day in the future"
    assert (letter.partition, letter.offset) == (3, 9)


async def test_of_a_partly_bad_event_the_good_items_go_through_and_the_first_bad_one_is_named(
    folder: Path,
) -> None:
    notes: list[dict[str, Any]] = [
        {"ref": "P-1", "words": "Wet."},
        {"ref": "P-2", "words": "Lost.", "at": "soon"},
        {"ref": "P-3"},
        {"ref": "P-4", "words": "Open."},
    ]
    async with harness(SERVICE, mapping_dir=folder) as intake:
        await intake.deliver([parcels(*notes)])
        (letter,) = dead(intake)
        assert letter.reason == (
            "item 1: mapping parcels cannot read the document: /at is not a date like unix"
        )
        first = received(intake)
        assert [told.data.source_ref for told in first] == ["P-1", "P-4"]

        notes[1]["at"], notes[2]["words"] = 1_580_608_922, "Late."
        await intake.deliver([parcels(*notes)])
        again = received(intake)[2:]
        assert [told.id for told in again if told.id in {event.id for event in first}] == [
            told.id for told in first
        ]
        assert len({told.id for told in again}) == 4


async def test_a_record_may_bring_a_thousand_items_and_no_more(folder: Path) -> None:
    notes = [{"ref": str(number), "words": "Wet."} for number in range(1_001)]
    async with harness(SERVICE, mapping_dir=folder) as intake:
        await intake.deliver([parcels(*notes), parcels(*notes[:-1], id="p-2")])
        assert len(received(intake)) == 1_000
        assert dead(intake)[0].reason == "at most 1,000 items are taken at once"


async def test_a_batch_of_poison_neither_stops_nor_loses_what_is_good(intake: Harness) -> None:
    kinds = [poison for name, (poison, _, _) in POISON.items() if name != "an absurd size"]
    poison = [kinds[number % len(kinds)] for number in range(1_000)]
    good = [binary(f"good {number}", complaint(source_ref=str(number))) for number in range(20)]
    for place, message in enumerate(good):
        poison.insert(place * 51, message)
    await intake.deliver(poison)
    assert [told.data.source_ref for told in received(intake)] == [str(n) for n in range(20)]
    assert len(dead(intake)) == 1_000
    assert len({letter.offset for letter in dead(intake)}) == 1_000


async def test_senders_see_how_what_came_over_the_bus_stands(intake: Harness) -> None:
    await intake.deliver([binary(source="web-shop")])
    (event,) = received(intake)
    status = await intake.call(
        "GET", f"/intake/v1/feedback/{event.id}", as_="web-shop", roles=["publisher"]
    )
    assert (status.status_code, status.json()["state"]) == (200, "received")
    other = await intake.call(
        "GET", f"/intake/v1/feedback/{event.id}", as_="other", roles=["publisher"]
    )
    assert other.status_code == 404


async def test_while_the_bus_is_in_trouble_records_wait_and_nothing_is_lost(
    intake: Harness,
) -> None:
    publish = intake.bus.publish
    naps: list[float] = []

    async def refuse(messages: object) -> None:
        raise TemporaryError("the bus is in trouble", 2.0)

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        intake.bus.publish = publish  # type: ignore[method-assign]

    intake.bus.publish = refuse  # type: ignore[method-assign]
    intake.clock.sleep = nap  # type: ignore[method-assign]
    await intake.deliver([binary("1"), record(b"poison"), binary("2")])
    assert naps == [2.0]
    assert len(received(intake)) == 2
    assert len(dead(intake)) == 1


async def test_what_a_record_brings_and_what_becomes_of_it_is_one_story(intake: Harness) -> None:
    exporter = InMemorySpanExporter()
    tracing.use(SimpleSpanProcessor(exporter))
    try:
        traced = record(complaint(), {**BINARY, "traceparent": TRACE})
        poison = record(b"poison", {**BINARY, "traceparent": TRACE})
        await intake.deliver([traced, poison, binary("untraced")])
    finally:
        tracing.shutdown()
    first, second = received(intake)
    assert first.traceparent is not None
    assert second.traceparent is not None
    assert (
        first.traceparent.split("-")[1] == TRACE.split("-")[1] != second.traceparent.split("-")[1]
    )
    spans = [
        span for span in exporter.get_finished_spans() if span.name == "process rapport.inbound"
    ]
    ours = [span for span in spans if f"{span.context.span_id:016x}" in first.traceparent]
    assert [f"{span.parent.span_id:016x}" for span in ours if span.parent] == [TRACE.split("-")[2]]
    assert [
        span.attributes["error.type"] for span in spans if not span.status.is_ok and span.attributes
    ] == ["Malformed"]
