"""Bad input: each kind has its defined answer, nothing of it is kept, and no value is repeated.

What arrives is read as JSON whatever its content type says, as a webhook's often is wrong; only a
batch looks at it, for NDJSON, and CloudEvents, for their modes.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.http import BODY_LIMIT, Front, operations
from rapport.common.testing import Harness, harness, token
from rapport.intake.domain import Submission
from rapport.intake.service import SERVICE

from .sending import (
    BATCH,
    EVENTS,
    FEEDBACK,
    HOOKS,
    complaint,
    problem,
    reasons,
    received,
    send,
)

SECRET = "s3cret"
"""Stands in every bad value, and may stand in no answer and no log line."""


@pytest.fixture(autouse=True)
def nothing_leaks(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Whatever a test sends, no log line has a value of it."""
    with structlog.testing.capture_logs() as entries:
        yield
    out, err = capfd.readouterr()
    assert SECRET not in f"{entries} {caplog.text} {out} {err}"


async def refused(
    intake: Harness, body: bytes, status: int, path: str = FEEDBACK, **call: Any
) -> dict[str, str]:
    """Send a body, which is refused whole; return the reasons by pointer."""
    answer = await send(intake, path, content=body, **call)
    assert SECRET not in answer.text
    assert not intake.bus.records
    return reasons(problem(answer, status))


def raw(**fields: Any) -> bytes:
    """Return a complaint as JSON."""
    return json.dumps(complaint(**fields)).encode()


def with_value(value: bytes) -> bytes:
    """Return a complaint whose text is `value`, written as it is."""
    return raw(text="?").replace(b'"?"', value)


PICTURE = {"name": SECRET, "media_type": "image/jpeg", "size": 9, "digest": "0a" * 32}

UNREADABLE = {
    "empty body": (b"", "", "is not JSON: EOF"),
    "no JSON": (b"kind=complaint&text=s3cret", "", "is not JSON"),
    "cut off": (raw(text=SECRET)[:-1], "", "is not JSON: EOF"),
    "something after it": (raw() + b" s3cret", "", "is not JSON: trailing characters"),
    "UTF-16": (raw().decode().encode("utf-16"), "", "is not JSON"),
    "compressed": (b"\x1f\x8b\x08\x00s3cret", "", "is not JSON"),
    "key given twice": (with_value(b'"a", "text": "s3cret"'), "/text", "is given twice"),
    "key given twice deep inside": (
        raw(contact={"name": "?"}).replace(b'"?"', b'"a", "name": "s3cret"'),
        "/contact/name",
        "is given twice",
    ),
    "NaN": (
        raw(rating={"value": float("nan"), "minimum": 1, "maximum": 5}),
        "/rating/value",
        "is NaN or Infinity",
    ),
    "Infinity": (raw(reach={"views": float("inf")}), "/reach/views", "is NaN or Infinity"),
    "broken UTF-8": (with_value(b'"s3cret \xff"'), "/text", "is not valid Unicode (UTF-8)"),
    "overlong UTF-8": (with_value(b'"s3cret \xc0\xaf"'), "/text", "is not valid Unicode (UTF-8)"),
    "broken UTF-8 in a name": (b'{"\xff": "s3cret"}', "/?", "has a name that is not UTF-8"),
    "lone surrogate": (raw(text="s3cret \ud83d"), "/text", "is not valid Unicode (UTF-8)"),
    "lone surrogate as bytes": (
        with_value(b'"s3cret \xed\xa0\x80"'),
        "/text",
        "is not valid Unicode (UTF-8)",
    ),
    "control character": (with_value(b'"s3cret\x01"'), "", "is not JSON: control character"),
    "deep": (
        with_value(b"[" * 40 + b'"s3cret"' + b"]" * 40),
        "",
        "is nested deeper than 32 levels",
    ),
    "very deep": (b'{"a":' * 200_000, "", "is nested deeper than 32 levels"),
    "a number of 5,000 digits": (with_value(b"9" * 5_000), "", "is not JSON: number out of range"),
}
"""What is 400: it cannot be read."""

UNACCEPTABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": ({"txet": SECRET}, "/txet", "is not a field that can be sent"),
    "unknown field inside": (
        {"contact": {"e-mail": SECRET}},
        "/contact/e-mail",
        "is not a field that can be sent",
    ),
    "no kind": ({"kind": None}, "/kind", "must be one of"),
    "unknown kind": ({"kind": SECRET}, "/kind", "must be one of"),
    "number for a text": ({"text": 5}, "/text", "must be text"),
    "list for a text": ({"text": [SECRET]}, "/text", "must be text"),
    "text for an object": ({"contact": SECRET}, "/contact", "must be an object"),
    "text for a number": ({"reach": {"views": SECRET}}, "/reach/views", "must be a whole number"),
    "text for a flag": ({"public": SECRET}, "/public", "must be true or false"),
    "year 0": ({"occurred_at": "0000-01-01T00:00:00Z"}, "/occurred_at", "must not be below"),
    "year 1": ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "/occurred_at", "must not be below"),
    "year 9999": ({"occurred_at": "9999-12-31T23:59:59Z"}, "/occurred_at", "is more than a day"),
    "year 10000 in UTC": (
        {"occurred_at": "9999-12-31T23:59:59-14:00"},
        "/occurred_at",
        "is not a date and time that exists",
    ),
    "year 99999": ({"occurred_at": "99999-01-01T00:00:00Z"}, "/occurred_at", "is not a date"),
    "31 February": ({"occurred_at": "2026-02-31T00:00:00Z"}, "/occurred_at", "is not a date"),
    "no time zone": ({"occurred_at": "2026-03-01T00:00:00"}, "/occurred_at", "needs a time and"),
    "seconds since 1970": ({"occurred_at": 1_772_438_400}, "/occurred_at", "must be a date"),
    "no date at all": ({"occurred_at": SECRET}, "/occurred_at", "is not a date and time"),
    "5 MB of text": (
        {"text": SECRET * 833_334},
        "/text",
        "is longer than 20,000 characters",
    ),
    "5 MB of text in Chinese": ({"text": "水" * 1_700_000}, "/text", "is longer than 20,000"),
    "long subject": ({"subject": SECRET * 51}, "/subject", "is longer than 300 characters"),
    "long reference": ({"source_ref": SECRET * 51}, "/source_ref", "is longer than 300 characters"),
    "many attachments": (
        {"attachments": [PICTURE] * 21},
        "/attachments",
        "holds more than 20 items",
    ),
    "huge number": ({"reach": {"views": 10**18}}, "/reach/views", "must not be above"),
    "number beyond 64 bits": ({"reach": {"views": 10**300}}, "/reach/views", "must not be above"),
    "control character in a reference": (
        {"source_ref": f"{SECRET}\x07"},
        "/source_ref",
        "holds a character that cannot be seen",
    ),
    "NUL in a handle": (
        {"contact": {"handles": {"x": f"{SECRET}\x00"}}},
        "/contact/handles/x",
        "holds a character that cannot be seen",
    ),
    "bidirectional override in a reference": (
        {"thread_ref": f"\u202e{SECRET}"},
        "/thread_ref",
        "holds a character that cannot be seen",
    ),
    "bidirectional override in an address": (
        {"contact": {"email": f"{SECRET}\u202e@example.org"}},
        "/contact/email",
        "holds a character that cannot be seen",
    ),
    "nothing but what cannot be seen": (
        {"text": "\u202e\u200b\x00"},
        "",
        "needs a text or a rating",
    ),
    "script for an address": ({"url": f"javascript:{SECRET}"}, "/url", "is not a web address"),
}
"""What is 422: it can be read and may not be sent."""


@pytest.mark.parametrize(("body", "pointer", "reason"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read(intake: Harness, body: bytes, pointer: str, reason: str) -> None:
    assert (await refused(intake, body, 400))[pointer].startswith(reason)


@pytest.mark.parametrize(("fields", "pointer", "reason"), UNACCEPTABLE.values(), ids=UNACCEPTABLE)
async def test_what_may_not_be_sent(
    intake: Harness, fields: dict[str, Any], pointer: str, reason: str
) -> None:
    assert (await refused(intake, raw(**fields), 422))[pointer].startswith(reason)


@pytest.mark.parametrize("body", [b"7", b"null", b'"s3cret"', b"[]", b"true"])
async def test_only_an_object_is_a_message(intake: Harness, body: bytes) -> None:
    assert await refused(intake, body, 422) == {"": "must be an object"}


async def test_every_field_at_fault_is_named_at_once(intake: Harness) -> None:
    body = raw(channel=SECRET, occurred_at=SECRET, contact={"email": SECRET}, txet=SECRET)
    assert set(await refused(intake, body, 422)) == {
        "/channel",
        "/occurred_at",
        "/contact/email",
        "/txet",
    }


async def test_in_a_batch_the_good_items_go_through(intake: Harness) -> None:
    bad = list(UNACCEPTABLE.values())
    documents = [json.loads(raw(**fields)) for fields, _, _ in bad]
    documents = [one for one in documents if len(str(one)) < 100_000] + [complaint()]
    answer = await send(intake, BATCH, json=documents)
    assert (answer.status_code, answer.json()["accepted"]) == (207, 1)
    assert answer.json()["rejected"] == len(documents) - 1
    assert SECRET not in answer.text
    (event,) = received(intake)
    assert answer.json()["items"][-1]["id"] == event.id


async def test_broken_lines_leave_the_others_alone(intake: Harness) -> None:
    bodies = [body for body, _, _ in UNREADABLE.values() if b"\n" not in body and len(body) > 1]
    answer = await send(
        intake,
        BATCH,
        content=b"\n".join([*bodies, raw()]),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (answer.status_code, answer.json()["accepted"]) == (207, 1)
    assert {item["problem"]["status"] for item in answer.json()["items"][:-1]} == {400}
    assert SECRET not in answer.text
    assert len(received(intake)) == 1


async def test_what_deceives_the_eye_is_cleaned_out_of_free_text(intake: Harness) -> None:
    answer = await send(
        intake,
        FEEDBACK,
        json=complaint(text="Never\x00 buy\u202e this\r\nagain\u2066!", subject="No\nmore\x07"),
    )
    assert answer.status_code == 202
    (event,) = received(intake)
    assert (event.data.text, event.data.subject) == ("Never buy this\nagain!", "No more")


@pytest.mark.parametrize(
    ("headers", "pointer"),
    [
        ({"Idempotency-Key": SECRET * 40}, "/header/idempotency-key"),
        ({"X-Rapport-Exercise": f"{SECRET} drill"}, "/header/x-rapport-exercise"),
    ],
)
async def test_headers_have_limits_too(
    intake: Harness, headers: dict[str, str], pointer: str
) -> None:
    assert list(await refused(intake, raw(), 422, headers=headers)) == [pointer]


async def test_a_drill_without_a_name_is_never_taken_for_real(intake: Harness) -> None:
    assert "/header/x-rapport-exercise" in await refused(
        intake, raw(), 422, headers={"X-Rapport-Exercise": ""}
    )


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
async def test_json_is_read_whatever_it_is_called(intake: Harness, content_type: str) -> None:
    answer = await send(intake, FEEDBACK, content=raw(), headers={"Content-Type": content_type})
    assert answer.status_code == 202


async def test_a_wrong_content_type_is_no_cloud_event(intake: Harness) -> None:
    headers = {"Content-Type": "text/plain", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    told = await refused(intake, raw(), 422, EVENTS, headers=headers | {"ce-specversion": "1.0"})
    assert told == {"/datacontenttype": "must be JSON"}


async def test_lines_that_are_called_an_array_are_none(intake: Harness) -> None:
    body = raw() + b"\n" + raw()
    assert "" in await refused(intake, body, 400, BATCH)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_is_refused(intake: Harness, method: str) -> None:
    problem(await intake.call(method, FEEDBACK), 405)


# Bodies over the limit, at the front of the house


@pytest.fixture
async def door(intake: Harness) -> AsyncIterator[httpx2.AsyncClient]:
    """Intake as senders reach it."""

    async def missing() -> dict[str, str]:
        return {}

    front = Front({SERVICE.name: intake.running.app}, operations(missing))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=front),
        base_url="http://rapport.test",
        headers={"Authorization": f"Bearer {token('shop', 'publisher')}"},
    ) as client:
        yield client


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """Yield a body of so many bytes whose length nobody tells beforehand."""
    piece = (SECRET * 20_000).encode()
    for start in range(0, size, len(piece)):
        yield piece[: size - start]


@pytest.mark.parametrize("path", [FEEDBACK, BATCH, EVENTS, f"{HOOKS}/social_webhook"])
@pytest.mark.parametrize("tells_its_length", [True, False])
async def test_a_body_over_the_limit_is_refused(
    intake: Harness, door: httpx2.AsyncClient, path: str, tells_its_length: bool
) -> None:
    over = BODY_LIMIT + 1
    answer = await door.post(path, content=b"x" * over if tells_its_length else in_pieces(over))
    assert problem(answer, 413)["detail"] == "the body is over 10 MiB"
    assert intake.running.resources.load.held == 0
    assert not intake.bus.records


@pytest.mark.parametrize("tells_its_length", [True, False])
async def test_a_body_up_to_the_limit_is_read(
    door: httpx2.AsyncClient, tells_its_length: bool
) -> None:
    body = b" " * BODY_LIMIT if tells_its_length else in_pieces(BODY_LIMIT)
    problem(await door.post(FEEDBACK, content=body), 400)


# Anything at all

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8).map(lambda text: SECRET + text),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "email", "handles", "value"]), inner)
    ),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.sampled_from([*Submission.model_fields, "data", "messages"]), VALUES)
BODIES = st.binary(max_size=80) | (DOCUMENTS | st.lists(DOCUMENTS, max_size=3)).map(
    lambda document: json.dumps(document).encode()
)


@settings(max_examples=60)
@given(bodies=st.lists(BODIES, min_size=1, max_size=8))
async def test_whatever_comes_is_taken_in_or_refused_and_no_value_is_repeated(
    bodies: list[bytes],
) -> None:
    async with harness(SERVICE) as intake:
        for body in bodies:
            for path in (FEEDBACK, BATCH, EVENTS, f"{HOOKS}/social_webhook", f"{HOOKS}/cfpb"):
                answer = await send(intake, path, content=body)
                assert answer.status_code in (202, 207, 400, 422), answer.text
                assert SECRET not in answer.text
        assert intake.running.resources.load.held == 0
