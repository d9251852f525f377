"""Search and suggestions in three languages."""

from collections.abc import Iterable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.testing import MORNING, Harness
from rapport.knowledge.domain.case_texts import LIMIT, CaseText

from .sayings import DELIVERY, EN, FA, HANDLES, RETURNS, ZH, body, closed, draft, heard, proposed

BASE = "/knowledge/v1"


@pytest.fixture
async def stocked(knowledge: Harness) -> Harness:
    """A service with two articles and a key message."""
    for path, content in (
        ("articles/returns", RETURNS),
        ("articles/delivery", DELIVERY),
        ("key-messages/handles", HANDLES),
    ):
        answer = await knowledge.call("PUT", f"{BASE}/{path}", json=content)
        assert answer.status_code == 200
    return knowledge


async def search(knowledge: Harness, q: str, **query: Any) -> list[Any]:
    answer = await knowledge.call("GET", f"{BASE}/search", params={"q": q, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def suggest(knowledge: Harness, case_id: str = "c1", **query: Any) -> list[Any]:
    answer = await knowledge.call(
        "GET", f"{BASE}/suggestions", params={"case_id": case_id, **query}
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def say(knowledge: Harness, id: str, text: str, **changed: Any) -> None:
    path = f"{BASE}/statements/{id}"
    await knowledge.call("PUT", path, as_="anna", json=body(draft(text=text, **changed)))
    await knowledge.call("POST", f"{path}/submission", as_="anna")
    released = {"break_glass": "now"}
    answer = await knowledge.call("POST", f"{path}/release", as_="root", json=released)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("question", "language", "title"),
    [
        ("how can I get my money back", "en", "Getting your money back"),
        ("我想退款", "zh", "如何申请退款"),
        ("پولمو پس میخوام", "fa", "پس گرفتن پول"),
    ],
)
async def test_people_find_what_they_ask_for_in_their_language(
    stocked: Harness, question: str, language: str, title: str
) -> None:
    first = (await search(stocked, question))[0]
    assert (first["kind"], first["id"], first["language"]) == ("article", "returns", language)
    assert first["title"] == title
    assert 0 < first["score"] <= 1
    assert first["snippet"]["text"] in RETURNS["text"][language]


async def test_what_matched_is_shown(stocked: Harness) -> None:
    (first, *_) = await search(stocked, "money", language="en")
    ((start, end),) = first["title_ranges"]
    assert first["title"][start:end] == "money"


async def test_a_search_keeps_to_the_language_and_the_kind_asked_for(stocked: Harness) -> None:
    assert {item["language"] for item in await search(stocked, "AK-300", language="fa")} == {"fa"}
    hits = await search(stocked, "kettle parcel money", language="en")
    assert {item["kind"] for item in hits} == {"article", "key_message"}
    hits = await search(stocked, "kettle parcel money", language="en", kind="key_message")
    assert [item["id"] for item in hits] == ["handles"]
    assert len(await search(stocked, "AK-300", limit=1)) == 1


async def test_a_statement_is_found_while_it_is_in_force(stocked: Harness) -> None:
    async def found(q: str) -> list[str]:
        return [item["id"] for item in await search(stocked, q, kind="statement", language="en")]

    await stocked.call("PUT", f"{BASE}/statements/a", as_="anna", json=body(draft()))
    assert await found("handles come loose") == []
    await say(stocked, "a", "Handles come loose; unplug the kettle.")
    assert await found("unplug the kettle") == ["a"]
    await stocked.advance(hours=1)
    await say(stocked, "b", "Handles come loose; bring the kettle to a shop.")
    assert await found("unplug the kettle") == ["b"]


async def test_what_is_said_in_a_drill_is_not_found(stocked: Harness) -> None:
    await stocked.given(proposed("drilled"), exercise="spring drill")
    await say(stocked, "a", "Evacuate the kettle factory.", crisis_id="drilled")
    assert await search(stocked, "evacuate the factory", kind="statement") == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (EN, "The handle of my kettle came loose. I want my money back."),
        (ZH, "水壶的手柄松动了,我要退款。"),
        (FA, "دسته کتری شل شده است و پولم را پس می‌خواهم."),
    ],
)
async def test_a_case_gets_articles_and_key_messages_in_its_language(
    stocked: Harness, language: str, text: str
) -> None:
    await stocked.given(heard(text, language=language, product="AK-300"))
    items = await suggest(stocked)
    assert [(item["kind"], item["id"], item["language"]) for item in items[:1]] == [
        ("article", "returns", language)
    ]
    (message,) = [item for item in items if item["kind"] == "key_message"]
    assert (message["id"], message["language"]) == ("handles", language)
    assert message["text"] == HANDLES["text"][language]


async def test_what_a_language_lacks_comes_from_another(stocked: Harness) -> None:
    english = {"title": {"en": "Resetting the TX-1000"}, "text": {"en": "Hold the TX-1000 knob."}}
    await stocked.call("PUT", f"{BASE}/articles/reset", json=english)
    await stocked.given(heard("پولم را پس می‌خواهم. دستگاه TX-1000 کار نمی‌کند", language=FA))
    suggested = [(item["id"], item["language"]) for item in await suggest(stocked)]
    assert suggested[0] == ("returns", "fa")
    assert ("reset", "en") in suggested
    assert len(dict(suggested)) == len(suggested), "each is suggested once"


async def test_the_conversation_goes_on_and_so_do_suggestions(stocked: Harness) -> None:
    await stocked.given(heard("I want my money back"))
    later = MORNING + timedelta(hours=1)
    await stocked.given(
        heard("And where is my parcel, when will it arrive?", feedback_id="f2", received_at=later)
    )
    assert {item["id"] for item in await suggest(stocked)} >= {"returns", "delivery"}
    assert len(await suggest(stocked, limit=1)) == 1


async def test_after_a_case_is_closed_its_words_are_forgotten(stocked: Harness) -> None:
    await stocked.given(heard("I want my money back"))
    await stocked.advance(hours=1)
    await stocked.given(closed())
    assert await suggest(stocked) == []
    kept = await stocked.running.store.get(CaseText, "c1")
    assert kept is not None
    assert "money" not in kept.model_dump_json()

    reopened = heard("Still no money!", feedback_id="f2", received_at=MORNING + timedelta(hours=2))
    await stocked.given(reopened)
    assert await suggest(stocked) != []


async def test_words_heard_of_after_the_closing_stay_forgotten(stocked: Harness) -> None:
    await stocked.advance(hours=1)
    await stocked.given(closed())
    await stocked.given(heard("I want my money back"))
    assert await suggest(stocked) == []


async def test_forgotten_words_that_are_sent_once_more_stay_forgotten(stocked: Harness) -> None:
    await stocked.given(heard("I want my money back"))
    await stocked.advance(hours=1)
    await stocked.given(closed())
    later = MORNING + timedelta(hours=2)
    await stocked.given(heard("I want my money back", received_at=later))
    assert await suggest(stocked) == []


async def test_words_that_longer_ones_displaced_are_forgotten_too(stocked: Harness) -> None:
    later = MORNING + timedelta(hours=1)
    await stocked.given(heard("I want my money back"))
    await stocked.given(heard("My oven. " * LIMIT, feedback_id="f2", received_at=later))
    again = heard("I want my money back", received_at=later + timedelta(hours=1))
    await stocked.given(again)
    kept = await stocked.running.store.get(CaseText, "c1")
    assert kept is not None
    assert [item.id for item in kept.messages] == ["f2", "f1"]

    await stocked.advance(hours=3)
    await stocked.given(closed())
    await stocked.given(again.model_copy(update={"received_at": later + timedelta(hours=9)}))
    assert await suggest(stocked) == []


async def test_what_is_sent_once_more_is_not_the_latest_word(stocked: Harness) -> None:
    later = MORNING + timedelta(hours=1)
    await stocked.given(heard("My kettle leaks", product="kettle"))
    await stocked.given(heard("And my oven", product="oven", feedback_id="f2", received_at=later))
    again = heard("My kettle leaks", product="kettle", received_at=later + timedelta(hours=1))
    await stocked.given(again)
    kept = await stocked.running.store.get(CaseText, "c1")
    assert kept is not None
    assert (kept.product, [item.id for item in kept.messages]) == ("oven", ["f2", "f1"])


async def test_imports_of_the_past_need_no_suggestions(stocked: Harness) -> None:
    await stocked.given(heard("I want my money back"), historical=True)
    assert (
        await stocked.call("GET", f"{BASE}/suggestions", params={"case_id": "c1"})
    ).status_code == 404


@pytest.mark.parametrize(
    "query", ["", "?q=", f"?q={'x' * 1001}", "?q=x&language=und", "?q=x&kind=poem", "?q=x&limit=51"]
)
async def test_a_search_that_does_not_fit_is_refused(knowledge: Harness, query: str) -> None:
    answer = await knowledge.call("GET", f"{BASE}/search{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/query/")


messages = st.lists(
    st.builds(
        lambda id, minute, text: heard(
            text, feedback_id=str(id), received_at=MORNING + timedelta(minutes=minute)
        ),
        st.integers(0, 20),
        st.integers(0, 5),
        st.text("abc ", min_size=1, max_size=900),
    ),
    max_size=8,
    unique_by=lambda feedback: feedback.feedback_id,
)


@given(messages, st.randoms(use_true_random=False), st.integers(0, 3))
def test_what_is_kept_depends_on_what_was_said_alone(
    said: list[Any], random: Random, repeats: int
) -> None:
    def kept(feedback: Iterable[Any]) -> CaseText:
        case = CaseText(id="c1")
        for item in feedback:
            case.hear(item)
        return case

    again = said + [random.choice(said) for _ in range(repeats) if said]
    random.shuffle(again)
    assert kept(again).messages == kept(said).messages
    assert sum(len(message.text) for message in kept(said).messages) <= LIMIT
