"""Whatever can be subscribed to is told in three languages, at once or in a digest."""

from datetime import UTC
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime

from rapport.common.events.analytics import DigestCompiled, DigestLine
from rapport.common.events.crises import CrisisUpdated, Criteria
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.notifications import NotificationRequested
from rapport.common.events.vocabulary import ComplaintType, Severity
from rapport.common.testing import MORNING, Harness
from rapport.notification.channels.rendering import DIRECTION, Renderer, words
from rapport.notification.domain.communications import PAGE
from rapport.notification.domain.matters import DIGEST_ONLY, MATTERS, TITLE, event_name, matter_of
from rapport.notification.handlers.alerts import LANGUAGES, alert_wordings

from .cast import declared, linked, mailed, opened, stakeholder, subscribe
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


async def put_pia(notification: Harness) -> None:
    address = {"channel": "email", "to": "pia@pr.example"}
    await stakeholder(notification, "pia", addresses=[address])


async def digest(notification: Harness, **fields: Any) -> None:
    wish = {"to": ["pia"], "events": ["case.opened"], "deliver": "digest"} | fields
    await subscribe(notification, "digest", **wish)


async def put_many(notification: Harness, number: int) -> None:
    for place in range(number):
        await stakeholder(
            notification,
            f"staff-{place:03}",
            groups=["staff"],
            addresses=[{"channel": "stream", "to": "board"}],
        )
