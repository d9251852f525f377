"""Articles and key messages: published, corrected, retired; only the latest version is found."""

from typing import Any

import pytest

from rapport.common.events.knowledge import (
    ArticlePublished,
    ArticleRetired,
    KeyMessagePublished,
    KeyMessageRetired,
    KeyMessageSuperseded,
)
from rapport.common.testing import Harness

from .sayings import DELIVERY, EN, HANDLES, RETURNS

BASE = "/knowledge/v1"


async def put(knowledge: Harness, path: str, content: dict[str, Any], **more: Any) -> Any:
    answer = await knowledge.call("PUT", f"{BASE}/{path}", json=content, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def found(knowledge: Harness, q: str, **query: str) -> list[tuple[str, str]]:
    answer = await knowledge.call("GET", f"{BASE}/search", params={"q": q, **query})
    return [(item["id"], item["language"]) for item in answer.json()["items"]]


async def test_an_article_is_published_in_versions(knowledge: Harness) -> None:
    assert (await put(knowledge, "articles/returns", RETURNS))["version"] == 1
    changed = RETURNS | {"topics": ["refund", "returns"]}
    article = await put(knowledge, "articles/returns", changed, as_="ben")
    assert (article["version"], article["published_by"]) == (2, "ben")

    first, second = knowledge.all(ArticlePublished)
    assert (first.data.article_version, second.data.article_version) == (1, 2)
    assert second.data.text[EN] == RETURNS["text"]["en"]
    assert second.data.topics == ("refund", "returns")
    assert second.subject == second.partitionkey == "returns"


async def test_the_same_words_again_are_no_new_version(knowledge: Harness) -> None:
    for _ in range(2):
        assert (await put(knowledge, "articles/returns", RETURNS))["version"] == 1
    assert len(knowledge.all(ArticlePublished)) == 1


async def test_two_editors_do_not_overwrite_each_other(knowledge: Harness) -> None:
    await put(knowledge, "articles/returns", RETURNS)
    read = await knowledge.call("GET", f"{BASE}/articles/returns")
    headers = {"If-Match": read.headers["ETag"]}
    await put(knowledge, "articles/returns", RETURNS | {"topics": ["a"]}, headers=headers)
    late = await knowledge.call(
        "PUT", f"{BASE}/articles/returns", json=RETURNS | {"topics": ["b"]}, headers=headers
    )
    assert late.status_code == 412


async def test_a_retired_article_is_found_no_more_until_it_is_published_again(
    knowledge: Harness,
) -> None:
    await put(knowledge, "articles/returns", RETURNS)
    assert await found(knowledge, "refund", language="en") == [("returns", "en")]

    for _ in range(2):
        gone = await knowledge.call("DELETE", f"{BASE}/articles/returns", as_="ben")
        assert gone.status_code == 204
    assert knowledge.published(ArticleRetired).data.by == "ben"
    assert await found(knowledge, "refund", language="en") == []
    assert (await knowledge.call("GET", f"{BASE}/articles/returns")).json()["retired"]

    assert (await put(knowledge, "articles/returns", RETURNS))["version"] == 2
    assert await found(knowledge, "refund", language="en") == [("returns", "en")]


async def test_once_a_key_message_has_a_second_version_nobody_finds_the_first(
    knowledge: Harness,
) -> None:
    await put(knowledge, "key-messages/handles", HANDLES)
    assert await found(knowledge, "立即换新") == [("handles", "zh")]

    corrected = {"text": {"en": "Anyone whose kettle handle comes loose gets the money back."}}
    await put(knowledge, "key-messages/handles", corrected)
    superseded = knowledge.published(KeyMessageSuperseded).data
    assert (superseded.message_version, superseded.superseded_by) == (1, 2)
    assert [event.data.message_version for event in knowledge.all(KeyMessagePublished)] == [1, 2]
    assert knowledge.types()[-2:] == [KeyMessageSuperseded.TYPE, KeyMessagePublished.TYPE]

    assert await found(knowledge, "立即换新") == []
    assert await found(knowledge, "no receipt needed") == []
    assert await found(knowledge, "kettle money back") == [("handles", "en")]


async def test_a_retired_key_message_supersedes_nothing_when_it_returns(
    knowledge: Harness,
) -> None:
    await put(knowledge, "key-messages/handles", HANDLES)
    await knowledge.call("DELETE", f"{BASE}/key-messages/handles", as_="paula")
    assert knowledge.published(KeyMessageRetired).data.by == "paula"
    await put(knowledge, "key-messages/handles", HANDLES)
    assert knowledge.all(KeyMessageSuperseded) == []


async def test_an_article_and_a_key_message_may_have_the_same_name(knowledge: Harness) -> None:
    await put(knowledge, "articles/handles", RETURNS)
    await put(knowledge, "key-messages/handles", HANDLES)
    assert await found(knowledge, "money back", kind="article") == [("handles", "en")]
    assert await found(knowledge, "new kettle", kind="key_message") == [("handles", "en")]


@pytest.mark.parametrize(
    ("collection", "content"), [("articles", RETURNS), ("key-messages", HANDLES)]
)
async def test_a_repeated_post_publishes_once(
    knowledge: Harness, collection: str, content: dict[str, Any]
) -> None:
    places = {
        (
            await knowledge.call(
                "POST", f"{BASE}/{collection}", json=content, headers={"Idempotency-Key": "k"}
            )
        ).headers["Location"]
        for _ in range(2)
    }
    (place,) = places
    read = await knowledge.call("GET", place)
    assert (read.status_code, read.json()["version"]) == (200, 1)


@pytest.mark.parametrize("collection", ["articles", "key-messages"])
async def test_lists_show_what_is_published_by_product(knowledge: Harness, collection: str) -> None:
    content = RETURNS if collection == "articles" else {"text": HANDLES["text"]}
    for id, product in (("a", "AK-300"), ("b", "AK-300"), ("c", "TX-1"), ("d", None)):
        await put(knowledge, f"{collection}/{id}", content | {"product": product})
        await knowledge.advance(minutes=1)
    await knowledge.call("DELETE", f"{BASE}/{collection}/b")

    async def listed(query: str) -> list[str]:
        answer = await knowledge.call("GET", f"{BASE}/{collection}{query}")
        return [item["id"] for item in answer.json()["items"]]

    assert await listed("") == ["d", "c", "a"]
    assert await listed("?product=AK-300") == ["a"]
    assert await listed("?retired=true") == ["b"]


@pytest.mark.parametrize(
    ("path", "wrong", "pointer"),
    [
        ("articles/a", RETURNS | {"text": {"en": "x"}}, ""),
        ("articles/a", DELIVERY | {"paraphrases": {"und": ["x"]}}, "/paraphrases/und/[key]"),
        ("articles/a", RETURNS | {"title": {}}, "/title"),
        ("articles/a", RETURNS | {"paraphrases": {"en": ["?"] * 21}}, "/paraphrases/en"),
        ("key-messages/a", {"text": {"en": "x" * 10_001}}, "/text/en"),
        ("key-messages/a", {"text": {"en": "\u202e \u200b"}}, "/text/en"),
        ("key-messages/a", HANDLES | {"version": 3}, "/version"),
        ("articles/a%20b", RETURNS, "/path/id"),
    ],
)
async def test_what_does_not_fit_is_told_where(
    knowledge: Harness, path: str, wrong: dict[str, Any], pointer: str
) -> None:
    answer = await knowledge.call("PUT", f"{BASE}/{path}", json=wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("half", ['{"text": {"en": "a \\ud800"}}', '{"text": {"\\ud800": "a"}}'])
async def test_half_a_character_is_refused(knowledge: Harness, half: str) -> None:
    answer = await knowledge.call(
        "PUT",
        f"{BASE}/key-messages/a",
        content=half.encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400


async def test_the_longest_publication_in_every_language_fits_an_event(knowledge: Harness) -> None:
    widest = "\U0001f600"
    languages = ("en", "zh", "fa")
    content = {
        "title": dict.fromkeys(languages, widest * 300),
        "text": dict.fromkeys(languages, widest * 10_000),
        "paraphrases": dict.fromkeys(languages, [widest * 300] * 20),
        "product": widest * 100,
        "topics": [widest * 100] * 20,
    }
    await put(knowledge, "articles/long", content)
    assert knowledge.published(ArticlePublished).data.text[EN] == widest * 10_000


async def test_roles_are_kept_apart(knowledge: Harness) -> None:
    async def status(method: str, path: str, role: str, json: Any = None) -> int:
        answer = await knowledge.call(method, f"{BASE}/{path}", roles=[role], json=json)
        return answer.status_code

    assert await status("PUT", "articles/a", "agent", RETURNS) == 200
    assert await status("PUT", "articles/a", "viewer", RETURNS) == 403
    assert await status("PUT", "key-messages/a", "agent", HANDLES) == 403
    assert await status("PUT", "key-messages/a", "pr", HANDLES) == 200
    assert await status("GET", "key-messages/a", "viewer") == 200
    assert await status("GET", "articles", "publisher") == 403


async def test_what_is_not_there_is_not_found(knowledge: Harness) -> None:
    for method in ("GET", "DELETE"):
        for collection in ("articles", "key-messages"):
            answer = await knowledge.call(method, f"{BASE}/{collection}/nothing")
            assert (answer.status_code, answer.json()["title"]) == (404, "Not found")
