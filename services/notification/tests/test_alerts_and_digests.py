"""Whatever can be subscribed to is told in three languages, at once or in a digest."""

import re
from datetime import UTC, timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime

from rapport.common.events.analytics import DigestCompiled, DigestLine, KpiTargetMissed
from rapport.common.events.clocks import ClockBreached
from rapport.common.events.crises import CrisisProposed, CrisisUpdated, Criteria
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.knowledge import StatementSubmitted
from rapport.common.events.notifications import NotificationRequested
from rapport.common.events.vocabulary import ComplaintType, Language, Severity
from rapport.common.testing import MORNING, Harness
from rapport.notification.channels.rendering import DIRECTION, Renderer, words
from rapport.notification.domain.communications import PAGE
from rapport.notification.domain.log import LISTED, LISTED_BYTES, Occurrence
from rapport.notification.domain.matters import DIGEST_ONLY, MATTERS, TITLE, event_name, matter_of
from rapport.notification.handlers.alerts import LANGUAGES, alert_wordings

from .cast import about, declared, linked, mailed, opened, stakeholder, subscribe
from .servers import SmtpSink

RENDERER = Renderer()

DIGEST = DigestCompiled(
    digest_id="d1",
    digest="daily",
    start=MORNING,
    end=MORNING.replace(hour=18),
    total=12,
    by_kind={"complaint": 10, "praise": 2},
    lines=(
        DigestLine(
            topic=ComplaintType.PRODUCT_QUALITY,
            product="kettle",
            region="north",
            count=7,
            negative=6,
            change=0.5,
        ),
    ),
)


def happened(data: EventData) -> Event[EventData]:
    return Event(
        id="e",
        source="/test",
        type=data.TYPE,
        subject="s",
        time=MORNING,
        data=data,
        partitionkey="s",
        correlationid="e",
    )


moments = st.datetimes(timezones=st.just(UTC))
st.register_type_strategy(AwareDatetime, moments)
st.register_type_strategy(Criteria, st.builds(Criteria, product=st.text(min_size=1)))


@given(data=st.one_of(*(st.builds(kind) for kind in MATTERS)))
def test_every_matter_is_told_in_every_language(data: EventData) -> None:
    matter = matter_of(happened(data))
    assert matter is not None
    wordings = alert_wordings(matter, MORNING, RENDERER, LANGUAGES)
    assert set(wordings) == set(LANGUAGES)
    assert all(wording.subject and wording.text for wording in wordings.values())


def test_a_reason_that_is_known_by_language_is_told_in_the_readers() -> None:
    proposed = CrisisProposed(
        crisis_id="k1",
        title="Kettles",
        criteria=Criteria(product="kettle"),
        reason="More than usual.",
        severity=Severity.HIGH,
        reasons={"en": "More than usual.", "zh": "超过平时。"},
    )
    matter = matter_of(happened(proposed))
    assert matter is not None
    wordings = alert_wordings(matter, MORNING, RENDERER, [Language.ZH, Language.FA])
    assert "超过平时。" in wordings[Language.ZH].text
    assert "More than usual." in wordings[Language.FA].text


OVERDUE = ClockBreached(
    of="case",
    aggregate_id="c1",
    clock="first_response",
    started_at=MORNING,
    due_at=MORNING,
    policy="hash of the clocks",
)
TO_APPROVE = StatementSubmitted(
    statement_id="s1",
    hash="hash",
    purpose="holding",
    by="lea",
    quorum={"press": 1},
    languages=(Language.EN,),
)
MISSED = KpiTargetMissed(
    kpi="escalation_rate", start=MORNING, end=MORNING, value=0.2, target=0.1, n=20
)
STANDS_OUT = CrisisProposed(
    crisis_id="k1",
    title="kettle / product_quality",
    criteria=Criteria(product="kettle", complaint_type=ComplaintType.PRODUCT_QUALITY),
    reason="More than usual.",
    severity=Severity.HIGH,
    signal_id="x1",
)


@pytest.mark.parametrize(
    ("data", "en", "zh", "fa"),
    [
        (
            opened(),
            "product quality / kettle / c1",
            "产品质量 / kettle / c1",
            "کیفیت محصول / kettle / c1",
        ),
        (OVERDUE, "first response / c1", "首次回复 / c1", "نخستین پاسخ / c1"),
        (TO_APPROVE, "holding statement / s1", "初步声明 / s1", "بیانیه اولیه / s1"),
        (MISSED, "escalation rate", "升级率", "نرخ ارجاع به سطح بالاتر"),
        (STANDS_OUT, "product quality / kettle", "产品质量 / kettle", "کیفیت محصول / kettle"),
    ],
    ids=["case", "clock", "statement", "kpi", "signal"],
)
def test_what_an_alert_is_about_is_told_in_the_readers_words(
    data: EventData, en: str, zh: str, fa: str
) -> None:
    assert [told_about(data, language) for language in LANGUAGES] == [en, zh, fa]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (MISSED.model_copy(update={"kpi": "our_own"}), "our_own"),
        (STANDS_OUT.model_copy(update={"signal_id": None, "title": "Leaks"}), "Leaks"),
    ],
    ids=["kpi", "crisis"],
)
def test_what_an_operator_named_is_told_by_that_name(data: EventData, name: str) -> None:
    assert {told_about(data, language) for language in LANGUAGES} == {name}


async def test_a_digest_lists_what_happened_in_the_readers_words(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification, language="zh")
    await digest(notification)
    await notification.given(opened("c1"))
    await notification.advance(hours=24, minutes=2)
    [(_, text)] = mailed(sink)
    assert "新个案：产品质量 / kettle / c1" in text


@pytest.mark.parametrize("kind", MATTERS)
def test_every_matter_has_a_name_in_every_language(kind: type[EventData]) -> None:
    if event_name(kind) != "digest.compiled":
        assert all(event_name(kind) in words(language)["event"] for language in DIRECTION)


def test_a_long_update_has_a_short_title() -> None:
    update = CrisisUpdated(crisis_id="k1", entry="update", by="lea", text="word " * 1000)
    matter = matter_of(happened(update))
    assert matter is not None
    assert len(matter.title) <= TITLE
    assert matter.reason == update.text


def test_long_names_make_no_long_title() -> None:
    named = {"brand": "b" * 300, "product": "p" * 300, "region": "r" * 300}
    case = opened().model_copy(update={"about": about().model_copy(update=named)})
    matter = matter_of(happened(case))
    assert matter is not None
    *names, case_id = matter.title.split(" / ")
    assert [len(name) for name in names] == [TITLE, TITLE, TITLE]
    assert case_id == "c1"
    assert matter.about["product"] == named["product"]


@pytest.mark.parametrize(
    ("language", "direction", "word"),
    [("en", "ltr", "Messages"), ("zh", "ltr", "消息"), ("fa", "rtl", "پیام")],
)
async def test_a_compiled_digest_is_mailed_in_the_readers_language(
    notification: Harness, sink: SmtpSink, language: str, direction: str, word: str
) -> None:
    address = {"channel": "email", "to": "pia@pr.example"}
    await stakeholder(notification, "pia", language=language, addresses=[address])
    await subscribe(notification, "pr", to=["pia"], events=["digest.compiled"])
    await notification.given(DIGEST)

    message: Any = message_from_bytes(sink.message(), policy=policy.default)
    plain, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert word in plain
    assert "kettle" in plain
    assert f'dir="{direction}"' in html
    assert f'lang="{language}"' in html


async def test_an_alert_about_a_crisis_never_reaches_those_it_concerns(
    notification: Harness, sink: SmtpSink
) -> None:
    """However many are told: complainants hear statements, and nothing else."""
    await put_many(notification, PAGE + 20)
    await subscribe(notification, "all", to=["group:staff"], events=["crisis.updated"])
    await notification.given(declared(), linked("c1", "cora@home.example"))
    await notification.given(
        CrisisUpdated(crisis_id="k1", entry="decision", by="lea", text="We recall them.")
    )
    await notification.advance(minutes=30)

    assert sink.accepted == []
    assert len(notification.all(NotificationRequested)) == PAGE + 20


async def test_everybody_is_told_however_they_are_named(notification: Harness) -> None:
    await put_many(notification, PAGE + 20)
    await stakeholder(
        notification, "zoe", addresses=[{"channel": "stream", "to": "zoe"}], active=True
    )
    await subscribe(notification, "first", to=["group:staff"], events=["case.opened"])
    await subscribe(notification, "then", to=["zoe", "owner"], events=["case.opened"])
    await stakeholder(notification, "ana", addresses=[{"channel": "stream", "to": "ana"}])
    await notification.given(opened())

    told = [event.data.recipient for event in notification.all(NotificationRequested)]
    assert len(told) == len(set(told)) == PAGE + 22
    assert {"zoe", "ana"} <= set(told)


async def test_a_digest_reaches_everybody_once(notification: Harness) -> None:
    await put_many(notification, 2 * PAGE + 20)
    await digest(notification, to=["group:staff"])
    await notification.given(opened())
    await notification.advance(hours=25)

    told = [event.data.recipient for event in notification.all(NotificationRequested)]
    assert len(told) == len(set(told)) == 2 * PAGE + 20


async def test_a_digest_counts_everything_and_lists_the_first(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification)
    await digest(notification, when={"severity": "high"})
    await notification.given(
        *(opened(f"c{number}") for number in range(300)),
        *(opened(f"h{number}", Severity.HIGH) for number in range(250)),
    )
    await notification.advance(hours=25)

    [(_, text)] = mailed(sink)
    assert "Messages: 250" in text
    assert "Held back, not listed here: 50" in text
    assert text.count("New case") == 200


async def test_a_digest_of_titles_as_long_as_they_once_were_is_sent_and_counts_the_others(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification)
    await digest(notification)
    title = "水" * 1_000
    await notification.running.store.insert_facts(
        [
            Occurrence(id=f"o{number}", at=MORNING, event="case.opened", title=title, about={})
            for number in range(LISTED)
        ]
    )
    await notification.advance(hours=25)

    [(_, text)] = mailed(sink)
    room = LISTED_BYTES // len(title.encode())
    assert f"Messages: {LISTED}" in text
    assert text.count(title) == room
    assert f"Held back, not listed here: {LISTED - room}" in text


async def test_a_digest_tells_nothing_of_a_drill(notification: Harness, sink: SmtpSink) -> None:
    await put_pia(notification)
    await digest(notification)
    await notification.given(opened("c1"), exercise="spring drill")
    await notification.given(opened("c2"), historical=True)
    await notification.advance(hours=25)
    assert sink.accepted == []


async def test_what_happens_at_the_very_end_of_a_period_is_in_it(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification)
    await digest(notification, every="hourly")
    late = notification.event(opened(), time=MORNING.replace(minute=59, second=59))
    await notification.advance(minutes=60, seconds=5)
    await notification.given(late)
    await notification.advance(minutes=5)
    assert len(sink.accepted) == 1


async def test_what_is_told_after_the_digest_of_its_time_was_sent_is_in_the_next(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification)
    await digest(notification, events=["clock.breached"])
    at_three = breached_at_three(notification)
    await notification.advance(hours=24, minutes=2)
    await notification.given(at_three)
    await notification.advance(hours=24)
    [(_, text)] = mailed(sink)
    assert "2026-03-03 03:00 UTC: Overdue: first response / c1" in text

    await notification.given(at_three)
    await notification.advance(hours=48)
    assert len(sink.accepted) == 1


async def test_a_digest_that_is_late_waits_for_what_comes_in_late_as_well(
    notification: Harness, sink: SmtpSink
) -> None:
    """All was stopped over night: much was not read yet, and clocks tell now what they missed."""
    await put_pia(notification)
    await digest(notification, events=["case.opened", "clock.breached"])
    in_the_evening = notification.event(opened("c1"), time=MORNING + timedelta(hours=12))
    notification.clock.move(timedelta(hours=25))
    await notification.given(in_the_evening)
    await notification.given(breached_at_three(notification))
    await notification.advance(minutes=1)
    [(_, text)] = mailed(sink)
    assert "from 2026-03-02 08:00 UTC to 2026-03-03 09:00 UTC" in text
    assert "2026-03-02 20:00 UTC: New case" in text
    assert "2026-03-03 03:00 UTC: Overdue: first response / c1" in text

    await notification.given(opened("c2"))
    await notification.advance(hours=23)
    assert len(sink.accepted) == 2
    assert "from 2026-03-03 09:00 UTC to 2026-03-04 08:00 UTC" in mailed(sink)[1][1]


async def test_a_subscription_that_is_put_again_loses_nothing(
    notification: Harness, sink: SmtpSink
) -> None:
    await put_pia(notification)
    await digest(notification)
    await notification.given(opened("c1"))
    await notification.advance(hours=1)
    await digest(notification)
    await notification.advance(hours=24)
    [(_, text)] = mailed(sink)
    assert "c1" in text


async def test_a_release_is_for_digests_only(notification: Harness) -> None:
    body = {"to": ["pia"], "events": sorted(DIGEST_ONLY)}
    path = "/notification/v1/subscriptions/s"
    answer = await notification.call("PUT", path, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/events")
    answer = await notification.call("PUT", path, json=body | {"deliver": "digest"})
    assert answer.status_code == 200


def told_about(data: EventData, language: Language) -> str:
    """What a subject line says behind the name of the event, without marks of direction."""
    matter = matter_of(happened(data))
    assert matter is not None
    subject = alert_wordings(matter, MORNING, RENDERER, [language])[language].subject
    return re.sub("[\u2068\u2069]", "", re.split("[:：] ?", subject, maxsplit=1)[1])


async def put_pia(notification: Harness, **fields: Any) -> None:
    address = {"channel": "email", "to": "pia@pr.example"}
    await stakeholder(notification, "pia", addresses=[address], **fields)


async def digest(notification: Harness, **fields: Any) -> None:
    wish = {"to": ["pia"], "events": ["case.opened"], "deliver": "digest"} | fields
    await subscribe(notification, "digest", **wish)


def breached_at_three(notification: Harness) -> Event[ClockBreached]:
    at = MORNING + timedelta(hours=19)
    return notification.event(OVERDUE.model_copy(update={"due_at": at}), time=at)


async def put_many(notification: Harness, number: int) -> None:
    for place in range(number):
        await stakeholder(
            notification,
            f"staff-{place:03}",
            groups=["staff"],
            addresses=[{"channel": "stream", "to": "board"}],
        )
