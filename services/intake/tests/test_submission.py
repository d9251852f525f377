"""What a sender may send: every kind of bad input has its defined answer."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.errors import Invalid, Malformed, TooLarge
from rapport.common.events import without_personal
from rapport.intake.domain import (
    BatchItem,
    Submission,
    case_id,
    content_digest,
    feedback_id,
    feedback_id_of_event,
    id_prefix_of,
    parse_array,
    parse_json,
    read_array,
    read_lines,
    read_submission,
    reference_of,
)

NOW = datetime(2026, 3, 18, 9, 30, tzinfo=UTC)

COMPLAINT: dict[str, Any] = {
    "kind": "complaint",
    "channel": "web",
    "source": "shop",
    "source_ref": "T-1",
    "text": "The kettle leaks at the handle.",
}
ATTACHMENT = {"name": "leak.jpg", "media_type": "image/jpeg", "size": 9, "digest": "0a" * 32}


def sent(**fields: Any) -> Submission:
    return read_submission(COMPLAINT | fields, NOW)


def problems(document: object) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        read_submission(document, NOW)
    return {problem.pointer: problem.reason for problem in refused.value.problems}


def refusal(**fields: Any) -> dict[str, str]:
    return problems(COMPLAINT | fields)


def test_kind_channel_and_a_text_are_enough() -> None:
    submission = read_submission({"kind": "praise", "channel": "hotline", "text": "谢谢！"}, NOW)
    assert (submission.kind, submission.channel, submission.text) == ("praise", "hotline", "谢谢！")
    assert submission.contact.email is None


def test_a_rating_does_instead_of_a_text() -> None:
    rating = {"value": 4, "minimum": 1, "maximum": 5}
    answer = {"kind": "survey_answer", "channel": "survey", "rating": rating}
    submission = read_submission(answer, NOW)
    assert submission.rating is not None
    assert submission.rating.value == 4.0


def test_everything_that_may_be_sent() -> None:
    submission = sent(
        thread_ref="C-9",
        in_reply_to="T-0",
        contact={
            "kind": "dealer",
            "name": "آنا پترووا",
            "email": "ana@example.org",
            "phone": "+۹۸ ۲۱ ۱۲۳۴",
            "handles": {"weibo": "@ana", "telegram": "@petrova"},
            "url": "https://example.org/ana",
        },
        language="fa",
        subject="کتری",
        product="Kettle",
        region="EU",
        brand="Kettleworks",
        remedy_sought="My money back",
        reach={"followers": 10, "reposts": 2, "views": 300},
        public=True,
        url="https://example.org/post/1",
        outlet="Kitchen Weekly",
        occurred_at="2026-03-18T10:00:00+03:30",
        attachments=[ATTACHMENT],
        historical=True,
    )
    assert submission.occurred_at == datetime(2026, 3, 18, 6, 30, tzinfo=UTC)
    assert list(submission.contact.handles) == ["telegram", "weibo"]


@pytest.mark.parametrize(
    ("fields", "pointer", "reason"),
    [
        ({"txet": "x"}, "/txet", "is not a field that can be sent"),
        ({"a/b~c": 1}, "/a~1b~0c", "is not a field that can be sent"),
        ({"contact": {"e-mail": "x"}}, "/contact/e-mail", "is not a field that can be sent"),
        ({"contact": "Ana"}, "/contact", "must be an object"),
        ({"source_ref": 12}, "/source_ref", "must be text"),
        ({"text": ["x"]}, "/text", "must be text"),
        ({"text": "x" * 20_001}, "/text", "is longer than 20,000 characters"),
        ({"text": "x" * 5_000_000}, "/text", "is longer than 20,000 characters"),
        ({"subject": "x" * 301}, "/subject", "is longer than 300 characters"),
        ({"public": "yes"}, "/public", "must be true or false"),
        ({"public": 1}, "/public", "must be true or false"),
        ({"reach": {"views": "5"}}, "/reach/views", "must be a whole number"),
        ({"reach": {"views": 5.5}}, "/reach/views", "must be a whole number"),
        ({"reach": {"views": -1}}, "/reach/views", "must not be below 0"),
        ({"reach": {"views": True}}, "/reach/views", "must be a whole number"),
        ({"contact": {"email": "ana"}}, "/contact/email", "is not an e-mail address"),
        ({"contact": {"phone": "unknown"}}, "/contact/phone", "is not a telephone number"),
        ({"url": "javascript:alert(1)"}, "/url", "is not a web address"),
        ({"occurred_at": 1_585_000_000}, "/occurred_at", "must be a date and time as text"),
        ({"occurred_at": "1585000000"}, "/occurred_at", "is not a date and time like"),
        ({"occurred_at": "yesterday"}, "/occurred_at", "is not a date and time like"),
        ({"occurred_at": "2026-13-41T00:00:00Z"}, "/occurred_at", "is not a date and time"),
        ({"occurred_at": "2026-03-18"}, "/occurred_at", "needs a time and a time zone"),
        ({"occurred_at": "2026-03-18T09:30:00"}, "/occurred_at", "needs a time and a time zone"),
        ({"occurred_at": "1969-12-31T00:00:00Z"}, "/occurred_at", "must not be below 1970-01-01"),
        ({"occurred_at": "2026-03-20T09:30:00Z"}, "/occurred_at", "more than a day in the future"),
        ({"attachments": [ATTACHMENT] * 21}, "/attachments", "holds more than 20 items"),
        ({"attachments": [{"size": 1}]}, "/attachments/0/digest", "is required"),
        ({"attachments": [{"digest": "0A" * 32}]}, "/attachments/0/digest", "is not a SHA-256"),
        ({"attachments": [{"media_type": "jpg"}]}, "/attachments/0/media_type", "is not a media"),
        ({"attachments": [{"name": "\u202e"}]}, "/attachments/0/name", "must not be empty"),
        ({"attachments": "x"}, "/attachments", "must be an array"),
        ({"text": "half \ud83d"}, "/text", "is not valid Unicode"),
        ({"source_ref": "T\n1"}, "/source_ref", "holds a character that cannot be seen"),
        ({"source_ref": "T\u202e1"}, "/source_ref", "holds a character that cannot be seen"),
        ({"contact": {"handles": {"x": ""}}}, "/contact/handles/x", "must not be empty"),
        (
            {"contact": {"handles": {"x\ny": "@a"}}},
            "/contact/handles/x\ny",
            "is not the name of a network",
        ),
        ({"contact": {"handles": {str(n): "@a" for n in range(11)}}}, "/contact/handles", "10"),
        ({"historical": True}, "", "is historical and needs occurred_at"),
        ({"text": None}, "", "needs a text or a rating"),
        ({"text": " \u200b\x00\n"}, "", "needs a text or a rating"),
    ],
)
def test_what_is_refused_is_named_with_its_reason(
    fields: dict[str, Any], pointer: str, reason: str
) -> None:
    assert reason in refusal(**fields)[pointer]


@pytest.mark.parametrize(
    ("rating", "pointer"),
    [
        ({"value": 6, "minimum": 1, "maximum": 5}, "/rating"),
        ({"value": 1, "minimum": 1, "maximum": 1}, "/rating"),
        ({"value": "4", "minimum": 1, "maximum": 5}, "/rating/value"),
        ({"value": float("inf"), "minimum": 1, "maximum": 5}, "/rating/value"),
        ({"value": True, "minimum": 1, "maximum": 5}, "/rating/value"),
        ({"value": 4}, "/rating/minimum"),
    ],
)
def test_a_rating_lies_on_its_scale(rating: dict[str, Any], pointer: str) -> None:
    assert pointer in refusal(rating=rating)


def test_every_field_at_fault_is_named_at_once() -> None:
    assert problems({"kind": "rant", "contact": {"email": "x"}, "text": "x"}) == {
        "/kind": "must be one of 'complaint', 'question', 'request', 'praise', 'survey_answer' "
        "or 'mention'",
        "/channel": "is required",
        "/contact/email": "is not an e-mail address",
    }


@pytest.mark.parametrize("document", [None, [], "text", 5])
def test_only_an_object_can_be_a_submission(document: object) -> None:
    assert problems(document) == {"": "must be an object"}


def test_at_most_fifty_problems_are_told() -> None:
    assert len(refusal(**{f"unknown{n}": 1 for n in range(1_000)})) == 50


SECRET = "s3cret"


@given(
    st.dictionaries(
        st.sampled_from([*Submission.model_fields]),
        st.recursive(
            st.sampled_from([SECRET, f"{SECRET}@", 7, None, True, f"{SECRET}\n", f"20{SECRET}"]),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name"]), inner),
        ),
    )
)
def test_a_refusal_never_repeats_a_value(document: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        read_submission(document | {"rating": SECRET}, NOW)
    assert SECRET not in f"{refused.value.reason} {refused.value.problems}"


def test_free_text_is_cleaned() -> None:
    submission = sent(
        text="  Never\x00 again\u202e!\r\nReally.\u0085 ",
        subject="Kettle\r\nBcc: all@example.org",
        product="  Kettle\t K2 ",
    )
    assert submission.text == "Never again!\nReally."
    assert submission.subject == "Kettle Bcc: all@example.org"
    assert submission.product == "Kettle K2"


def test_joiners_that_persian_needs_stay() -> None:
    assert sent(text="می‌خواهم").text == "می‌خواهم"


def test_identifiers_are_only_trimmed() -> None:
    assert sent(source_ref=" T-1 ").source_ref == "T-1"


def test_empty_and_null_count_as_not_sent() -> None:
    nothing: dict[str, Any] = {"contact": None, "reach": None, "attachments": None}
    nothing |= {"subject": "", "thread_ref": " ", "url": "", "historical": None, "language": None}
    assert sent(**nothing) == sent()
    assert sent(contact={"email": "", "phone": "", "handles": None}) == sent()


def test_a_senders_clock_may_be_a_day_ahead() -> None:
    ahead = (NOW + timedelta(hours=23)).isoformat()
    assert sent(occurred_at=ahead).occurred_at == NOW + timedelta(hours=23)


def test_personal_fields_are_marked() -> None:
    shown = str(without_personal(sent(subject="S", contact={"name": "Ana", "email": "a@b.org"})))
    assert "shop" in shown
    assert not any(personal in shown for personal in ("kettle", "Ana", "a@b.org", "'S'"))


# JSON


def malformed(body: bytes) -> dict[str, str]:
    with pytest.raises(Malformed) as refused:
        parse_json(body)
    return {problem.pointer: problem.reason for problem in refused.value.problems}


@pytest.mark.parametrize(
    ("body", "pointer", "reason"),
    [
        (b"", "", "is not JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"a": 1,}', "", "is not JSON: trailing comma at line 1 column 9"),
        (b'{"a": 1} x', "", "is not JSON: trailing characters at line 1 column 10"),
        (b'{"a": "x\ny"}', "", "is not JSON: control character"),
        (b'{"a": 1, "a": 2}', "/a", "is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "/a/b", "is given twice"),
        (b'{"a": [NaN]}', "/a/0", "is NaN or Infinity"),
        (b'{"a": -Infinity}', "/a", "is NaN or Infinity"),
        (b'{"a": "\xff"}', "/a", "is not valid Unicode (UTF-8)"),
        (b'{"a": "\xed\xa0\x80"}', "/a", "is not valid Unicode (UTF-8)"),
        (b'{"a": ["\\ud83d"]}', "/a/0", "is not valid Unicode (UTF-8)"),
        (b'{"\xff": 1}', "/?", "has a name that is not UTF-8"),
        (b"[" * 33 + b"]" * 33, "", "is nested deeper than 32 levels"),
        (b"[" * 300 + b"]" * 300, "", "is nested deeper than 32 levels"),
        (b'{"a":' * 100_000, "", "is nested deeper than 32 levels"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "", "is not JSON: number out of range"),
        (b'{"ana@example.org": 1, "ana@example.org": 2', "", "is not JSON: duplicate key at line"),
    ],
)
def test_broken_json_is_told_by_field_or_position(body: bytes, pointer: str, reason: str) -> None:
    assert malformed(body)[pointer].startswith(reason)


def test_thirty_two_levels_are_not_too_deep() -> None:
    assert parse_json(b"[" * 32 + b"]" * 32)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "😀"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_json_that_is_right_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    body = json.dumps(value).encode()
    assert parse_json(body) == json.loads(body)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    with suppress(Malformed):
        parse_json(body)


# Batches


def results(items: Any) -> list[object]:
    return [
        item.result.text
        if isinstance(item.result, Submission)
        else [problem.pointer for problem in item.result.problems]
        for item in items
    ]


GOOD = json.dumps(COMPLAINT).encode()
TEXT = COMPLAINT["text"]


def test_in_an_array_the_good_items_go_through() -> None:
    twice = GOOD.replace(b'"source"', b'"source_ref"')
    deep = b'{"text": ' + b"[" * 40 + b"]" * 40 + b"}"
    items = [GOOD, b'{"txet": 1}', GOOD.replace(b"leaks", b"\xff"), b"7", twice, deep, GOOD]
    assert results(read_array(b"[" + b",".join(items) + b"]", NOW, limit=10)) == [
        TEXT,
        ["/kind", "/channel", "/txet"],
        ["/text"],
        [""],
        ["/source_ref"],
        [""],
        TEXT,
    ]


def test_lines_are_told_by_index_and_line() -> None:
    body = b"\n".join([GOOD, b"", b"{", GOOD + b"\r", b""])
    items = list(read_lines(body, NOW, limit=3))
    assert [(item.index, item.line) for item in items] == [(0, 1), (1, 3), (2, 4)]
    assert results(items) == [TEXT, [""], TEXT]


@pytest.mark.parametrize("body", [b"{}", b"7", b"[1,", b""])
def test_a_batch_that_is_no_array_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_array(body, NOW, limit=3)


def test_a_batch_over_the_limit_is_refused_before_its_first_item() -> None:
    with pytest.raises(TooLarge, match="holds 3 items; at most 2"):
        read_array(b"[1,2,3]", NOW, limit=2)
    with pytest.raises(TooLarge):
        read_lines(b"{}\n" * 3, NOW, limit=2)


def test_an_empty_array_has_no_items() -> None:
    assert list(parse_array(b" [ ] ", 0)) == []


def test_what_would_take_many_times_its_size_in_memory_is_not_read() -> None:
    for body in (b"[" + b"{}," * 250_000 + b"{}]", b"[" * 250_001):
        with pytest.raises(TooLarge, match="over 250,000 objects and arrays"):
            read_array(body, NOW, limit=1_000)


def test_a_batch_item_names_its_place() -> None:
    (item,) = read_array(b"[" + GOOD + b"]", NOW, limit=1)
    assert item == BatchItem(0, None, sent())


# Identity


def test_the_same_content_has_the_same_digest_however_it_is_written() -> None:
    reordered = dict(reversed(COMPLAINT.items())) | {"subject": None, "text": f"{TEXT} "}
    assert content_digest(read_submission(reordered, NOW)) == content_digest(sent())
    at = [{"occurred_at": "2026-03-18T09:30:00Z"}, {"occurred_at": "2026-03-18T13:00:00+03:30"}]
    assert content_digest(sent(**at[0])) == content_digest(sent(**at[1]))


def test_reach_is_no_content() -> None:
    assert content_digest(sent(reach={"views": 10})) == content_digest(sent())
    assert content_digest(sent(text="Other")) != content_digest(sent())


def test_digests_stay_what_they_are_from_version_to_version() -> None:
    """A change here would let what is sent again across an update come in twice."""
    assert content_digest(sent()) == "1e37a161c989d12de23ffc1d976a4575"


def test_a_repeat_meets_its_first_and_other_content_is_one_more_message() -> None:
    first = feedback_id("shop-app", sent())
    assert feedback_id("shop-app", sent(), key="k", index=3) == first
    assert feedback_id("shop-app", sent(text="It still leaks.")) != first
    assert feedback_id("other-app", sent()) != first
    assert feedback_id("shop-app", sent(source="till")) != first


def test_without_a_reference_the_idempotency_key_names_it() -> None:
    plain = sent(source_ref=None)
    first = feedback_id("c", plain, key="k")
    assert feedback_id("c", plain, key="k") == first
    others = [
        feedback_id("c", plain, key="l"),
        feedback_id("c", plain, key="k", index=1),
        feedback_id("c", sent(source_ref=None, text="Other"), key="k"),
    ]
    assert len({first, *others}) == 4


def test_without_either_every_message_is_new() -> None:
    plain = sent(source_ref=None)
    assert feedback_id("c", plain) != feedback_id("c", plain)


def test_an_event_is_known_by_source_and_id() -> None:
    first = feedback_id_of_event("/shop", "1")
    assert first == feedback_id_of_event("/shop", "1", 0)
    assert len({first, feedback_id_of_event("/shop", "1", 1), feedback_id_of_event("/s", "1")}) == 3


def test_a_conversation_is_one_case() -> None:
    opening = case_id("c", sent(), "f1")
    assert case_id("c", sent(source_ref="T-2", thread_ref="T-1"), "f2") == opening
    assert case_id("c", sent(source_ref="T-3"), "f3") != opening
    assert case_id("c", sent(source_ref=None), "f4") == "f4"


def test_a_reference_leads_back_to_its_id() -> None:
    identifier = feedback_id("c", sent())
    reference = reference_of(identifier)
    assert len(reference) == 16
    assert reference.startswith("R-")
    assert id_prefix_of(reference) == identifier[:12]
    assert id_prefix_of(reference.lower().replace("-", " ").replace("0", "o")) == identifier[:12]
    assert id_prefix_of(reference[2:]) == identifier[:12]


@pytest.mark.parametrize("text", ["", "R-", "R-7K2M-Q0XA", "R-7K2M-Q0XA-93TU", "x" * 26])
def test_what_is_no_reference_leads_nowhere(text: str) -> None:
    assert id_prefix_of(text) is None


@given(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=26, max_size=26))
def test_references_keep_sixty_bits(identifier: str) -> None:
    assert id_prefix_of(reference_of(identifier)) == identifier[:12]
