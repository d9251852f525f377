"""Messages in words: the built-in templates, an operator's own, and what templates may not do."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.events import CATALOGUE
from rapport.common.events.knowledge import Purpose
from rapport.common.events.vocabulary import ComplaintType, Kind, OwnReason, Severity
from rapport.notification.channels.rendering import (
    DIRECTION,
    LONGEST_OUTPUT,
    LONGEST_TEMPLATE,
    MOST_LOOPS,
    Alert,
    BadTemplate,
    Digest,
    Renderer,
    Reply,
    Statement,
    as_html,
    words,
)

NOON = datetime(2026, 11, 22, 12, 5, 59, tzinfo=UTC)
ALERT = Alert(
    event="clock.breached",
    about="R-1042",
    reason="No reply to the customer yet.\nThe lead was told.",
    severity="high",
    responsible="Ana",
    at=NOON,
    due_at=NOON + timedelta(hours=4),
    suppressed=7,
    url="https://rapport.example/cases/1042",
)
DIGEST = Digest(
    start=NOON - timedelta(days=1),
    end=NOON,
    total=42,
    by_kind={"complaint": 30, "praise": 12},
    lines=[
        {
            "topic": "product_quality",
            "product": "Aria 5",
            "region": "تهران",
            "count": 12,
            "negative": 9,
            "change": 0.25,
        },
        {
            "topic": "other",
            "product": None,
            "region": None,
            "count": 3,
            "negative": 0,
            "change": None,
        },
    ],
    items=[{"event": "crisis.proposed", "about": "Aria 5", "at": NOON}],
    suppressed=5,
    url=None,
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.mark.parametrize(
    ("language", "subject", "line"),
    [
        ("en", "Overdue: R-1042", "Until: 2026-11-22 16:05 UTC"),
        ("zh", "已逾期：R-1042", "期限：2026-11-22 16:05 UTC"),
        ("fa", "مهلت گذشت: \u2068R-1042\u2069", "مهلت: \u20662026-11-22 16:05 UTC\u2069"),
        ("und", "Overdue: R-1042", "Severity: high"),
    ],
)
def test_an_alert_says_what_happened_until_when_and_who(
    renderer: Renderer, language: str, subject: str, line: str
) -> None:
    alert = renderer.render("alert", language, ALERT)
    assert alert.subject == subject
    assert line in alert.text.splitlines()
    for fact in ("R-1042", "No reply to the customer yet.", "Ana", "7", ALERT["url"]):
        assert str(fact) in alert.text


def test_an_alert_leaves_out_what_is_not_known(renderer: Renderer) -> None:
    bare = Alert(
        event="crisis.declared",
        about="Aria 5",
        reason="",
        severity=None,
        responsible=None,
        at=NOON,
        due_at=None,
        suppressed=0,
        url=None,
    )
    assert renderer.render("alert", "en", bare).text == (
        "Crisis declared: Aria 5\n\nWhen: 2026-11-22 12:05 UTC\n"
    )


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "The first response is overdue."),
        ("zh", "首次回复已逾期。"),
        ("fa", "مهلت نخستین پاسخ گذشته است."),
    ],
)
def test_why_something_happened_by_itself_is_said_in_the_readers_language(
    renderer: Renderer, language: str, line: str
) -> None:
    alert = renderer.render("alert", language, {**ALERT, "reason": OwnReason.OVERDUE.value})
    assert line in alert.text.splitlines()


def test_an_event_without_words_is_told_by_its_name(renderer: Renderer) -> None:
    alert = renderer.render("alert", "zh", {**ALERT, "event": "task.opened"})
    assert alert.subject == "task.opened：R-1042"


def test_a_digest_counts_by_topic_product_and_region(renderer: Renderer) -> None:
    assert renderer.render("digest", "en", DIGEST).text == (
        "What was heard from 2026-11-21 12:05 UTC to 2026-11-22 12:05 UTC\n"
        "\n"
        "Messages: 42\n"
        "- complaints: 30\n"
        "- praise: 12\n"
        "\n"
        "By topic, product and region\n"
        "- product quality, Aria 5, \u2068تهران\u2069: 12 (9 negative, +25%)\n"
        "- other: 3 (0 negative)\n"
        "\n"
        "What happened\n"
        "- 2026-11-22 12:05 UTC: Possible crisis: Aria 5\n"
        "\n"
        "Held back, not listed here: 5\n"
    )


@pytest.mark.parametrize("language", ["zh", "fa"])
def test_a_digest_has_the_same_figures_in_every_language(renderer: Renderer, language: str) -> None:
    digest = renderer.render("digest", language, DIGEST)
    english = renderer.render("digest", "en", DIGEST)
    for figure in ("42", "30", "12", "+25%", "2026-11-22 12:05 UTC", "Aria 5", "تهران"):
        assert figure in digest.text
    assert len(digest.text.splitlines()) == len(english.text.splitlines())
    assert "negative" not in digest.text


@pytest.mark.parametrize("language", [*DIRECTION, "und"])
@pytest.mark.parametrize("text", ["", "One.\n", "\n two  spaces \r\n", "{{ 7 * 7 }}", "<b>&amp;"])
def test_a_statement_passes_through_byte_for_byte(
    renderer: Renderer, language: str, text: str
) -> None:
    rendered = renderer.render("statement", language, Statement(subject=" {% S %}", text=text))
    assert (rendered.subject, rendered.text) == (" {% S %}", text)


def test_a_reply_ends_with_its_reference(renderer: Renderer) -> None:
    reply = Reply(subject="Your order", text="It is on its way.", reference="R-7")
    assert renderer.render("reply", "en", reply).text == (
        "It is on its way.\n\nYour reference: R-7\n"
    )
    without = renderer.render("reply", "fa", {**reply, "reference": None})
    assert without.text == "It is on its way."


def test_times_of_other_zones_are_told_in_utc(renderer: Renderer) -> None:
    tehran = NOON.astimezone(timezone(timedelta(hours=3, minutes=30)))
    assert (
        "When: 2026-11-22 12:05 UTC" in renderer.render("alert", "en", {**ALERT, "at": tehran}).text
    )


@pytest.mark.parametrize(
    ("language", "about", "shown"),
    [
        ("en", "برند آریا", "\u2068برند آریا\u2069"),
        ("en", "two\nlines", "two lines"),
        ("en", "abc\u202egnp.exe", "abcgnp.exe"),
        ("fa", "برند آریا", "برند آریا"),
        ("fa", "Aria \u2069\u202e5", "\u2068Aria 5\u2069"),
        ("zh", "新款手机", "新款手机"),
    ],
)
def test_words_of_others_cannot_turn_the_text_around_them(
    renderer: Renderer, language: str, about: str, shown: str
) -> None:
    subject = renderer.render("alert", language, {**ALERT, "about": about}).subject
    assert subject.endswith(shown)


@pytest.mark.parametrize("language", DIRECTION)
def test_every_listed_word_has_words_in_every_language(language: str) -> None:
    told = words(language)
    events = {".".join(type.split(".")[1:3]) for type in CATALOGUE}
    assert set(told["event"]) <= events
    assert set(told["event"]) == set(words("en")["event"])
    lists: Mapping[str, type[StrEnum]] = {
        "topic": ComplaintType,
        "kind": Kind,
        "severity": Severity,
        "own_reason": OwnReason,
    }
    for name, members in lists.items():
        assert set(told[name]) == {member.value for member in members}
    assert set(told["purpose"]) == set(get_args(Purpose))


class Links(HTMLParser):
    """The links of a page, and its words with line breaks."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str | None] = []
        self.words = ""
        self.tags: set[str] = set()
        self.feed(html.partition("<div")[2].partition(">")[2].partition("</div>")[0])
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.words += "\n" * (tag == "br")
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.words += data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n<>&\"'")))
def test_the_html_says_exactly_the_text(text: str) -> None:
    page = Links(as_html("S", text, "en"))
    assert page.words == text
    assert page.tags <= {"br", "a"}


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("See https://example.com/a?b=1&c=2.", ["https://example.com/a?b=1&c=2"]),
        ("（https://example.com/路径）。", ["https://example.com/路径"]),
        ("https://a.test، http://b.test؟", ["https://a.test", "http://b.test"]),
        ('https://a.test/"onclick="x', ["https://a.test"]),
        ("javascript:alert(1) https:// ftp://a.test", []),
    ],
)
def test_web_addresses_become_links(text: str, links: list[str]) -> None:
    page = Links(as_html("S", text, "en"))
    assert [link.rstrip("/") for link in page.links if link] == links
    assert page.words == text


def test_a_right_to_left_language_is_set_so(renderer: Renderer) -> None:
    html = renderer.render("alert", "fa", {**ALERT, "about": "<script>"}).html
    assert '<html lang="fa" dir="rtl">' in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert 'dir="auto"' in as_html("S", "T", "und")


def own(folder: Path, source: str, name: str = "en/alert.txt") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source, encoding="utf-8")
    return folder


def form(text: str) -> str:
    return f"{{% block subject %}}S{{% endblock %}}\n{{% block text %}}{text}{{% endblock %}}"


def test_operators_can_put_their_ownwords(tmp_path: Path) -> None:
    renderer = Renderer(own(tmp_path, form("{{ about | upper }} at {{ at | minutes }}")))
    assert renderer.render("alert", "en", {**ALERT, "about": "aria"}).text == (
        "ARIA at 2026-11-22 12:05 UTC"
    )
    assert renderer.render("alert", "zh", ALERT).subject == "已逾期：R-1042"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (form("\n{{ about"), 3),
        (form("\n\n{% for x in 'ab' * 10 %}{% endfor %}"), 4),
        (form("{% for a in items %}\n{% for b in items %}{% endfor %}{% endfor %}"), 3),
        (form("{% for a in about %}\n{% for b in reason %}{% endfor %}{% endfor %}"), 3),
        (form("\n{% for a in items recursive %}{% endfor %}"), 3),
        (form("{% for a in items %}{% endfor %}" * (MOST_LOOPS + 1)), 2),
        (form("{{ 9 ** 9 }}"), 2),
        (form("{{ 'x' ~ 'y' }}"), 2),
        (form("{{ about.upper() }}"), 2),
        (form("{% set x = 1 %}"), 2),
        (form("{% macro m() %}{% endmacro %}"), 2),
        (form("{% include 'en/alert.txt' %}"), 2),
        ("{% extends 'en/alert.txt' %}" + form(""), 1),
        (form("{% filter upper %}x{% endfilter %}"), 2),
        (form("{{ about | center(1000000000) }}"), 2),
        (form("{{ about | safe }}"), 2),
        (form("{{ about is sameas about }}"), 2),
        ("{% block text %}T{% endblock %}", 1),
        ("x" * (LONGEST_TEMPLATE + 1), 1),
    ],
)
def test_a_bad_template_fails_the_start_with_file_and_line(
    tmp_path: Path, source: str, line: int
) -> None:
    with pytest.raises(BadTemplate) as error:
        Renderer(own(tmp_path, source))
    assert error.value.reason.startswith(f"{tmp_path}/en/alert.txt:{line}: ")


def test_a_template_that_replaces_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadTemplate, match=r"en/alrt\.txt:1: there is no message of this name"):
        Renderer(own(tmp_path, form("T"), "en/alrt.txt"))


def test_a_template_is_utf8(tmp_path: Path) -> None:
    own(tmp_path, "")
    (tmp_path / "en/alert.txt").write_bytes(b"\xff")
    with pytest.raises(BadTemplate, match="not UTF-8"):
        Renderer(tmp_path)


@pytest.mark.parametrize(
    "text", ["{{ about.__class__ }}", "{{ nothing }}", "{{ about | minutes }}"]
)
def test_a_template_that_reaches_too_far_is_told_without_any_value(
    tmp_path: Path, text: str
) -> None:
    renderer = Renderer(own(tmp_path, form(text)))
    with pytest.raises(BadTemplate, match=r"en/alert\.txt") as error:
        renderer.render("alert", "en", ALERT)
    assert "R-1042" not in error.value.reason


def test_too_long_an_output_is_an_error(tmp_path: Path) -> None:
    renderer = Renderer(own(tmp_path, form("{% for a in about %}{{ reason }}{% endfor %}")))
    long = {**ALERT, "about": "x" * 10_000, "reason": "y" * 10_000}
    with pytest.raises(BadTemplate, match=str(LONGEST_OUTPUT)):
        renderer.render("alert", "en", cast(Any, long))


def test_a_missing_value_and_an_unknown_kind_are_errors(renderer: Renderer) -> None:
    with pytest.raises(BadTemplate, match="'text' is undefined"):
        renderer.render("statement", "en", cast(Any, {"subject": "S"}))
    with pytest.raises(BadTemplate, match=r"fax\.txt"):
        renderer.render("fax", "en", ALERT)
