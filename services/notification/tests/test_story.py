"""Who hears what, once: alerts, digests, replies and the statements of a crisis."""

from datetime import timedelta
from typing import Any, Final

import pytest

from rapport.common.errors import PermanentError
from rapport.common.events.cases import CaseCrisisUnlinked, CaseReplyRequested
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import (
    Coverage,
    CrisisDismissed,
    CrisisStandDownRequested,
    CrisisStoodDown,
)
from rapport.common.events.envelope import sequence
from rapport.common.events.feedback import Contact
from rapport.common.events.interactions import InteractionRecorded
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.vocabulary import Language, Severity
from rapport.common.people import person_id
from rapport.common.testing import Harness
from rapport.notification.domain.audience import Linked

from .cast import (
    KEY,
    coverage,
    declared,
    linked,
    mailed,
    opened,
    released,
    stakeholder,
    subscribe,
)
from .servers import SmtpSink

REPLY: Final = CaseReplyRequested(
    case_id="c1",
    reply_id="r1",
    by="ana",
    via="email",
    contact=Contact(person="p", email="cora@home.example"),
    language=Language.EN,
    subject="Your kettle",
    text="We are sorry. A new one is on its way.",
)

MIXED: Final = pytest.mark.parametrize(
    ("of_crisis", "of_case"),
    [("spring drill", None), (None, "spring drill"), ("spring drill", "autumn drill")],
)


@pytest.fixture(autouse=True, params=[0, 8], ids=["by the scan", "with the save"])
def room(request: pytest.FixtureRequest, notification: Harness) -> None:
    """Let messages go out when the scan finds them, or with the save that queues them."""
    notification.running.engine.room = lambda kind: request.param


async def test_pr_gets_urgent_cases_at_once_and_nobody_else_is_bothered(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(
        notification, "pia", language="fa", addresses=[{"channel": "email", "to": "pia@pr.example"}]
    )
    await subscribe(
        notification,
        "urgent",
        to=["pia"],
        events=["case.opened"],
        when={"severity": {"at_least": "high"}},
    )
    await notification.given(opened("c1"), opened("c2", Severity.CRITICAL))

    [(address, text)] = mailed(sink)
    assert address == "pia@pr.example"
    assert "c2" in text
    assert "The kettle broke." in text
    assert notification.published(NotificationDelivered).data.case_id == "c2"
    assert notification.published(InteractionRecorded).data.outcome == "delivered"


async def test_the_owner_of_a_case_is_told(notification: Harness, sink: SmtpSink) -> None:
    await stakeholder(
        notification, "ana", addresses=[{"channel": "email", "to": "ana@care.example"}]
    )
    await subscribe(notification, "owners", to=["owner"], events=["case.opened"])
    await notification.given(opened())

    assert [address for address, _ in mailed(sink)] == ["ana@care.example"]


async def test_the_same_event_alerts_once(notification: Harness, sink: SmtpSink) -> None:
    await stakeholder(
        notification,
        "pia",
        groups=["pr"],
        addresses=[{"channel": "email", "to": "pia@pr.example"}],
    )
    await subscribe(notification, "by-name", to=["pia"], events=["case.opened"])
    await subscribe(notification, "by-group", to=["group:pr"], events=["case.opened"])
    event = notification.event(opened())
    await notification.given(event)
    await notification.given(event)

    assert len(sink.accepted) == 1


async def test_the_past_alerts_nobody(notification: Harness, sink: SmtpSink) -> None:
    await stakeholder(notification, "pia", addresses=[{"channel": "email", "to": "pia@pr.example"}])
    await subscribe(notification, "all", to=["pia"], events=["case.opened"])
    await notification.given(opened(), historical=True)

    assert sink.accepted == []


async def test_a_digest_collects_what_need_not_be_told_at_once(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(notification, "pia", addresses=[{"channel": "email", "to": "pia@pr.example"}])
    await subscribe(
        notification,
        "daily",
        to=["pia"],
        events=["case.opened"],
        deliver="digest",
        every="daily",
        at="18:00",
        time_zone="Asia/Tehran",
    )
    await notification.given(opened("c1"), opened("c2"))
    assert sink.accepted == []
    await notification.advance(hours=24)

    [(_, text)] = mailed(sink)
    assert "c1" in text
    assert "c2" in text
    await notification.advance(hours=48)
    assert len(sink.accepted) == 1, "nothing happened, nothing is sent"


async def test_a_reply_reaches_the_person_and_says_so(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(REPLY)
    [(address, text)] = mailed(sink)
    assert address == "cora@home.example"
    assert text.startswith("We are sorry. A new one is on its way.")
    delivered = notification.published(NotificationDelivered).data
    assert (delivered.purpose, delivered.case_id, delivered.reply_id) == ("reply", "c1", "r1")


async def test_an_answer_given_by_phone_is_on_record(notification: Harness, sink: SmtpSink) -> None:
    await notification.given(
        CaseReplyRequested(
            case_id="c1",
            reply_id="r1",
            by="ana",
            via="elsewhere",
            contact=Contact(phone="123"),
            language=Language.ZH,
            subject="电话",
            text="已致电客户道歉。",
        )
    )
    assert sink.accepted == []
    assert notification.published(NotificationDelivered).data.channel == "elsewhere"


async def test_everyone_linked_gets_the_approved_bytes_once_in_their_language(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(
        declared(),
        linked("c1", "cora@home.example"),
        linked("c2", "chen@home.example", Language.ZH),
        linked("c3", "cora@home.example"),
    )
    await notification.given(released())
    await notification.given(linked("c4", "farid@home.example", Language.FA))
    await notification.advance(minutes=30)

    wordings = released().wordings
    assert sorted(mailed(sink)) == [
        ("chen@home.example", wordings[Language.ZH].text),
        ("cora@home.example", wordings[Language.EN].text),
        ("farid@home.example", wordings[Language.FA].text),
    ]
    hashes = {event.data.statement_hash for event in notification.all(NotificationDelivered)}
    assert hashes == {"hash of holding"}


async def test_who_is_linked_just_as_statements_are_said_hears_them_at_the_next_look(
    notification: Harness, sink: SmtpSink
) -> None:
    link = linked("c1", "cora@home.example")
    cora = Linked.first(link, link.contact.person or "")
    cora.link(link, [], declined=False)  # decided before the statement was known, stored after
    await notification.given(declared(), released())
    await notification.running.engine.change(Linked, cora.id, lambda _: cora, cause="a slow batch")
    await notification.given(released("closing"))
    assert [text for _, text in mailed(sink)] == ["closing: we are looking into it.\n"]

    await notification.given(CrisisStoodDown(crisis_id="k1", by="lea", coverage=Coverage()))
    await notification.advance(minutes=5)
    assert sorted(text for _, text in mailed(sink)) == [
        "closing: we are looking into it.\n",
        "holding: we are looking into it.\n",
    ]


async def test_a_stakeholder_who_complained_hears_a_statement_once(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(
        notification,
        "dora",
        groups=["dealers"],
        addresses=[{"channel": "email", "to": "Dora@shop.example"}],
    )
    await notification.given(declared(), linked("c1", "dora@shop.example"))
    await notification.given(released(groups=("dealers",)))
    await notification.advance(minutes=10)

    assert len(sink.accepted) == 1


async def test_the_live_stream_carries_the_statement(notification: Harness) -> None:
    await stakeholder(
        notification, "site", groups=["media"], addresses=[{"channel": "stream", "to": "site"}]
    )
    await notification.given(released(groups=("media",)))

    delivered = notification.published(NotificationDelivered).data
    assert delivered.text == released().wordings[Language.EN].text


async def test_a_stand_down_is_answered_with_who_would_be_left_behind(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"), linked("c2", None))
    await notification.given(released("holding"))
    answered = await coverage(notification)
    assert answered == {
        "linked": 2,
        "delivered": 1,
        "opted_out": 0,
        "unreachable": 1,
        "missing": 0,
        "without_closing": 1,
    }
    await notification.given(released("closing"))
    assert (await coverage(notification))["without_closing"] == 0
    assert len(sink.accepted) == 2


async def test_a_stand_down_request_that_comes_again_is_not_answered_with_something_else(
    notification: Harness,
) -> None:
    await notification.given(declared(), linked("c1", None))
    asked = CrisisStandDownRequested(crisis_id="k1", request_id="r", by="lea")
    event = notification.event(asked, subject="k1", sequence=sequence(2, 0))
    await notification.given(event)
    await notification.advance(seconds=2)
    await notification.given(linked("c2", None), event)
    await notification.advance(seconds=2)
    assert notification.published(CommunicationReviewed).data.coverage.linked == 1


async def test_whoever_is_linked_after_the_closing_statement_gets_both(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), released("holding"), released("closing"))
    await notification.given(linked("c1", "late@home.example"))

    assert sorted(text.split(":")[0] for _, text in mailed(sink)) == ["closing", "holding"]
    assert (await coverage(notification))["without_closing"] == 0


async def test_an_unlinked_person_is_not_counted(notification: Harness) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"))
    person = person_id(KEY.encode(), email="cora@home.example")
    await notification.given(
        CaseCrisisUnlinked(case_id="c1", crisis_id="k1", by="ana", person=person)
    )
    assert (await coverage(notification))["linked"] == 0


async def test_what_is_said_after_somebody_was_unlinked_goes_to_all_others(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"))
    person = person_id(KEY.encode(), email="cora@home.example")
    await notification.given(
        CaseCrisisUnlinked(case_id="c1", crisis_id="k1", by="ana", person=person),
        linked("c2", "chen@home.example"),
        released(),
    )
    await notification.advance(minutes=30)
    assert [address for address, _ in mailed(sink)] == ["chen@home.example"]


async def test_a_case_that_learns_of_an_address_later_is_told_then(
    notification: Harness, sink: SmtpSink
) -> None:
    phone = Contact(person="cora")
    mail = Contact(person="cora", email="cora@home.example")
    await notification.given(
        declared(), linked("c1", None).model_copy(update={"contact": phone}), released()
    )
    assert (await coverage(notification))["unreachable"] == 1
    await notification.given(linked("c1", None).model_copy(update={"contact": mail}))

    assert [address for address, _ in mailed(sink)] == ["cora@home.example"]
    assert (await coverage(notification))["delivered"] == 1


async def test_a_stakeholder_who_complains_after_hearing_a_statement_counts_as_told(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(
        notification,
        "dora",
        groups=["dealers"],
        addresses=[{"channel": "email", "to": "dora@shop.example"}],
    )
    await notification.given(declared(), released(groups=("dealers",)))
    await notification.given(linked("c1", "dora@shop.example"))

    answered = await coverage(notification)
    assert (answered["delivered"], answered["missing"]) == (1, 0)
    assert len(sink.accepted) == 1


async def test_a_replaced_statement_is_told_to_nobody_else(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), released("holding"))
    await notification.advance(minutes=1)
    second = released("holding").model_copy(update={"statement_id": "s-2", "hash": "second"})
    await notification.given(second)
    await notification.given(linked("c1", "late@home.example"))
    await notification.advance(minutes=30)

    assert len(sink.accepted) == 1
    assert notification.published(NotificationDelivered).data.statement_hash == "second"


async def test_whoever_is_linked_as_the_crisis_ends_gets_nothing_that_has_no_end(
    notification: Harness, sink: SmtpSink
) -> None:
    ended = CrisisStoodDown(crisis_id="k1", by="lea", coverage=Coverage())
    await notification.given(declared(), released("holding"), ended)
    await notification.given(linked("c1", "late@home.example"))
    await notification.advance(minutes=30)

    assert sink.accepted == []


async def test_who_opts_out_later_is_not_missing(notification: Harness, sink: SmtpSink) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"))
    person = person_id(KEY.encode(), email="cora@home.example")
    await notification.call(
        "PUT", f"/notification/v1/preferences/{person}", json={"opted_out": ["statement"]}
    )
    await notification.given(released())

    answered = await coverage(notification)
    assert (answered["opted_out"], answered["missing"]) == (1, 0)


async def test_who_opted_out_of_statements_gets_none_and_is_not_missing(
    notification: Harness, sink: SmtpSink
) -> None:
    person = person_id(KEY.encode(), email="cora@home.example")
    await notification.call(
        "PUT", f"/notification/v1/preferences/{person}", json={"opted_out": ["statement"]}
    )
    await notification.given(declared(), linked("c1", "cora@home.example"), released())

    assert sink.accepted == []
    assert notification.published(NotificationSuppressed).data.reason == "opted_out"
    answered = await coverage(notification)
    assert (answered["opted_out"], answered["missing"]) == (1, 0)


@pytest.mark.parametrize("is_late", [False, True], ids=["said before", "said after"])
async def test_after_a_dismissal_the_statement_is_complete(
    notification: Harness, sink: SmtpSink, *, is_late: bool
) -> None:
    """Releases and dismissals travel on topics of their own: either may come first."""
    dismissed = CrisisDismissed(crisis_id="k1", by="lea", reason="one batch only")
    said = released("holding", groups=("dealers",))
    await stakeholder(
        notification,
        "dora",
        groups=["dealers"],
        addresses=[{"channel": "email", "to": "dora@shop.example"}],
    )
    await notification.given(*((dismissed, said) if is_late else (said, dismissed)))
    await notification.advance(minutes=10)
    await notification.given(linked("c1", "late@home.example"))
    await notification.advance(minutes=10)

    answer = await notification.call("GET", "/notification/v1/communications?purpose=statement")
    assert [item["stage"] for item in answer.json()["items"]] == ["done"]
    assert [address for address, _ in mailed(sink)] == ["dora@shop.example"]


async def test_what_was_said_before_a_dismissal_can_be_brought_to_an_end(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(linked("c1", "cora@home.example"), released("holding"))
    await notification.given(CrisisDismissed(crisis_id="k1", by="lea", reason="one batch only"))
    await notification.given(released("closing"))
    await notification.advance(minutes=10)

    assert [text.split(":")[0] for _, text in mailed(sink)] == ["holding", "closing"]
    answer = await notification.call("GET", "/notification/v1/communications?purpose=statement")
    assert [item["stage"] for item in answer.json()["items"]] == ["done", "done"]


async def test_after_the_stand_down_the_statement_is_complete(notification: Harness) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"), released())
    await notification.given(
        CrisisStoodDown(crisis_id="k1", by="lea", coverage=Coverage(linked=1, delivered=1))
    )
    await notification.advance(hours=1)

    answer = await notification.call("GET", "/notification/v1/communications?purpose=statement")
    assert [item["stage"] for item in answer.json()["items"]] == ["done"]


async def test_a_server_in_trouble_is_tried_again_and_the_message_arrives(
    notification: Harness, sink: SmtpSink
) -> None:
    sink.data = "451 later"
    await notification.given(declared(), linked("c1", "cora@home.example"), released())
    assert sink.accepted == []
    sink.data = "250 OK"
    await notification.advance(minutes=10)

    assert len(sink.accepted) == 1
    assert notification.published(NotificationDelivered).data.attempts == 2


async def test_a_refused_recipient_fails_at_once_and_is_missing(
    notification: Harness, sink: SmtpSink
) -> None:
    sink.rcpt = "550 no such user"
    await notification.given(declared(), linked("c1", "cora@home.example"), released())

    assert notification.published(NotificationFailed).data.reason == "rejected_recipient"
    assert (await coverage(notification))["missing"] == 1


async def test_nothing_of_a_drill_leaves(notification: Harness, sink: SmtpSink) -> None:
    events = [declared(), linked("c1", "cora@home.example"), released()]
    await notification.given(*events, exercise="spring drill")

    assert sink.accepted == []
    assert notification.published(NotificationSuppressed).data.reason == "exercise"


async def test_a_rehearsed_reply_says_that_only_the_drill_held_it_back(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(REPLY, exercise="spring drill")

    assert sink.accepted == []
    held_back = notification.published(NotificationSuppressed)
    assert (held_back.data.reply_id, held_back.data.reason) == ("r1", "exercise")
    assert held_back.exercise == "spring drill"


async def test_a_rehearsed_stand_down_needs_a_closing_statement_like_a_real_one(
    notification: Harness, sink: SmtpSink
) -> None:
    drill = "spring drill"
    await notification.given(
        declared(), linked("c1", "cora@home.example"), released("holding"), exercise=drill
    )
    answered = await coverage(notification, drill)
    assert (answered["delivered"], answered["missing"], answered["without_closing"]) == (1, 0, 1)
    await notification.given(released("closing"), exercise=drill)
    assert (await coverage(notification, drill))["without_closing"] == 0
    assert sink.accepted == []


@MIXED
async def test_a_case_in_a_crisis_of_another_drill_is_a_dead_letter(
    notification: Harness, of_crisis: str | None, of_case: str | None
) -> None:
    await notification.given(declared(), released(), exercise=of_crisis)
    await notification.given(linked("c1", "cora@home.example"), exercise=of_case)

    assert "rapport.dlq" in notification.types()
    assert notification.all(NotificationRequested) == []


@MIXED
async def test_a_case_that_was_linked_before_its_crisis_was_known_to_be_of_another_drill(
    notification: Harness, sink: SmtpSink, of_crisis: str | None, of_case: str | None
) -> None:
    await notification.given(linked("c1", "cora@home.example"), exercise=of_case)
    await notification.given(declared(), released(), exercise=of_crisis)
    await notification.advance(minutes=30)

    assert notification.all(NotificationRequested) == []
    assert sink.accepted == []
    assert (await coverage(notification, of_crisis))["linked"] == 0


async def test_a_statement_that_forgot_its_drill_does_not_leave(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(
        notification,
        "dora",
        groups=["dealers"],
        addresses=[{"channel": "email", "to": "dora@shop.example"}],
    )
    await notification.given(declared(), exercise="spring drill")
    await notification.given(released(groups=("dealers",)))

    assert sink.accepted == []
    assert "rapport.dlq" in notification.types()


async def test_an_expired_lease_sends_again(notification: Harness, sink: SmtpSink) -> None:
    """A process that died while sending left only its lease."""
    await notification.given(declared(), linked("c1", "cora@home.example"))
    channels = notification.running.resources.channels
    original = channels.send

    async def die(name: str, message: Any) -> Any:
        raise PermanentError("killed")

    channels.send = die
    await notification.given(released())
    assert sink.accepted == []
    channels.send = original
    await notification.advance(minutes=2)

    assert len(sink.accepted) == 1


async def test_a_message_that_is_sent_late_is_sent_once(
    notification: Harness, sink: SmtpSink
) -> None:
    """The service was down for longer than a lease while somebody asked for it."""
    await notification.given(declared(), linked("c1", "cora@home.example"))
    late = notification.event(released())
    notification.clock.move(timedelta(hours=1))
    await notification.given(late)

    assert len(sink.accepted) == 1


async def test_a_group_of_many_is_told_page_by_page(notification: Harness, sink: SmtpSink) -> None:
    for number in range(230):
        await stakeholder(
            notification,
            f"dealer-{number:03}",
            groups=["dealers"],
            addresses=[{"channel": "stream", "to": "dealers"}],
        )
    await notification.given(released(groups=("dealers",)))

    wishes = [event.data.recipient for event in notification.all(NotificationRequested)]
    assert sorted(wishes) == [f"dealer-{number:03}" for number in range(230)]
    counted = await notification.call(
        "GET",
        f"/notification/v1/communications/"
        f"{notification.all(NotificationRequested)[0].data.communication_id}/coverage",
    )
    assert counted.json()["notifications"] == {"delivered": 230}


async def test_what_cannot_be_an_address_is_refused_with_its_field(
    notification: Harness,
) -> None:
    answer = await notification.call(
        "PUT",
        "/notification/v1/stakeholders/x",
        json={
            "addresses": [
                {"channel": "email", "to": "nobody"},
                {"channel": "webhook", "to": "http://127.0.0.1/"},
                {"channel": "webhook", "to": "https://10.0.0.1/hook"},
            ]
        },
    )
    assert answer.status_code == 422
    pointers = [problem["pointer"] for problem in answer.json()["errors"]]
    assert pointers == [
        "/addresses/0/to",
        "/addresses/1/to",
        "/addresses/2/channel",
        "/addresses/2/to",
    ]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"events": ["case.exploded"]}, "/events/0"),
        ({"when": {"prodcut": "kettle"}}, "/when/prodcut"),
        ({"time_zone": "Mars/Olympus"}, "/time_zone"),
        ({"to": []}, "/to"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_a_subscription_that_means_nothing_is_refused_with_its_field(
    notification: Harness, change: dict[str, Any], pointer: str
) -> None:
    body = {"to": ["pia"], "events": ["case.opened"]} | change
    answer = await notification.call("PUT", "/notification/v1/subscriptions/s", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_acknowledging_is_for_what_was_delivered(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"), released())
    id = notification.published(NotificationDelivered).data.notification_id
    for _ in range(2):
        answer = await notification.call(
            "POST", f"/notification/v1/notifications/{id}/acknowledgement", as_="cora"
        )
        assert (answer.status_code, answer.json()["acknowledged_by"]) == (200, "cora")
    assert (
        await notification.call("POST", "/notification/v1/notifications/x/acknowledgement")
    ).status_code == 404


async def test_the_hour_of_a_digest_follows_the_local_clock(notification: Harness) -> None:
    """Berlin's clocks go forward on 29 March 2026: eight o'clock stays eight o'clock."""
    await subscribe(
        notification,
        "daily",
        to=["pia"],
        events=["case.opened"],
        deliver="digest",
        time_zone="Europe/Berlin",
    )
    await notification.advance(days=25)
    before = await notification.call("GET", "/notification/v1/subscriptions")
    await notification.advance(days=2)
    after = await notification.call("GET", "/notification/v1/subscriptions")
    assert before.json()["items"][0]["next_digest_at"].endswith("07:00:00Z")
    assert after.json()["items"][0]["next_digest_at"].endswith("06:00:00Z")


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "\\ud83d"}',
        b'{"name": "\xff"}',
        b'{"name": "a", "name": "b"}',
        b'{"name": NaN}',
        b'{"name": ',
        b"[" * 40 + b"]" * 40,
    ],
)
async def test_a_body_that_is_not_sound_json_is_refused_before_anything_happens(
    notification: Harness, body: bytes
) -> None:
    answer = await notification.call(
        "PUT",
        "/notification/v1/stakeholders/x",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["title"]) == (400, "Malformed request")
    found = await notification.call("GET", "/notification/v1/stakeholders/x")
    assert found.status_code == 404
