"""Whatever strangers send, in lines, in records of a bus or as YAML, each thing has its answer."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from rapport.common.errors import Invalid
from rapport.intake.domain import Submission, items_of_document, read_lines
from rapport.intake.domain.foreign import items_of_event, read_record
from rapport.intake.domain.mapping import parse_mapping
from rapport.intake.repository import load_mappings

NOW: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)
SHIPPED: Final = load_mappings()
COMPLAINT: Final = {"kind": "complaint", "channel": "web", "text": "It leaks."}

HEADERS: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")
WORDS: Final = st.sampled_from(
    [b"1.0", b"1", b"/shop", b"rapport.feedback.submitted.v1", b"application/cloudevents+json"]
)
DOCUMENTS: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*COMPLAINT, "a", "b", "c", "data"]), inner, max_size=4)
    ),
    max_leaves=8,
)
ODD: Final = parse_mapping(
    """\
zone: UTC
each: data
always: {kind: complaint}
fields:
  channel: {from: a.b, values: {Phone: hotline}, otherwise: other}
  text: {template: "{a}: {$.data.0.b}"}
  subject: {first: [a.*.c, {from: b, split: "-", part: -1}, {from: c, join: ", "}]}
  occurred_at: {from: b, date: [unix, unix_ms, "%Y-%m-%d"]}
  reach.views: a
  rating.value: {from: c, otherwise: 3}
  rating.minimum: b
  rating.maximum: c.1
  contact.handles.telegram: a.0
""",
    "odd.yaml",
)


@given(
    st.lists(
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
        | st.sampled_from([json.dumps(COMPLAINT).encode(), b"{}", b" ", b"null", b'{"kind": "x"}'])
    )
)
def test_every_line_has_its_answer(lines: list[bytes]) -> None:
    items = list(read_lines(b"\n".join(lines), NOW, 1_000))
    assert [item.line for item in items] == [n for n, line in enumerate(lines, 1) if line.strip()]
    assert [item.index for item in items] == list(range(len(items)))
    assert all(isinstance(item.result, Submission | Invalid) for item in items)


@given(
    st.dictionaries(st.sampled_from(HEADERS), st.binary(max_size=12) | WORDS),
    st.none() | st.binary(max_size=60) | DOCUMENTS.map(lambda value: json.dumps(value).encode()),
)
def test_no_record_of_others_breaks_their_reader(
    headers: dict[str, bytes], value: bytes | None
) -> None:
    whole = {name: b"1" for name in HEADERS[1:4]} | {"ce_specversion": b"1.0"} | headers
    for told in (headers, whole):
        with suppress(Invalid):
            for _, result in items_of_event(read_record(told.items(), value), SHIPPED, NOW):
                assert isinstance(result, Submission | Invalid)


@given(DOCUMENTS)
def test_every_item_is_a_submission_or_told_why_not(document: Any) -> None:
    for mapping in (*SHIPPED.values(), ODD):
        for whole in (document, {"data": document}, {"data": [document]}):
            for _, result in items_of_document(mapping, whole, NOW):
                assert isinstance(result, Submission | Invalid)


@given(st.text(max_size=60) | DOCUMENTS.map(json.dumps))
def test_any_text_is_a_mapping_or_told_with_its_line(text: str) -> None:
    try:
        parse_mapping(text, "any.yaml")
    except Invalid as refused:
        told = refused
    else:
        return
    assert all(problem.pointer.startswith("any.yaml:") for problem in told.problems)
