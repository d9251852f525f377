"""Feedback in other people's form: CloudEvents in every mode, and hooks read by a mapping."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from rapport.common.testing import Harness, harness
from rapport.intake.service import SERVICE

from .sending import EVENTS, HOOKS, complaint, problem, reasons, received, send

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCHED = {"Content-Type": "application/cloudevents-batch+json"}
BINARY = {
    "Content-Type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "e-1",
    "ce-source": "/shop",
    "ce-type": "rapport.feedback.submitted.v1",
}

SHIPMENTS = """
about: What the parcel service tells of deliveries that went wrong
events: [com.parcels.delivery.*]
each: notes
always: {kind: complaint, channel: partner}
fields: {source: $.source, source_ref: ref, text: words}
"""


def event(**attributes: Any) -> dict[str, Any]:
    """Return a CloudEvent in structured mode, with a complaint as its data."""
    document = {"specversion": "1.0", "id": "e-1", "source": "/shop", "data": complaint()}
    return document | {"type": "rapport.feedback.submitted.v1"} | attributes


def parcels(*notes: dict[str, str], **attributes: Any) -> dict[str, Any]:
    """Return the parcel service's event with these notes."""
    kind = "com.parcels.delivery.failed"
    return event(type=kind, source="/parcels", data={"notes": list(notes)}, **attributes)


def message(id: str, **fields: Any) -> dict[str, Any]:
    """Return one message as the listening tool posts it."""
    document = {"id": id, "network": "telegram", "conversation_id": "C-1", "sent_at": 1772438400}
    author = {"name": "Ana", "handle": "@ana", "role": "customer"}
    return document | {"about": "complaint", "text": "It leaks.", "author": author} | fields


def listening(*messages: dict[str, Any], kind: str = "message.created") -> dict[str, Any]:
    """Return the listening tool's payload."""
    return {"event": kind, "account": {"brand": "Kettleworks"}, "messages": list(messages)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of mappings of somebody's own."""
    (tmp_path / "parcels.yaml").write_text(SHIPMENTS)
    return tmp_path


# CloudEvents


async def test_an_event_is_the_same_message_in_every_mode(intake: Harness) -> None:
    in_headers = await send(intake, EVENTS, json=complaint(), headers=BINARY)
    structured = await send(intake, EVENTS, json=event(), headers=STRUCTURED)
    encoded = b64encode(json.dumps(complaint()).encode()).decode()
    as_bytes = event(data_base64=encoded)
    del as_bytes["data"]
    in_base64 = await send(intake, EVENTS, json=as_bytes, headers=STRUCTURED)
    batch = await send(intake, EVENTS, json=[event()], headers=BATCHED)
    assert [answer.status_code for answer in (in_headers, structured, in_base64)] == [202] * 3
    assert in_headers.json() == structured.json() == in_base64.json()
    assert (batch.status_code, batch.json()["accepted"]) == (207, 1)
    assert {told.id for told in received(intake)} == {in_headers.json()["id"]}


async def test_an_event_is_known_by_source_and_id_whatever_it_says(intake: Harness) -> None:
    first = await send(intake, EVENTS, json=event(), headers=STRUCTURED)
    changed = event(data=complaint(text="Corrected."))
    same = await send(intake, EVENTS, json=changed, headers=STRUCTURED)
    other = await send(intake, EVENTS, json=event(id="e-2"), headers=STRUCTURED)
    assert first.json()["id"] == same.json()["id"] != other.json()["id"]


async def test_an_event_can_be_part_of_a_drill(intake: Harness) -> None:
    await send(intake, EVENTS, json=event(exercise="spring"), headers=STRUCTURED)
    await send(intake, EVENTS, json=complaint(), headers=BINARY | {"ce-exercise": "spring"})
    await send(intake, EVENTS, json=event(), headers=STRUCTURED | {"X-Rapport-Exercise": "spring"})
    await send(intake, EVENTS, json=event(), headers=STRUCTURED)
    *drill, real = received(intake)
    assert [told.exercise for told in drill] == ["spring"] * 3
    assert len({told.id for told in drill}) == 1
    assert real.id != drill[0].id


@pytest.mark.parametrize("headers", [STRUCTURED, BATCHED, BINARY])
async def test_a_type_that_nothing_serves_is_named(
    intake: Harness, headers: dict[str, str]
) -> None:
    kind = "com.example.order.placed"
    if headers is BINARY:
        answer = await send(intake, EVENTS, json={}, headers=BINARY | {"ce-type": kind})
    elif headers is STRUCTURED:
        answer = await send(intake, EVENTS, json=event(type=kind), headers=STRUCTURED)
    else:
        answer = await send(intake, EVENTS, json=[event(type=kind)], headers=BATCHED)
    refused = answer.json()["items"][0]["problem"] if headers is BATCHED else problem(answer, 422)
    assert reasons(refused) == {"/type": f"{kind} is served by no mapping"}
    assert not received(intake)


@pytest.mark.parametrize(
    ("attributes", "status", "pointer", "reason"),
    [
        ({"specversion": "0.3"}, 422, "/specversion", "must be '1.0'"),
        ({"id": ""}, 422, "/id", "must not be empty"),
        ({"source": 5}, 422, "/source", "must be text"),
        ({"type": "x" * 501}, 422, "/type", "is longer than 500 characters"),
        ({"exercise": "a b"}, 422, "/exercise", "must be at most 100 letters"),
        ({"datacontenttype": "text/plain"}, 422, "/datacontenttype", "must be JSON"),
        ({"data_base64": "?"}, 400, "/data_base64", "is not Base64"),
        ({"data_base64": "ew=="}, 400, "", "is not JSON"),
        ({"data": None}, 422, "", "must be an object"),
        ({"data": {"kind": "rant"}}, 422, "/kind", "must be one of"),
    ],
)
async def test_what_is_wrong_with_an_event_is_named(
    intake: Harness, attributes: dict[str, Any], status: int, pointer: str, reason: str
) -> None:
    answer = await send(intake, EVENTS, json=event(**attributes), headers=STRUCTURED)
    assert reasons(problem(answer, status))[pointer].startswith(reason)
    assert not received(intake)


async def test_an_event_without_its_headers_lacks_every_attribute(intake: Harness) -> None:
    refused = problem(await send(intake, EVENTS, json=complaint()), 422)
    assert set(reasons(refused)) == {"/specversion", "/id", "/source", "/type"}


async def test_in_a_batch_of_events_the_good_ones_go_through(intake: Harness) -> None:
    documents = [event(), event(id=""), event(id="e-2", type="x"), 7, event(id="e-3")]
    answer = (await send(intake, EVENTS, json=documents, headers=BATCHED)).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 3)
    assert [sorted(reasons(item.get("problem", {}))) for item in answer["items"]] == [
        [],
        ["/id"],
        ["/type"],
        [""],
        [],
    ]


async def test_an_event_of_somebody_elses_is_read_by_the_mapping_that_serves_it(
    folder: Path,
) -> None:
    async with harness(SERVICE, mapping_dir=folder) as intake:
        note = {"ref": "P-1", "words": "The parcel was wet."}
        one = await send(intake, EVENTS, json=parcels(note), headers=STRUCTURED)
        assert one.status_code == 202
        (told,) = received(intake)
        assert (told.data.source, told.data.source_ref) == ("/parcels", "P-1")


async def test_an_event_that_brings_several_is_answered_item_by_item(folder: Path) -> None:
    async with harness(SERVICE, mapping_dir=folder) as intake:
        notes = [{"ref": "P-1", "words": "Wet."}, {"ref": "P-2"}, {"ref": "P-3", "words": "Lost."}]
        answer = await send(intake, EVENTS, json=parcels(*notes), headers=STRUCTURED)
        assert answer.status_code == 207
        items = answer.json()["items"]
        assert [(item["index"], "id" in item) for item in items] == [
            (0, True),
            (1, False),
            (2, True),
        ]
        batch = await send(intake, EVENTS, json=[event(), parcels(*notes)], headers=BATCHED)
        places = [(item["index"], item.get("position")) for item in batch.json()["items"]]
        assert places == [(0, None), (1, 0), (1, 1), (1, 2)]
        assert [item.get("id") for item in batch.json()["items"][1:]] == [
            item.get("id") for item in items
        ]


async def test_an_event_that_brings_nothing_is_answered_with_nothing(folder: Path) -> None:
    async with harness(SERVICE, mapping_dir=folder) as intake:
        answer = await send(intake, EVENTS, json=parcels(), headers=STRUCTURED)
        assert (answer.status_code, answer.json()["items"]) == (207, [])


async def test_the_mapping_for_social_networks_serves_its_events(intake: Harness) -> None:
    told = event(type="social.message.created", data=listening(message("M-1")))
    answer = await send(intake, EVENTS, json=told, headers=STRUCTURED)
    assert answer.status_code == 202, answer.text
    assert received(intake)[0].data.brand == "Kettleworks"


# Hooks


async def test_a_hook_is_read_by_its_mapping(intake: Harness) -> None:
    body = listening(message("M-1"))
    answer = await send(intake, f"{HOOKS}/social_webhook", json=body)
    assert answer.status_code == 202, answer.text
    (told,) = received(intake)
    assert told.id == answer.json()["id"]
    assert (told.data.kind, told.data.channel, told.data.brand) == (
        "complaint",
        "chat",
        "Kettleworks",
    )
    assert told.data.contact.handles == {"social": "@ana"}
    repeat = await send(intake, f"{HOOKS}/social_webhook", json=body)
    assert repeat.json() == answer.json()


async def test_a_hook_that_brings_several_is_answered_item_by_item(intake: Harness) -> None:
    echo = message("M-2", author={"role": "agent"})
    body = listening(message("M-1"), echo, message("M-3", text=5, sent_at="soon"), message("M-4"))
    answer = (await send(intake, f"{HOOKS}/social_webhook", json=body)).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert [item["index"] for item in answer["items"]] == [0, 2, 3]
    assert reasons(answer["items"][1]["problem"]) == {"/sent_at": "is not a date like unix"}


async def test_a_hook_that_brings_nothing_of_interest_is_answered_kindly(intake: Harness) -> None:
    body = listening(message("M-1"), kind="typing")
    answer = await send(intake, f"{HOOKS}/social_webhook", json=body)
    assert (answer.status_code, answer.json()["items"]) == (207, [])


async def test_a_refusal_is_told_in_the_senders_own_names(intake: Harness) -> None:
    body = listening(message("M-1", url="javascript:alert(1)"))
    refused = problem(await send(intake, f"{HOOKS}/social_webhook", json=body), 422)
    assert reasons(refused) == {
        "/url": "is not a web address (http or https) (taken from url)",
    }


async def test_a_hook_without_a_mapping_is_not_there(intake: Harness) -> None:
    refused = problem(await send(intake, f"{HOOKS}/nobody", json={}), 404)
    assert refused["detail"] == "there is no such mapping"


async def test_a_hook_that_is_no_json_is_refused(intake: Harness) -> None:
    problem(await send(intake, f"{HOOKS}/social_webhook", content=b"payload=%7B%7D"), 400)
