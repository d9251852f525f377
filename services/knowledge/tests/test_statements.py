"""A statement's whole life: written, submitted, agreed to by two groups, said, replaced."""

import json
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from rapport.common.events.codec import encode
from rapport.common.events.knowledge import (
    StatementApprovalRecorded,
    StatementApproved,
    StatementRejected,
    StatementReleased,
    StatementSubmitted,
    StatementSuperseded,
)
from rapport.common.store.port import Change
from rapport.common.testing import MORNING, Harness
from rapport.knowledge.domain.statements import Statement

from .sayings import AUTHOR, EN, FA, LEGAL, PR, WORDS, ZH, body, declared, draft, proposed

PATH = "/knowledge/v1/statements/holding-1"


async def ask(
    knowledge: Harness, step: str, *, as_: str, path: str = PATH, **json: Any
) -> tuple[int, Any]:
    answer = await knowledge.call("POST", f"{path}/{step}", as_=as_, json=json)
    return answer.status_code, answer.json()


async def write(knowledge: Harness, path: str = PATH, **changed: Any) -> tuple[int, Any]:
    answer = await knowledge.call("PUT", path, as_=AUTHOR, json=body(draft(**changed)))
    return answer.status_code, answer.json()


async def submit(knowledge: Harness, path: str = PATH, **changed: Any) -> str:
    """Write and submit; return the hash to approve."""
    assert (await write(knowledge, path, **changed))[0] == 200
    status, statement = await ask(knowledge, "submission", as_=AUTHOR, path=path)
    assert (status, statement["state"]) == (200, "submitted")
    return str(statement["hash"])


async def agree(knowledge: Harness, path: str = PATH, **changed: Any) -> str:
    """Write, submit and approve; return the hash."""
    hash = await submit(knowledge, path, **changed)
    await ask(knowledge, "approvals", as_=PR, path=path, hash=hash, group="pr")
    await ask(knowledge, "approvals", as_=LEGAL, path=path, hash=hash, group="legal")
    return hash


async def release(knowledge: Harness, path: str = PATH, **changed: Any) -> str:
    """Take a statement through its whole life; return the hash."""
    hash = await agree(knowledge, path, **changed)
    assert (await ask(knowledge, "release", as_=AUTHOR, path=path))[0] == 200
    return hash


async def test_two_groups_agree_and_exactly_their_bytes_go_out(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    submitted = knowledge.published(StatementSubmitted).data
    assert (submitted.quorum, submitted.languages) == ({"pr": 1, "legal": 1}, (EN, FA, ZH))

    status, statement = await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr")
    assert (status, statement["state"], statement["missing"]) == (200, "submitted", {"legal": 1})
    status, statement = await ask(knowledge, "approvals", as_=LEGAL, hash=hash, group="legal")
    assert (status, statement["state"], statement["missing"]) == (200, "approved", {})
    assert knowledge.published(StatementApproved).data.approvals == (PR, LEGAL)

    status, statement = await ask(knowledge, "release", as_=AUTHOR)
    assert (status, statement["state"]) == (200, "released")
    released = knowledge.published(StatementReleased).data
    assert released.hash == hash
    assert {
        language: (said.subject, said.text) for language, said in released.wordings.items()
    } == WORDS
    assert (released.groups, released.crisis_id, released.by) == (("dealers",), "kettles", AUTHOR)
    assert released.break_glass is None


async def test_the_hash_can_be_checked_by_anybody(knowledge: Harness) -> None:
    """RFC 8785 JSON of the words, SHA-256: nothing of ours is needed to compute it."""
    hash = await release(knowledge)
    told = json.loads(encode(knowledge.published(StatementReleased)).value or b"")

    canonical = json.dumps(
        told["wordings"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert sha256(canonical.encode()).hexdigest() == hash == told["hash"]


async def test_an_author_does_not_approve_their_own_words(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    status, problem = await ask(knowledge, "approvals", as_=AUTHOR, hash=hash, group="pr")
    assert (status, problem["title"]) == (403, "Forbidden")
    assert knowledge.all(StatementApprovalRecorded) == []


async def test_who_changed_a_word_or_submitted_it_is_an_author_too(knowledge: Harness) -> None:
    await write(knowledge)
    await knowledge.call("PUT", PATH, as_=PR, json=body(draft(groups=["dealers", "press"])))
    _, statement = await ask(knowledge, "submission", as_=LEGAL)
    assert statement["authors"] == [AUTHOR, PR, LEGAL]
    for person, group in ((PR, "pr"), (LEGAL, "legal")):
        status, _ = await ask(
            knowledge, "approvals", as_=person, hash=statement["hash"], group=group
        )
        assert status == 403


async def test_a_stranger_to_the_group_does_not_approve_for_it(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    assert (await ask(knowledge, "approvals", as_=PR, hash=hash, group="legal"))[0] == 403
    assert (await ask(knowledge, "approvals", as_="zoe", hash=hash, group="pr"))[0] == 403
    assert (await ask(knowledge, "approvals", as_=PR, hash=hash, group="finance"))[0] == 403


async def test_the_same_person_twice_counts_once(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr")
    status, statement = await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr")
    assert (status, statement["missing"]) == (200, {"legal": 1})
    assert len(knowledge.all(StatementApprovalRecorded)) == 1


async def test_other_bytes_are_not_approved(knowledge: Harness) -> None:
    await submit(knowledge)
    status, problem = await ask(knowledge, "approvals", as_=PR, hash="0" * 64, group="pr")
    assert (status, problem["detail"]) == (409, "these are not the words that were submitted")


async def test_submitted_words_are_fixed(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    status, problem = await write(knowledge, text="The kettle is fine.")
    assert (status, problem["detail"]) == (409, "its words are fixed: the statement is submitted")
    assert (await knowledge.call("GET", PATH)).json()["hash"] == hash


async def test_a_rejected_statement_is_written_anew_and_agreed_to_anew(knowledge: Harness) -> None:
    hash = await submit(knowledge)
    await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr")
    assert (await ask(knowledge, "rejection", as_="zoe", reason="I do not like it"))[0] == 403
    _, statement = await ask(knowledge, "rejection", as_=LEGAL, reason="Which kettles?")
    assert (statement["state"], statement["rejection"]) == ("rejected", "Which kettles?")
    assert knowledge.published(StatementRejected).data.by == LEGAL
    assert (await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr"))[0] == 409

    again = await submit(knowledge, text="Kettles sold since May lose their handles.")
    assert again != hash
    assert (await knowledge.call("GET", PATH)).json()["missing"] == {"pr": 1, "legal": 1}
    assert (await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr"))[0] == 409
    assert (await ask(knowledge, "approvals", as_=PR, hash=again, group="pr"))[0] == 200


async def test_a_stale_translation_is_named_and_held_back(knowledge: Harness) -> None:
    written = draft()
    changed = body(written)
    changed["wordings"]["en"]["text"] = "Handles come loose. Please do not use the kettle."
    shown = (await knowledge.call("PUT", PATH, as_=AUTHOR, json=changed)).json()
    assert shown["stale"] == ["fa", "zh"]

    status, problem = await ask(knowledge, "submission", as_=AUTHOR)
    assert status == 409
    assert problem["detail"].endswith(": fa, zh")

    for language in ("fa", "zh"):
        changed["wordings"][language]["translates"] = shown["wordings"]["en"]["hash"]
    await knowledge.call("PUT", PATH, as_=AUTHOR, json=changed)
    assert (await ask(knowledge, "submission", as_=AUTHOR))[0] == 200


async def test_a_required_language_is_missed(knowledge: Harness) -> None:
    await write(knowledge, wordings={EN: draft().wordings[EN]})
    status, problem = await ask(knowledge, "submission", as_=AUTHOR)
    assert (status, problem["detail"]) == (409, "a holding statement also needs: fa, zh")


async def test_nothing_goes_out_without_the_quorum(knowledge: Harness) -> None:
    await write(knowledge)
    assert (await ask(knowledge, "release", as_=AUTHOR))[0] == 409
    hash = await submit(knowledge)
    await ask(knowledge, "approvals", as_=PR, hash=hash, group="pr")
    status, problem = await ask(knowledge, "release", as_=AUTHOR)
    assert (status, problem["detail"]) == (409, "approvals are missing: 1 of legal")
    assert knowledge.all(StatementReleased) == []


async def test_an_administrator_breaks_the_glass_and_it_is_on_record(knowledge: Harness) -> None:
    await submit(knowledge)
    reason = {"break_glass": "People may be hurt tonight."}
    refused = await knowledge.call("POST", f"{PATH}/release", roles=["pr"], json=reason)
    assert refused.status_code == 403
    done = await knowledge.call("POST", f"{PATH}/release", roles=["admin"], json=reason)
    assert (done.status_code, done.json()["break_glass"]) == (200, reason["break_glass"])
    assert knowledge.published(StatementReleased).data.break_glass == reason["break_glass"]


async def test_glass_is_not_broken_where_the_door_is_open(knowledge: Harness) -> None:
    await agree(knowledge)
    await ask(knowledge, "release", as_="root", break_glass="Just in case.")
    assert knowledge.published(StatementReleased).data.break_glass is None


async def test_bytes_that_changed_in_the_store_do_not_go_out(knowledge: Harness) -> None:
    await agree(knowledge)
    store = knowledge.running.store
    statement = await store.get(Statement, "holding-1")
    assert statement is not None
    statement.draft = draft(text="The kettle is fine.")
    await store.save_many([Change(statement)])

    status, problem = await ask(knowledge, "release", as_=AUTHOR)
    assert (status, problem["detail"]) == (409, "these are not the words that were approved")
    assert knowledge.all(StatementReleased) == []


async def test_a_statement_is_said_once(knowledge: Harness) -> None:
    await release(knowledge)
    assert (await ask(knowledge, "release", as_=AUTHOR))[0] == 409
    assert len(knowledge.all(StatementReleased)) == 1


async def test_a_later_statement_takes_the_place_of_the_earlier(knowledge: Harness) -> None:
    hash = await release(knowledge)
    await knowledge.advance(hours=3)
    await release(knowledge, f"{PATH}-b", text="Handles of all kettles sold since May come loose.")

    superseded = knowledge.published(StatementSuperseded).data
    assert (superseded.statement_id, superseded.hash) == ("holding-1", hash)
    assert superseded.superseded_by == "holding-1-b"
    earlier = (await knowledge.call("GET", PATH)).json()
    assert (earlier["state"], earlier["superseded_by"]) == ("superseded", "holding-1-b")
    in_force = (await knowledge.call("GET", "/knowledge/v1/statements?state=released")).json()
    assert [item["id"] for item in in_force["items"]] == ["holding-1-b"]


@pytest.mark.parametrize("back", [timedelta(0), timedelta(hours=2)])
async def test_a_later_statement_is_the_later_also_where_the_clock_was_put_back(
    knowledge: Harness, back: timedelta
) -> None:
    await release(knowledge, f"{PATH}-b")
    knowledge.clock._now -= back
    await release(knowledge, f"{PATH}-a", text="Another word.")

    first, second = knowledge.all(StatementReleased)
    shown = (await knowledge.call("GET", f"{PATH}-a")).json()
    assert second.time == datetime.fromisoformat(shown["released_at"]) > first.time
    superseded = knowledge.published(StatementSuperseded).data
    assert (superseded.statement_id, superseded.superseded_by) == ("holding-1-b", "holding-1-a")
    found = await knowledge.call("GET", "/knowledge/v1/search?q=kettle&kind=statement")
    assert {item["id"] for item in found.json()["items"]} == {"holding-1-a"}


async def test_a_statement_is_released_after_the_declaration_whatever_the_clock_says(
    knowledge: Harness,
) -> None:
    await knowledge.advance(minutes=10)
    at = knowledge.clock.now()
    await knowledge.given(declared("kettles", at))
    knowledge.clock._now -= timedelta(minutes=5)
    await release(knowledge)
    assert knowledge.published(StatementReleased).time == at


async def test_a_statement_waits_for_none_that_it_does_not_replace(knowledge: Harness) -> None:
    await release(knowledge)
    await release(knowledge, f"{PATH}-b", crisis_id=None)
    earlier = knowledge.clock._now = MORNING - timedelta(hours=2)
    await release(knowledge, f"{PATH}-c", purpose="update")
    await release(knowledge, f"{PATH}-d", crisis_id="fires")
    await release(knowledge, f"{PATH}-e", crisis_id=None)
    assert [event.time for event in knowledge.all(StatementReleased)[2:]] == [earlier] * 3


async def test_each_of_a_row_of_statements_is_superseded_once(knowledge: Harness) -> None:
    for number in range(4):
        await release(knowledge, f"{PATH}-{number}", text=f"This is what we know, part {number}.")
        await knowledge.advance(hours=1)
    assert [
        (event.data.statement_id[-1], event.data.superseded_by[-1])
        for event in knowledge.all(StatementSuperseded)
    ] == [("0", "1"), ("1", "2"), ("2", "3")]


async def test_releases_heard_of_again_or_in_another_order_change_nothing(
    knowledge: Harness,
) -> None:
    await release(knowledge)
    await knowledge.advance(hours=1)
    await release(knowledge, f"{PATH}-b", text="Another word.")
    first, second = (encode(event) for event in knowledge.all(StatementReleased))
    redriven = (("ce_redrive", b"knowledge"),)
    await knowledge.deliver(
        [item._replace(headers=(*item.headers, *redriven)) for item in (second, first, second)]
    )
    assert len(knowledge.all(StatementSuperseded)) == 1


@pytest.mark.parametrize(
    "other", [{"purpose": "update"}, {"crisis_id": "fires"}, {"crisis_id": None}]
)
async def test_statements_of_another_purpose_or_crisis_stand_side_by_side(
    knowledge: Harness, other: dict[str, Any]
) -> None:
    await release(knowledge)
    await release(knowledge, f"{PATH}-b", **other)
    assert knowledge.all(StatementSuperseded) == []


async def test_a_draft_starts_with_post_and_a_repeat_starts_no_other(knowledge: Harness) -> None:
    headers = {"Idempotency-Key": "k1"}
    first, second = [
        await knowledge.call(
            "POST", "/knowledge/v1/statements", json=body(draft()), headers=headers
        )
        for _ in range(2)
    ]
    assert first.status_code == second.status_code == 201
    assert first.json()["id"] == second.json()["id"]
    read = await knowledge.call("GET", first.headers["Location"])
    assert (read.status_code, read.json()["state"]) == (200, "draft")


async def test_what_changed_since_it_was_read_is_not_overwritten(knowledge: Harness) -> None:
    etag = (await knowledge.call("PUT", PATH, json=body(draft()))).headers["ETag"]
    await write(knowledge, text="Somebody else wrote this.")
    late = await knowledge.call(
        "PUT", PATH, json=body(draft(text="And I this.")), headers={"If-Match": etag}
    )
    assert late.status_code == 412


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"wordings": {"de": {"subject": "Zum Kessel", "text": "Gut."}}}, "/wordings/de/[key]"),
        ({"purpose": "boasting"}, "/purpose"),
        ({"wordings": {"en": {"subject": "\u200b", "text": "x"}}}, "/wordings/en/subject"),
        ({"source_language": "fa", "wordings": {"en": {"subject": "a", "text": "b"}}}, ""),
        ({"crisis_id": None, "groups": []}, ""),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_a_draft_that_does_not_fit_is_told_where(
    knowledge: Harness, wrong: dict[str, Any], pointer: str
) -> None:
    answer = await knowledge.call("PUT", PATH, json=body(draft()) | wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_a_subject_is_one_line_and_hides_nothing(knowledge: Harness) -> None:
    changed = body(draft())
    changed["wordings"]["en"]["subject"] = "About\r\nBcc: all@example.com \u202ethe kettle"
    shown = (await knowledge.call("PUT", PATH, json=changed)).json()
    assert shown["wordings"]["en"]["subject"] == "About Bcc: all@example.com the kettle"


async def test_roles_are_kept_apart(knowledge: Harness) -> None:
    await submit(knowledge)
    for role, path, expected in (
        ("agent", "submission", 403),
        ("pr", "approvals", 403),
        ("approver", "release", 403),
        ("publisher", "", 403),
    ):
        method = "POST" if path else "GET"
        json = {"hash": "0" * 64, "group": "pr"} if path == "approvals" else None
        answer = await knowledge.call(method, f"{PATH}/{path}".rstrip("/"), roles=[role], json=json)
        assert answer.status_code == expected, role


async def test_what_is_not_there_is_not_found(knowledge: Harness) -> None:
    assert (await knowledge.call("GET", PATH)).status_code == 404
    assert (await ask(knowledge, "submission", as_=AUTHOR))[0] == 404


async def test_lists_go_on_where_the_page_ended(knowledge: Harness) -> None:
    for number in range(3):
        await write(knowledge, f"{PATH}-{number}")
        await knowledge.advance(minutes=1)
    first = (await knowledge.call("GET", "/knowledge/v1/statements?limit=2")).json()
    rest = (
        await knowledge.call("GET", f"/knowledge/v1/statements?limit=2&cursor={first['next']}")
    ).json()
    assert [item["id"][-1] for item in first["items"] + rest["items"]] == ["2", "1", "0"]
    assert rest["next"] is None


async def test_nobody_writes_about_a_crisis_that_is_not_known(knowledge: Harness) -> None:
    for method, path in (("POST", "/knowledge/v1/statements"), ("PUT", PATH)):
        answer = await knowledge.call(
            method, path, as_=AUTHOR, json=body(draft(crisis_id="ketles"))
        )
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"pointer": "/crisis_id", "reason": "no such crisis is known here (yet)"}
        ]
    assert (await knowledge.call("GET", "/knowledge/v1/statements")).json()["items"] == []

    await knowledge.given(proposed("ketles"))
    assert (await write(knowledge, crisis_id="ketles"))[0] == 200


async def test_a_statement_about_a_drill_belongs_to_the_drill(knowledge: Harness) -> None:
    await knowledge.given(proposed("drilled"), exercise="spring drill")
    await release(knowledge, crisis_id="drilled")
    assert knowledge.published(StatementReleased).exercise == "spring drill"

    status, problem = await write(knowledge, "/knowledge/v1/statements/real", crisis_id=None)
    assert status == 200, problem
    status, problem = await write(knowledge, "/knowledge/v1/statements/real", crisis_id="drilled")
    assert (status, problem["detail"]) == (409, "a drill's statement and the real thing do not mix")
