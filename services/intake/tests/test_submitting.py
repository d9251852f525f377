"""One message at a time: what is told of it, by what name, and who may send it."""

from typing import Any

import pytest

from rapport.common.people import person_id
from rapport.common.testing import MORNING, Harness, harness
from rapport.intake.service import SERVICE

from .sending import (
    FEEDBACK,
    LEAK,
    accepted,
    complaint,
    problem,
    reasons,
    received,
    send,
)


async def test_a_complaint_is_in_the_log_when_it_is_answered(intake: Harness) -> None:
    receipt = await accepted(intake, settled=False, product="kettle")
    (event,) = received(intake)
    assert (event.data.text, event.data.product, event.data.client) == (LEAK, "kettle", "shop")
    assert (event.id, event.subject) == (receipt["id"], receipt["id"])
    assert (event.data.feedback_id, event.data.reference) == (receipt["id"], receipt["reference"])
    assert (event.time, event.data.received_at, event.data.occurred_at) == (MORNING,) * 3
    assert receipt["status_url"].startswith(f"{FEEDBACK}/{receipt['id']}?mac=")


async def test_a_repeat_is_the_same_message(intake: Harness) -> None:
    first = await accepted(intake)
    await intake.advance(hours=1)
    assert await accepted(intake) == first
    assert [event.id for event in received(intake)] == [first["id"]] * 2


async def test_other_words_under_the_same_reference_are_one_more_message_of_one_case(
    intake: Harness,
) -> None:
    first, second = await accepted(intake), await accepted(intake, text="It still leaks.")
    assert first["id"] != second["id"]
    assert len({event.data.case_id for event in received(intake)}) == 1


async def test_an_answer_joins_the_conversation_that_it_names(intake: Harness) -> None:
    await accepted(intake)
    await accepted(intake, source_ref="T-2", thread_ref="T-1")
    await accepted(intake, source_ref="T-3")
    opening, answer, other = (event.partitionkey for event in received(intake))
    assert opening == answer != other


async def test_without_a_reference_every_message_is_new(intake: Harness) -> None:
    receipts = [await accepted(intake, source_ref=None) for _ in range(2)]
    assert receipts[0]["id"] != receipts[1]["id"]


async def test_an_idempotency_key_names_what_has_no_reference(intake: Harness) -> None:
    key = {"Idempotency-Key": "k-1"}
    answers = [
        await send(intake, FEEDBACK, json=complaint(source_ref=None), headers=key) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()


async def test_an_idempotency_key_with_other_content_is_refused(intake: Harness) -> None:
    key = {"Idempotency-Key": "k-1"}
    await send(intake, FEEDBACK, json=complaint(source_ref=None), headers=key)
    other = complaint(source_ref=None, text="Something else.")
    refused = problem(await send(intake, FEEDBACK, json=other, headers=key), 422)
    assert reasons(refused) == {"/header/idempotency-key": "came with other content before"}
    assert len(received(intake)) == 1


async def test_an_idempotency_key_is_its_senders_own(intake: Harness) -> None:
    key = {"Idempotency-Key": "k-1"}
    await send(intake, FEEDBACK, json=complaint(source_ref=None), headers=key)
    other = complaint(source_ref=None, text="Something else.")
    answer = await send(intake, FEEDBACK, as_="till", json=other, headers=key)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The kettle leaks.", "en"),
        ("水壶漏水，我要退款。", "zh"),
        ("کتری چکه می‌کند و پولم را می‌خواهم.", "fa"),
        ("12345", "und"),
    ],
)
async def test_the_language_is_told_by_the_script(
    intake: Harness, text: str, language: str
) -> None:
    await accepted(intake, text=text)
    assert received(intake)[0].data.language == language


async def test_a_sender_who_knows_the_language_is_believed(intake: Harness) -> None:
    await accepted(intake, language="fa")
    assert received(intake)[0].data.language == "fa"


@pytest.mark.parametrize(
    ("fields", "public"),
    [
        ({"channel": "social"}, True),
        ({"channel": "press"}, True),
        ({"channel": "email"}, False),
        ({"channel": "social", "public": False}, False),
        ({"channel": "chat", "public": True}, True),
    ],
)
async def test_the_channel_says_who_can_read_along_unless_the_sender_does(
    intake: Harness, fields: dict[str, Any], public: bool
) -> None:
    await accepted(intake, **fields)
    assert received(intake)[0].data.public is public


async def test_a_person_is_known_again_by_contact_point_and_by_nothing_else(
    intake: Harness,
) -> None:
    await accepted(intake, contact={"name": "Ana", "email": "Ana@Example.org"})
    await accepted(intake, contact={"name": "A. P.", "email": "ana@example.org "})
    await accepted(intake, contact={"name": "Ana", "email": "ana@example.com"})
    await accepted(intake, contact={"name": "Ana"})
    first, same, other, nobody = (event.data.contact.person for event in received(intake))
    assert first == same == person_id(b"of persons", email="ana@example.org")
    assert other not in (first, None)
    assert nobody is None


async def test_another_installation_knows_nobody_of_this_one(intake: Harness) -> None:
    contact = {"email": "ana@example.org"}
    await accepted(intake, contact=contact)
    async with harness(SERVICE, person_key="of others") as elsewhere:
        await accepted(elsewhere, contact=contact)
        there = received(elsewhere)[0].data.contact.person
    assert received(intake)[0].data.contact.person != there


async def test_a_drill_is_marked_and_never_meets_what_is_real(intake: Harness) -> None:
    real = await accepted(intake)
    drill = {"X-Rapport-Exercise": "spring-drill"}
    answer = await send(intake, FEEDBACK, json=complaint(), headers=drill)
    assert answer.json()["id"] != real["id"]
    first, second = received(intake)
    assert (first.exercise, second.exercise) == (None, "spring-drill")
    assert first.data.case_id != second.data.case_id


async def test_an_import_of_the_past_is_marked(intake: Harness) -> None:
    await accepted(intake, historical=True, occurred_at="2025-06-01T12:00:00+02:00")
    (event,) = received(intake)
    assert event.historical
    assert event.time == MORNING
    assert event.data.occurred_at.isoformat() == "2025-06-01T10:00:00+00:00"


async def test_nobody_sends_without_a_token(intake: Harness) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer x.y.z"}):
        answer = await intake.http.post(FEEDBACK, json=complaint(), headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not received(intake)


@pytest.mark.parametrize("path", ["feedback", "feedback/batch", "events", "hooks/cfpb"])
async def test_who_may_only_look_may_not_send(intake: Harness, path: str) -> None:
    answer = await intake.call("POST", f"/intake/v1/{path}", roles=["viewer"], json=complaint())
    assert "feedback.submit needs one of the roles" in problem(answer, 403)["detail"]
    assert not received(intake)


@pytest.mark.parametrize("role", ["publisher", "agent", "lead", "pr", "admin"])
async def test_publishers_and_those_who_work_with_cases_may_send(
    intake: Harness, role: str
) -> None:
    answer = await intake.call("POST", FEEDBACK, roles=[role], json=complaint())
    assert answer.status_code == 202
