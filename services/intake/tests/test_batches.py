"""Many messages at once: the good ones go through, each bad one is told by its place."""

import json
import tracemalloc
from typing import Any

import pytest

from rapport.common.errors import TooLarge
from rapport.common.testing import MORNING, Harness, harness
from rapport.intake.domain import read_lines
from rapport.intake.service import SERVICE

from .sending import BATCH, accepted, complaint, problem, published, reasons, received, send

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*documents: object) -> bytes:
    return b"\n".join(
        document if isinstance(document, bytes) else json.dumps(document).encode()
        for document in documents
    )


async def batch(intake: Harness, **arguments: Any) -> dict[str, Any]:
    answer = await send(intake, BATCH, **arguments)
    assert answer.status_code == 207, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_bad_item_does_not_keep_the_good_ones_back(intake: Harness) -> None:
    documents = [complaint(), complaint(kind="rant"), complaint(source_ref="T-2"), 7]
    answer = await batch(intake, json=documents)
    assert (answer["accepted"], answer["rejected"]) == (2, 2)
    first, rant, second, seven = answer["items"]
    assert [first["id"], second["id"]] == [event.id for event in received(intake)]
    assert [item["index"] for item in answer["items"]] == [0, 1, 2, 3]
    assert "must be one of" in reasons(rant["problem"])["/kind"]
    assert reasons(seven["problem"]) == {"": "must be an object"}
    assert rant["problem"]["status"] == 422
    assert "id" not in rant


async def test_lines_are_told_by_their_number(intake: Harness) -> None:
    body = lines(complaint(), b"", b'{"kind": ', complaint(source_ref="T-2"), b"")
    answer = await batch(intake, content=body, headers=NDJSON)
    assert [(item["index"], item["line"]) for item in answer["items"]] == [(0, 1), (1, 3), (2, 4)]
    assert (answer["accepted"], answer["items"][1]["problem"]["status"]) == (2, 400)


async def test_what_breaks_the_rules_of_json_spoils_only_its_own_item(intake: Harness) -> None:
    good = json.dumps(complaint()).encode()
    twice = b'{"kind": "praise", "kind": "complaint"}'
    body = b"[" + b",".join([twice, good.replace(b"leaks", b"\xff"), good]) + b"]"
    answer = await batch(intake, content=body)
    assert [sorted(reasons(item.get("problem", {}))) for item in answer["items"]] == [
        ["/kind"],
        ["/text"],
        [],
    ]
    assert len(received(intake)) == 1


async def test_an_item_has_the_same_name_however_it_is_sent(intake: Harness) -> None:
    receipt = await accepted(intake)
    in_array = await batch(intake, json=[complaint(source_ref="T-0"), complaint()])
    in_lines = await batch(intake, content=lines(complaint()), headers=NDJSON)
    assert in_array["items"][1]["id"] == in_lines["items"][0]["id"] == receipt["id"]
    assert in_array["items"][1]["status_url"] == receipt["status_url"]


async def test_a_repeat_with_an_idempotency_key_has_the_same_names(intake: Harness) -> None:
    documents = [complaint(source_ref=None)] * 2
    key = {"Idempotency-Key": "k-1"}
    first = await batch(intake, json=documents, headers=key)
    assert await batch(intake, json=documents, headers=key) == first
    assert first["items"][0]["id"] != first["items"][1]["id"]
    refused = await send(intake, BATCH, json=documents[:1], headers=key)
    assert "/header/idempotency-key" in reasons(problem(refused, 422))


async def test_who_prefers_it_is_told_what_was_known_before(intake: Harness) -> None:
    await accepted(intake)
    documents = [complaint(), complaint(source_ref="T-2"), complaint(source_ref="T-2")]
    answer = await send(intake, BATCH, json=documents, headers={"Prefer": "known"})
    assert answer.headers["preference-applied"] == "known"
    assert [item["known"] for item in answer.json()["items"]] == [True, False, True]


async def test_what_another_reception_took_in_is_known_once_the_log_has_told(
    intake: Harness,
) -> None:
    async with harness(SERVICE, person_key="of persons") as replica:
        await accepted(replica)
        await intake.deliver(published(replica))
    answer = await batch(intake, json=[complaint()], headers={"Prefer": "known"})
    assert answer["items"][0]["known"] is True


async def test_nobody_is_told_what_is_known_who_does_not_ask(intake: Harness) -> None:
    answer = await batch(intake, json=[complaint()])
    assert "known" not in answer["items"][0]


async def test_an_empty_batch_is_taken_in(intake: Harness) -> None:
    assert await batch(intake, json=[]) == {"accepted": 0, "rejected": 0, "items": []}


@pytest.mark.parametrize("how", ["array", "lines"])
async def test_a_thousand_items_are_taken_and_one_more_is_too_many(
    intake: Harness, how: str
) -> None:
    documents = [complaint(source_ref=f"T-{number}") for number in range(1_001)]

    def arguments(count: int) -> dict[str, Any]:
        if how == "array":
            return {"json": documents[:count]}
        return {"content": lines(*documents[:count]), "headers": NDJSON}

    refused = problem(await send(intake, BATCH, **arguments(1_001)), 413)
    assert "at most 1000 are taken at once" in refused["detail"]
    assert not received(intake)
    assert (await batch(intake, **arguments(1_000)))["accepted"] == 1_000


def test_too_many_lines_are_known_without_keeping_them_all() -> None:
    body = b"1\n" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            read_lines(body, MORNING, 1_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(body)


@pytest.mark.parametrize("body", [b"{}", b"7", b"[1,", b""])
async def test_what_is_no_array_is_refused_whole(intake: Harness, body: bytes) -> None:
    problem(await send(intake, BATCH, content=body), 400)
    assert not received(intake)
