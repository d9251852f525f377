"""Mappings: other people's tables and JSON become feedback, or are refused in their own names."""

import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.errors import Invalid, TooLarge
from rapport.intake.domain import (
    Mapping,
    apply,
    apply_all,
    origin_of,
    parse_mapping,
    read_submission,
    serving,
)
from rapport.intake.domain.targets import FORMS

NOW = datetime(2026, 11, 22, tzinfo=UTC)

ALWAYS = {"kind": "complaint", "channel": "web"}
TICKET: dict[str, Any] = {
    "id": 7,
    "tags": ["leak", "kettle"],
    "requester": {"email": "ana@example.org"},
}


def mapping(fields: str = "", head: str = "") -> Mapping:
    """A mapping with these lines under `fields`, and `text` from Text."""
    lines = "".join(f"  {line}\n" for line in ["text: Text", *fields.strip().splitlines()])
    always = "always: {kind: complaint, channel: web}"
    return parse_mapping(f"{head}\n{always}\nfields:\n{lines}", "test.yaml")


def mapped(fields: str, **document: Any) -> dict[str, Any]:
    """What the fields make of the document, less the constants."""
    made = apply(mapping(fields), document)
    return {name: value for name, value in made.items() if name not in ALWAYS}


def refused(fields: str, head: str = "", **document: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        apply(mapping(fields, head), document)
    return {problem.pointer: problem.reason for problem in refusal.value.problems}


def mistakes(text: str) -> list[str]:
    with pytest.raises(Invalid) as refusal:
        parse_mapping(text, "bad.yaml")
    return refusal.value.reason.splitlines()


# Names and paths


def test_a_column_is_named_as_it_stands() -> None:
    row = {"Timely response?": "Yes", "No.": "1001", "Product": " Kettle "}
    fields = "product: Product\nregion: Timely response?\nsource_ref: No."
    assert mapped(fields, **row) == {"product": "Kettle", "region": "Yes", "source_ref": "1001"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("id", "7"),
        ("requester.email", "ana@example.org"),
        ("tags.0", "leak"),
        ("tags.-1", "kettle"),
        ("{from: tags, join: ', '}", "leak, kettle"),
        ("{from: comments.*.body, join: ' / '}", "First. / Second."),
        ("a.b", "as it stands"),
    ],
)
def test_a_path_goes_deeper(path: str, found: str) -> None:
    ticket = TICKET | {"a.b": "as it stands", "a": {"b": "deeper"}}
    ticket["comments"] = [{"body": "First."}, {}, {"body": " "}, {"body": "Second."}]
    assert mapped(f"subject: {path}", **ticket)["subject"] == found


@pytest.mark.parametrize("path", ["missing", "id.deeper", "tags.2", "tags.x", "requester.name"])
def test_what_is_not_there_is_left_out(path: str) -> None:
    assert mapped(f"subject: {path}", **TICKET) == {}


@pytest.mark.parametrize("nothing", [None, "", "  ", []])
def test_what_is_empty_is_left_out(nothing: object) -> None:
    assert mapped("subject: {from: S, join: ' '}", S=nothing) == {}


def test_a_list_or_an_object_is_no_value() -> None:
    fields = "subject: tags\nproduct: requester"
    assert refused(fields, **TICKET) == {
        "/tags": "is a list: say join, or a position such as .0",
        "/requester": "holds fields of its own: name one of them",
    }


# Rules


def test_a_template_is_filled_whole_or_not_at_all() -> None:
    fields = 'subject: {template: "{Product}: {Issue} ({n})"}'
    assert mapped(fields, Product="Kettle", Issue="leaks", n=2)["subject"] == "Kettle: leaks (2)"
    assert mapped(fields, Product="Kettle", Issue="", n=2) == {}


def test_a_filled_template_is_not_filled_again() -> None:
    assert mapped('subject: {template: "{a} {b}"}', a="{b}", b="x")["subject"] == "{b} x"


def test_the_first_that_is_not_empty_is_taken() -> None:
    fields = 'subject: {first: [A, {template: "{B}!"}, {from: C, otherwise: nothing}]}'
    assert mapped(fields, A="a", B="b")["subject"] == "a"
    assert mapped(fields, A=" ", B="b")["subject"] == "b!"
    assert mapped(fields)["subject"] == "nothing"


def test_values_are_translated_whatever_their_case() -> None:
    fields = "region: {from: R, values: {North East: ne, 华东: east, 1: one, gone: null}}"
    assert mapped(fields, R=" north EAST ") == {"region": "ne"}
    assert mapped(fields, R="华东") == {"region": "east"}
    assert mapped(fields, R=1) == {"region": "one"}
    assert mapped(fields, R="gone") == {}
    assert refused(fields, R="s3cret") == {
        "/R": "has a value that the mapping's table does not list"
    }


def test_otherwise_stands_for_nothing_and_for_what_is_not_listed() -> None:
    fields = "region: {from: R, values: {north: n, gone: null}, otherwise: elsewhere}"
    assert mapped(fields, R="south")["region"] == mapped(fields)["region"] == "elsewhere"
    assert mapped(fields, R="gone") == {}
    assert mapped("region: {from: R, values: {north: n}, otherwise: null}", R="south") == {}


def test_a_text_is_split_and_a_part_taken() -> None:
    assert mapped("region: {from: R, split: '-', part: -1}", R="zh-CN") == {"region": "CN"}
    assert mapped("region: {from: R, split: '-', part: 5}", R="zh-CN") == {}
    assert mapped("language: {from: L, split: '-', values: {zh: zh}}", L="zh-CN") == {
        "language": "zh"
    }


@pytest.mark.parametrize(
    ("date", "value", "moment"),
    [
        ("iso", "2026-03-18T09:30:00+01:00", "2026-03-18T08:30:00+00:00"),
        ("iso", "2026-03-18 09:30", "2026-03-18T08:30:00+00:00"),
        ("'%Y/%m/%d'", "2020/3/8", "2020-03-07T23:00:00+00:00"),
        ("'%d.%m.%Y %H:%M'", "01.07.2026 12:00", "2026-07-01T10:00:00+00:00"),
        ("'%Y-%m-%d %H:%M %z'", "2026-03-18 09:30 +0330", "2026-03-18T06:00:00+00:00"),
        ("unix", 1_773_826_200, "2026-03-18T09:30:00+00:00"),
        ("unix_ms", "1773826200000", "2026-03-18T09:30:00+00:00"),
        ("['%d.%m.%Y', '%Y-%m-%d']", "2026-03-18", "2026-03-17T23:00:00+00:00"),
        ("'%Y/%m/%d'", "۲۰۲۶/۰۳/۱۸", "2026-03-17T23:00:00+00:00"),
    ],
)
def test_a_date_is_read_in_its_zone(date: str, value: object, moment: str) -> None:
    zoned = mapping(f"occurred_at: {{from: D, date: {date}}}", "zone: Europe/Berlin")
    assert apply(zoned, {"D": value})["occurred_at"] == moment


def test_a_date_of_a_rule_may_have_its_own_zone() -> None:
    fields = "occurred_at: {from: D, date: '%Y-%m-%d', zone: Asia/Tehran}"
    assert mapped(fields, D="2026-03-18")["occurred_at"] == "2026-03-17T20:30:00+00:00"


@pytest.mark.parametrize(
    "value", ["2020/13/41", "s3cret", "9" * 200, "0001/01/01", "9999/12/31", True]
)
def test_a_date_that_is_none_is_refused_with_its_form(value: object) -> None:
    fields = "occurred_at: {from: Date received, date: '%Y/%m/%d'}"
    assert refused(fields, "zone: UTC", **{"Date received": value}) == {
        "/Date received": "is not a date like %Y/%m/%d"
    }


def test_a_time_without_a_zone_is_never_guessed() -> None:
    assert refused("occurred_at: at", at="2026-03-18T09:30:00") == {
        "/at": "tells no time zone, and the mapping names none"
    }


@pytest.mark.parametrize("stamp", [1e300, "nan", "-inf", "x"])
def test_a_time_stamp_that_is_none_is_refused(stamp: object) -> None:
    assert "/at" in refused("occurred_at: {from: at, date: unix}", at=stamp)


def test_values_take_the_form_of_their_field() -> None:
    fields = "reach.views: V\npublic: P\nrating.value: R\nrating.minimum: L\nrating.maximum: H"
    row = {"V": "300", "P": "Yes", "R": "4.5", "L": "۱", "H": 5}
    assert mapped(fields, **row) == {
        "reach": {"views": 300},
        "public": True,
        "rating": {"value": 4.5, "minimum": 1.0, "maximum": 5.0},
    }
    assert refused(fields, V="1,234", P="perhaps", R="4e5", L="1", H="5") == {
        "/V": "is not a whole number",
        "/P": "is not true or false, yes or no, 1 or 0",
        "/R": "is not a number like 4 or 4.5",
    }


def test_a_scale_without_a_score_is_no_rating() -> None:
    head = "skip_when: {Text: null}"
    scaled = mapping("rating.value: R\nrating.minimum: L\nrating.maximum: H", head)
    assert "rating" not in apply(scaled, {"L": 1, "H": 5})


# Whole documents


def test_each_item_of_a_list_is_one_feedback() -> None:
    chat = mapping(
        "brand: $.account.name\nsource_ref: id",
        "each: entry.*.messages\nskip_when: {role: [agent, bot]}\nonly_when: {$.event: message}",
    )
    payload = {
        "event": "message",
        "account": {"name": "Kettleworks"},
        "entry": [
            {"messages": [{"id": 1, "Text": "a"}, {"id": 2, "Text": "b", "role": "bot"}]},
            {"messages": [{"id": 3, "Text": ["c"]}, {"id": 4, "Text": "d"}]},
        ],
    }
    results = list(apply_all(chat, payload))
    assert [position for position, _ in results] == [0, 2, 3]
    first, fault, last = (result for _, result in results)
    assert first == ALWAYS | {"brand": "Kettleworks", "source_ref": "1", "text": "a"}
    assert isinstance(fault, Invalid)
    assert isinstance(last, dict)
    assert list(apply_all(chat, payload | {"event": "ping"})) == []
    assert list(apply_all(chat, {"event": "message"})) == []
    assert len(list(apply_all(chat, payload, limit=4))) == len(results)
    with pytest.raises(TooLarge, match="holds 4 items; at most 3"):
        list(apply_all(chat, payload | {"event": "ping"}, limit=3))


def test_a_cloud_event_is_reached_around_its_data() -> None:
    event = {"id": "e1", "source": "/shop", "data": {"Text": "It leaks."}}
    served = mapping("source_ref: $.id\nsource: $.source")
    ((_, result),) = apply_all(served, event["data"], event)
    assert result == ALWAYS | {"source_ref": "e1", "source": "/shop", "text": "It leaks."}


def test_an_event_type_is_served_by_the_nearest_mapping() -> None:
    wide = mapping(head="events: [com.shop.*]")
    near = mapping(head="events: [com.shop.chat.*, org.forum.post]")
    exact = mapping(head="events: [com.shop.chat.message]")
    all_of_them = [wide, near, exact]
    assert serving(all_of_them, "com.shop.chat.message") is exact
    assert serving(all_of_them, "com.shop.chat.closed") is near
    assert serving(all_of_them, "com.shop.order") is wide
    assert serving(all_of_them, "org.forum.post.deleted") is None


def test_a_field_at_fault_is_known_by_the_senders_name() -> None:
    named = mapping('contact.email: req.mail\nsubject: {first: [A, {template: "{A}: {B}"}]}')
    assert origin_of(named, "/contact/email") == "req.mail"
    assert origin_of(named, "/subject") == "A or B"
    assert origin_of(named, "/kind") is None


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "id", "text", "author", "type"]), inner)
    ),
    max_leaves=15,
)


@given(documents)
def test_no_document_breaks_a_mapping(document: Any) -> None:
    for name in SHIPPED:
        for _, result in apply_all(shipped(name), document):
            assert isinstance(result, dict | Invalid)


# What people write wrong


@pytest.mark.parametrize(
    ("text", "first_mistake"),
    [
        ("", "bad.yaml:1: must be a table of names and values"),
        ("- x", "bad.yaml:1: must be a table of names and values"),
        ("each: [", "bad.yaml:2: did not find expected node content"),
        ("always: {}\nalways: {}", "bad.yaml:2: the key 'always' is given twice"),
        ("constants: {}", "bad.yaml:1: constants: is not known here; known are name, about"),
        ("zone: Mars/Base", "bad.yaml:1: zone: is not a time zone like Europe/Berlin or UTC"),
        ("zone: ../etc", "bad.yaml:1: zone: is not a time zone"),
    ],
)
def test_a_file_that_is_no_mapping(text: str, first_mistake: str) -> None:
    assert mistakes(text)[0].startswith(first_mistake)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("chanel: Via", "fields.chanel: is not a field of feedback; is it channel?"),
        ("fruit: Via", "fields.fruit: is not a field of feedback"),
        ("brand: 7", "fields.brand: must be the name of a column, a path, or a rule"),
        ("brand: {Brand}", "fields.brand.Brand: is not known here; braces without quotes"),
        ("brand: {form: Brand}", "fields.brand.form: is not known here; is it from?"),
        ("brand: {otherwise: x}", "fields.brand: needs one of from, template, first"),
        ("brand: {from: A, template: '{A}'}", "fields.brand: needs one of from, template, first"),
        ("brand: {template: A}", "fields.brand.template: must hold names in braces"),
        ("brand: {template: '{A'}", "fields.brand.template: must hold names in braces"),
        ("brand: {from: A, part: 1}", "fields.brand: has a part, but nothing to split at"),
        ("brand: {from: A, date: iso}", "fields.brand.date: belongs to occurred_at alone"),
        ("kind: {from: A, values: {x: rant}}", "fields.kind.values.x: must be one of"),
        ("kind: {from: A, otherwise: rant}", "fields.kind.otherwise: must be one of"),
        ("kind: {first: [{from: A, otherwise: rant}]}", "fields.kind.first.0.otherwise: must be"),
        ("kind: {from: A, values: {Yes: x}}", "fields.kind.values: put quotes around yes, no"),
        ("kind: {from: A, values: {x: 1, X: 2}}", "fields.kind.values: tells a value twice"),
        ("kind: {from: A, values: x}", "fields.kind.values: must be a table like"),
        ("kind: {from: A, otherwise: 2020-01-01}", "fields.kind.otherwise: must be text, a number"),
        ("occurred_at: {from: D, date: '%H:%M'}", "fields.occurred_at.date: must be iso, unix"),
        ("occurred_at: {from: D, date: '%Q'}", "fields.occurred_at.date: must be iso, unix"),
        ("occurred_at: {from: D, date: '%Y-%m-%d'}", "fields.occurred_at.date: tells no time zone"),
        ("rating.value: R", "fields.rating.value: needs rating.minimum and rating.maximum"),
        ("source: S", "fields.source: is set by 'always' as well: take one away"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_field(line: str, mistake: str) -> None:
    text = f"always: {{channel: web, source: s}}\nfields:\n  text: T\n  {line}\n"
    found = mistakes(text if line.startswith("kind") else f"{text}  kind: K\n")
    assert found == [found[0]]
    assert found[0].startswith(f"bad.yaml:4: {mistake}")


def test_a_mapping_says_kind_channel_and_a_text_or_a_rating() -> None:
    assert mistakes("always: {brand: B}\nfields:\n  product: P\n") == [
        "bad.yaml:2: fields.kind: is required: set it in 'always' or in 'fields'",
        "bad.yaml:2: fields.channel: is required: set it in 'always' or in 'fields'",
        "bad.yaml:2: fields.text: is required (or rating.value)",
    ]


@pytest.mark.parametrize(
    ("constant", "mistake"),
    [
        ("kind: complant", "kind: must be one of 'complaint'"),
        ("kind: 7", "kind: must be one of 'complaint'"),
        ("contact.email: ana", "contact.email: is not an e-mail address"),
        ("public: maybe", "public: is not true or false"),
        ("reach.views: -1", "reach.views: is not a whole number"),
        ("occurred_at: 2020-01-01", "occurred_at: must be text"),
        ("contact: {}", "contact: must be text"),
    ],
)
def test_a_constant_that_no_feedback_can_have(constant: str, mistake: str) -> None:
    text = f"always:\n  {constant}\nfields: {{kind: K, channel: C, text: T}}\n"
    assert mistakes(text)[0].startswith(f"bad.yaml:2: always.{mistake}")


# What we ship, and what the manual shows

SHIPPED = ("cfpb", "helpdesk_export", "social_webhook")
MANUAL = Path(__file__).parents[3] / "docs" / "mappings.md"


def shipped(name: str) -> Mapping:
    return parse_mapping(
        files("rapport.intake").joinpath("mappings", f"{name}.yaml").read_text("utf-8"),
        f"{name}.yaml",
    )


def test_every_mapping_that_we_ship_is_tried_here() -> None:
    folder = files("rapport.intake").joinpath("mappings")
    assert {entry.name for entry in folder.iterdir()} == {f"{name}.yaml" for name in SHIPPED}
    assert [shipped(name).name for name in SHIPPED] == [*SHIPPED]


def test_a_public_complaint_without_a_narrative() -> None:
    row = {"Complaint ID": "1", "Date received": "2026/3/8", "Product": "Card", "State": ""}
    row |= {"Issue": "Late", "Sub-issue": "Fee", "Company": "Bank", "Submitted via": "Postal mail"}
    assert apply(shipped("cfpb"), row | {"Consumer complaint narrative": ""}) == {
        "kind": "complaint",
        "source": "cfpb",
        "source_ref": "1",
        "occurred_at": "2026-03-08T05:00:00+00:00",
        "channel": "other",
        "subject": "Late",
        "text": "Late: Fee",
        "brand": "Bank",
        "product": "Card",
    }


HELPDESK_JSON = {
    "id": 35436,
    "created_at": "2026-03-18T09:30:00Z",
    "type": "problem",
    "via": {"channel": "whatsapp"},
    "subject": "水壶漏水",
    "description": "把手处漏水。",
    "requester": {"name": "王芳", "email": "fang@example.org", "phone": None},
    "satisfaction_rating": {"score": "bad"},
    "tags": ["kettle"],
}
HELPDESK_CSV = {
    "Ticket ID": "35436",
    "Created time": "2026-03-18 09:30:00",
    "Type": "Problem",
    "Source": "WhatsApp",
    "Subject": "水壶漏水",
    "Description": "把手处漏水。",
    "Full name": "王芳",
    "Email": "fang@example.org",
    "Phone": "",
    "Survey results": "Bad",
    "Agent": "Ben",
}


@pytest.mark.parametrize("ticket", [HELPDESK_JSON, HELPDESK_CSV])
def test_a_ticket_is_the_same_from_json_and_from_a_table(ticket: dict[str, Any]) -> None:
    assert apply(shipped("helpdesk_export"), ticket) == {
        "source": "helpdesk",
        "source_ref": "35436",
        "occurred_at": "2026-03-18T09:30:00+00:00",
        "kind": "complaint",
        "channel": "chat",
        "subject": "水壶漏水",
        "text": "把手处漏水。",
        "contact": {"kind": "customer", "name": "王芳", "email": "fang@example.org"},
        "rating": {"minimum": 1.0, "maximum": 5.0, "value": 1.0},
    }


def test_a_webhook_brings_what_people_said_and_not_what_we_answered() -> None:
    payload = {
        "event": "message.created",
        "account": {"brand": "Kettleworks"},
        "messages": [
            {
                "id": 81,
                "conversation_id": "c5",
                "network": "instagram",
                "sent_at": 1_773_826_200,
                "language": "fa-IR",
                "text": "کتری چکه می‌کند",
                "public": True,
                "author": {"name": "آنا", "handle": "@ana", "followers": 1200},
                "shares": 4,
            },
            {"id": 82, "network": "instagram", "text": "Sorry!", "author": {"role": "agent"}},
        ],
    }
    ((_, message),) = apply_all(shipped("social_webhook"), payload)
    assert message == {
        "source": "instagram",
        "source_ref": "81",
        "thread_ref": "c5",
        "occurred_at": "2026-03-18T09:30:00+00:00",
        "kind": "mention",
        "channel": "social",
        "language": "fa",
        "text": "کتری چکه می‌کند",
        "brand": "Kettleworks",
        "public": True,
        "contact": {"kind": "customer", "name": "آنا", "handles": {"social": "@ana"}},
        "reach": {"followers": 1200, "reposts": 4},
    }
    assert read_submission(message, NOW).reach.reposts == 4


def manual_examples() -> list[str]:
    """The manual's mappings; what shows rules alone gets the rest that a mapping needs."""
    blocks = re.findall(r"```yaml\n(.*?)```", MANUAL.read_text("utf-8"), re.DOTALL)
    return [block if "always:" in block else completed(block) for block in blocks]


def completed(rules: str) -> str:
    text = "" if "text:" in rules else "  text: T\n"
    lines = "".join(f"  {line}\n" for line in rules.splitlines())
    return f"always: {{kind: complaint, channel: web}}\nfields:\n{text}{lines}"


def test_every_example_of_the_manual_is_a_mapping() -> None:
    assert len(manual_examples()) == 5
    for example in manual_examples():
        parse_mapping(example, "mappings.md")


def test_the_manual_names_every_field() -> None:
    manual = MANUAL.read_text("utf-8")
    assert [name for name in FORMS if f"`{name}`" not in manual] == []


def test_the_table_of_the_manual_is_read_by_its_mapping() -> None:
    shop = parse_mapping(manual_examples()[0], "kettle_shop.yaml")
    names, *rows = [
        line.strip().split(";")
        for line in MANUAL.read_text("utf-8").splitlines()
        if line.count(";") == 7
    ]
    first, second = (
        read_submission(apply(shop, dict(zip(names, row, strict=True))), NOW) for row in rows
    )
    assert (first.channel, first.text, first.contact.name) == (
        "hotline",
        "It leaks.",
        "Ana Petrova",
    )
    assert (second.channel, second.text, second.language) == ("chat", "水壶 (no text)", None)
    assert second.rating is not None
    assert second.rating.value == 5
