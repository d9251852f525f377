"""Nobody drowns in alerts: the limit holds in any hour, and what is held back is counted and told.

The stories go through the real handlers; the machine asks one allowance in any order, at any time
and again and again, under limits that people change meanwhile.
"""

from collections import Counter
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rapport.common.errors import Invalid
from rapport.common.events.cases import CaseReplyRequested
from rapport.common.events.clocks import ClockBreached, ClockWarned
from rapport.common.events.codec import encode
from rapport.common.events.crises import CrisisUpdated
from rapport.common.events.feedback import Contact
from rapport.common.events.knowledge import StatementRejected, StatementSubmitted, Wording
from rapport.common.events.notifications import (
    NotificationAdmitted,
    NotificationDelivered,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language, Severity
from rapport.common.policy import load_policy
from rapport.common.testing import MORNING, Harness, harness
from rapport.notification.domain.allowances import ANSWERS_KEPT, Allowance, Limit, Limits
from rapport.notification.domain.notifications import OPTED_OUT, OVER_LIMIT
from rapport.notification.service import SERVICE

from .cast import KEY, declared, linked, mailed, opened, released, stakeholder, subscribe
from .servers import SmtpSink, content

MOST: Final = 10
HOUR: Final = timedelta(hours=1)
PATH: Final = "/notification/v1"


async def pia_hears_of_cases(notification: Harness, **fields: Any) -> None:
    address = {"channel": "email", "to": "pia@pr.example"}
    await stakeholder(notification, "pia", addresses=[address], **fields)
    await subscribe(notification, "pia", to=["pia"], events=["case.opened", "crisis.updated"])


async def storm(notification: Harness, first: int, last: int, **fields: Any) -> None:
    await notification.given(*(opened(f"c{number}", **fields) for number in range(first, last)))


async def recipient(notification: Harness, id: str = "pia") -> str:
    answer = await notification.call("GET", f"{PATH}/stakeholders/{id}")
    return str(answer.json()["recipient"])


async def states(notification: Harness) -> Counter[str]:
    pia = await recipient(notification)
    answer = await notification.call("GET", f"{PATH}/notifications?recipient={pia}&limit=200")
    return Counter(item["state"] for item in answer.json()["items"])


async def allowances(notification: Harness) -> list[dict[str, Any]]:
    answer = await notification.call("GET", f"{PATH}/allowances")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_in_a_storm_nobody_gets_more_than_the_limit_and_all_learn_how_many_there_were(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    await storm(notification, 0, 150)

    assert len(sink.accepted) == MOST
    assert await states(notification) == {"delivered": MOST, "suppressed": 150 - MOST}
    assert {event.data.reason for event in notification.all(NotificationSuppressed)} == {OVER_LIMIT}
    [told] = await allowances(notification)
    assert (told["admitted"], told["held_back"], told["untold"]) == (10, 140, {"case.opened": 140})

    await notification.advance(minutes=59)
    assert len(sink.accepted) == MOST
    await notification.advance(minutes=1)
    assert len(sink.accepted) == MOST + 1
    _, text = mailed(sink)[-1]
    assert "140 more" in text
    assert "New case: 140" in text
    assert "at most 10 in 60 minutes" in text
    [told] = await allowances(notification)
    assert (told["held_back"], told["untold"], told["summary_at"]) == (140, {}, None)


async def test_the_message_that_tells_of_the_others_counts_like_them(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    await storm(notification, 0, 20)
    await notification.advance(hours=1)
    await storm(notification, 20, 40)
    assert len(sink.accepted) == 2 * MOST
    await notification.advance(hours=1)
    texts = [text for _, text in mailed(sink) if "more" in text]
    assert ["10 more" in texts[0], "11 more" in texts[1]] == [True, True]


async def test_after_quiet_hours_everything_arrives_and_nothing_is_told(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    for number in range(5):
        await storm(notification, 5 * number, 5 * number + 5)
        await notification.advance(minutes=31)
    assert len(sink.accepted) == 25
    assert (await allowances(notification))[0]["held_back"] == 0


async def test_what_is_critical_or_about_a_crisis_always_arrives_and_takes_no_room(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    await storm(notification, 0, 15, severity=Severity.CRITICAL)
    await storm(notification, 15, 40)
    await storm(notification, 40, 55, severity=Severity.CRITICAL)
    await notification.given(
        CrisisUpdated(crisis_id="k1", entry="update", by="lea", text="We recall them.")
    )
    assert len(sink.accepted) == 15 + MOST + 15 + 1
    assert await states(notification) == {"delivered": 15 + MOST + 16, "suppressed": 15}


async def test_a_crisiss_clocks_and_statements_are_no_part_of_the_storm(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    await subscribe(
        notification,
        "leads",
        to=["pia"],
        events=["clock.warned", "clock.breached", "statement.submitted", "statement.rejected"],
    )
    clock: dict[str, Any] = {
        "clock": "holding_statement",
        "started_at": MORNING,
        "due_at": MORNING + HOUR,
        "policy": "hash of the clocks",
    }
    statement: dict[str, Any] = {"statement_id": "s1", "hash": "hash", "purpose": "holding"}
    await storm(notification, 0, 15)
    await notification.given(
        ClockWarned(of="crisis", aggregate_id="k1", **clock),
        ClockBreached(of="crisis", aggregate_id="k1", **clock),
        StatementSubmitted(crisis_id="k1", by="pia", quorum={}, languages=(), **statement),
        StatementRejected(crisis_id="k1", by="lea", reason="Too early.", **statement),
    )
    assert len(sink.accepted) == MOST + 4

    await notification.given(
        ClockBreached(of="case", aggregate_id="c1", **clock),
        StatementSubmitted(by="pia", quorum={}, languages=(), **statement),
    )
    assert len(sink.accepted) == MOST + 4
    [told] = await allowances(notification)
    assert (told["admitted"], told["held_back"]) == (MOST, 5 + 2)


async def test_replies_and_statements_to_those_who_complained_are_never_held_back(
    notification: Harness, sink: SmtpSink
) -> None:
    contact = Contact(person="cora", email="cora@home.example")
    await notification.given(
        *(
            CaseReplyRequested(
                case_id=f"c{number}",
                reply_id=f"r{number}",
                by="ana",
                via="email",
                contact=contact,
                language=Language.EN,
                subject="Your kettle",
                text="A new one is on its way.",
            )
            for number in range(30)
        )
    )
    await notification.given(declared(), linked("c1", "cora@home.example"))
    await notification.given(released("holding"))
    await notification.advance(minutes=10)
    assert len(sink.accepted) == 31
    assert await allowances(notification) == []


async def test_each_recipient_and_each_channel_has_an_allowance_of_its_own(
    notification: Harness,
) -> None:
    for id in ("pia", "max"):
        addresses = [{"channel": way, "to": f"{id}@pr.example"} for way in ("email", "stream")]
        await stakeholder(notification, id, addresses=addresses)
    await subscribe(notification, "pr", to=["pia", "max"], events=["case.opened"])
    await storm(notification, 0, 25)
    got = Counter(
        (event.data.recipient, event.data.channel)
        for event in notification.all(NotificationDelivered)
    )
    people = [await recipient(notification, id) for id in ("pia", "max")]
    assert got == {(id, way): MOST for id in people for way in ("email", "stream")}
    path = f"{PATH}/allowances?recipient={people[0]}"
    told = (await notification.call("GET", path)).json()["items"]
    assert sorted((item["channel"], item["held_back"]) for item in told) == [
        ("email", 15),
        ("stream", 15),
    ]


async def test_a_drill_takes_no_room_from_what_is_real(notification: Harness) -> None:
    await pia_hears_of_cases(notification)
    await notification.given(
        *(opened(f"d{number}") for number in range(20)), exercise="spring drill"
    )
    await storm(notification, 0, 20)
    rehearsed = [event.exercise for event in notification.all(NotificationAdmitted)]
    assert Counter(rehearsed) == {"spring drill": MOST, None: MOST}


async def test_who_wants_no_alerts_is_told_of_none_that_were_held_back(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    await storm(notification, 0, 12)
    path = f"{PATH}/preferences/{await recipient(notification)}"
    answer = await notification.call("PUT", path, json={"opted_out": ["alert"]})
    assert answer.status_code == 200, answer.text
    await storm(notification, 12, 20)
    await notification.advance(hours=2)
    assert len(sink.accepted) == MOST
    reasons = Counter(event.data.reason for event in notification.all(NotificationSuppressed))
    assert reasons == {OVER_LIMIT: 2, OPTED_OUT: 8 + 1}


@pytest.mark.parametrize(
    ("language", "direction", "words"),
    [
        ("en", "ltr", "Held back: 5 more"),
        ("zh", "ltr", "另有 5 条提醒未发送"),
        ("fa", "rtl", "5 هشدار دیگر فرستاده نشد"),
    ],
)
async def test_what_was_held_back_is_told_in_the_recipients_language(
    notification: Harness, sink: SmtpSink, language: str, direction: str, words: str
) -> None:
    await pia_hears_of_cases(notification, language=language)
    await storm(notification, 0, MOST + 5)
    await notification.advance(hours=1)
    message: Any = message_from_bytes(content(sink.accepted[-1]), policy=policy.default)
    assert message["Subject"] == words
    html = message.get_body(("html",)).get_content()
    assert f'dir="{direction}"' in html
    assert f'lang="{language}"' in html


async def test_what_is_delivered_again_is_not_answered_again(
    notification: Harness, sink: SmtpSink
) -> None:
    """A process that dies before it commits gets everything once more, also an hour later."""
    await pia_hears_of_cases(notification)
    await storm(notification, 0, 100)
    [before] = await allowances(notification)
    again = [
        encode(event, NOTIFICATIONS.name)
        for kind in (NotificationRequested, NotificationAdmitted, NotificationSuppressed)
        for event in notification.all(kind)
    ]
    await notification.deliver(again)
    assert await allowances(notification) == [before]
    assert len(notification.all(NotificationAdmitted)) == MOST
    await notification.advance(hours=3)
    told = len(sink.accepted)
    await notification.deliver(again)
    await notification.advance(hours=3)
    assert (len(sink.accepted), told) == (MOST + 1, MOST + 1)
    assert (await allowances(notification))[0]["held_back"] == 90


async def test_what_is_of_a_clock_a_day_ahead_counts_from_when_it_goes_out(
    notification: Harness, sink: SmtpSink
) -> None:
    await pia_hears_of_cases(notification)
    ahead = [
        notification.event(opened(f"a{number}"), time=MORNING + timedelta(days=1))
        for number in range(2)
    ]
    await notification.given(ahead[0])
    await storm(notification, 0, 5)
    await notification.given(ahead[1])
    await storm(notification, 5, 20)
    assert len(sink.accepted) == MOST

    await notification.advance(hours=1)
    assert "12 more" in mailed(sink)[-1][1]
    await storm(notification, 20, 29)
    assert len(sink.accepted) == 2 * MOST


async def test_a_limit_of_ones_own(sink: SmtpSink, tmp_path: Path) -> None:
    folder = tmp_path / "notification"
    folder.mkdir()
    (folder / "limits.yaml").write_text("alerts: {most: 1, minutes: 5}\n")
    mail: dict[str, Any] = {
        "smtp_host": "127.0.0.1",
        "smtp_port": sink.port,
        "smtp_security": "none",
    }
    async with harness(SERVICE, person_key=KEY, policy_dir=tmp_path, **mail) as notification:
        await pia_hears_of_cases(notification)
        await storm(notification, 0, 3, severity=Severity.CRITICAL)
        await notification.advance(minutes=5)
        texts = [text for _, text in mailed(sink)]
        assert len(texts) == 2
        assert "2 more" in texts[1]
        held = notification.all(NotificationSuppressed)
        own = load_policy("notification", "limits", Limits, tmp_path)
        assert {event.data.policy for event in held} == {own.hash}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alerts: {most: 0, minutes: 60}\n", r"limits\.yaml:1: alerts\.most: .*greater than"),
        ("alerts:\n  most: 5\n  every: 60\n", r"limits\.yaml:3: alerts\.every: "),
        (
            "alerts:\n  most: 5\n  minutes: 60\n  always:\n    events: [case.open]\n",
            r"limits\.yaml:5: alerts\.always\.events: .*nobody is told of case\.open",
        ),
    ],
)
def test_a_mistake_stops_the_start_with_file_and_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "notification" / "limits.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(Invalid, match=problem):
        load_policy("notification", "limits", Limits, tmp_path)


WORDS: Final = Wording(subject="Held back", text="More.")


def wish(id: str, event: str = "case.opened") -> NotificationRequested:
    return NotificationRequested(
        notification_id=id,
        communication_id=f"of {id}",
        recipient="pia",
        channel="email",
        purpose="alert",
        address="pia@pr.example",
        language=Language.EN,
        subject="Kettles",
        text="They break.",
        data={"event": f"rapport.{event}.v1"},
        limited=True,
    )


class Storm(RuleBasedStateMachine):
    """Wishes come at any time and again; the clock may be set back; what is due fires late."""

    def __init__(self) -> None:
        super().__init__()
        self.now = MORNING
        self.asked: dict[str, str] = {}
        self.sent: list[datetime] = []
        self.told = 0
        self.allowance = Allowance.of(wish("first"), None)

    @initialize(most=st.integers(1, 4), minutes=st.integers(1, 60))
    def begin(self, most: int, minutes: int) -> None:
        self.limit = Limit(most=most, minutes=minutes)

    @rule(seconds=st.integers(0, 3_000))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def ask(self, id: str, now: datetime, *, opted_out: bool = False) -> str:
        self.allowance.ask(wish(id), self.limit, now, policy="hash", opted_out=opted_out)
        [answer] = self.emitted()
        assert answer.notification_id == id
        return "admitted" if isinstance(answer, NotificationAdmitted) else str(answer.reason)

    def emitted(self) -> list[Any]:
        found = list(self.allowance.emitted)
        self.allowance._set_emissions(())
        return found

    @rule(number=st.integers(1, 8), back=st.integers(0, 3_000), opted_out=st.booleans())
    def hear(self, number: int, back: int, opted_out: bool) -> None:
        """New wishes; their process's clock may be behind."""
        for _ in range(number):
            id = f"n{len(self.asked)}"
            answer = self.ask(id, self.now - timedelta(seconds=back), opted_out=opted_out)
            self.asked[id] = answer
            if answer == "admitted":
                self.sent.append(self.allowance.times[-1])

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        before = self.allowance.model_copy(deep=True)
        id = data.draw(st.sampled_from(list(self.asked)))
        self.allowance.ask(wish(id), self.limit, self.now, policy="hash")
        assert self.emitted() == []
        assert self.allowance == before

    @precondition(lambda self: any(item.at <= self.now for item in self.allowance.due()))
    @rule()
    def tell(self) -> None:
        waiting = self.allowance.waiting
        self.allowance.tell(self.limit, WORDS, self.now)
        [told] = self.emitted()
        assert isinstance(told, NotificationRequested)
        assert not told.limited
        assert sum(told.data["held_back"].values()) == waiting
        self.told += waiting
        self.sent.append(self.allowance.times[-1])

    @invariant()
    def never_more_than_the_limit_in_any_time_of_its_length(self) -> None:
        for first in self.sent:
            within = [at for at in self.sent if first <= at < first + self.limit.within]
            assert len(within) <= self.limit.most

    @invariant()
    def what_was_asked_was_sent_or_is_counted(self) -> None:
        answers = Counter(self.asked.values())
        assert answers["admitted"] == self.allowance.admitted
        assert answers[OVER_LIMIT] == self.allowance.held_back
        assert self.allowance.held_back == self.told + self.allowance.waiting

    @invariant()
    def what_is_held_back_is_going_to_be_told(self) -> None:
        assert bool(self.allowance.waiting) is bool(tuple(self.allowance.due()))

    @invariant()
    def it_stays_small(self) -> None:
        assert len(self.allowance.times) <= self.limit.most
        assert len(self.allowance.answers) <= ANSWERS_KEPT


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=60, stateful_step_count=30)


def test_what_was_held_back_by_a_clock_far_ahead_is_told_as_soon_as_by_a_right_one() -> None:
    allowance = Allowance.of(wish("first"), None)
    limit = Limit(most=2, minutes=60)
    ahead = MORNING + timedelta(days=1)
    for number, now in enumerate([ahead, ahead, ahead, MORNING]):
        allowance.ask(wish(f"n{number}"), limit, now, policy="hash")
    assert (allowance.admitted, allowance.held_back) == (2, 2)
    assert allowance.next_due == MORNING + HOUR
    allowance.tell(limit, WORDS, MORNING + HOUR)
    assert allowance.waiting == 0
    assert allowance.times == (MORNING + HOUR,)


def test_a_clock_that_is_a_little_behind_makes_no_room() -> None:
    allowance = Allowance.of(wish("first"), None)
    limit = Limit(most=2, minutes=30)
    for number, minutes in enumerate([0, 0, -29, 0, -29, 29]):
        at = MORNING + timedelta(minutes=minutes)
        allowance.ask(wish(f"n{number}"), limit, at, policy="hash")
    assert (allowance.admitted, allowance.held_back) == (2, 4)


@given(before=st.integers(1, 20), after=st.integers(1, 20), held=st.integers(1, 5))
def test_a_new_limit_holds_for_what_is_told_as_well(before: int, after: int, held: int) -> None:
    allowance = Allowance.of(wish("first"), None)
    for number in range(before + held):
        allowance.ask(wish(f"n{number}"), Limit(most=before, minutes=60), MORNING, policy="old")
    limit = Limit(most=after, minutes=60)
    told_at = None
    while (due := allowance.next_due) is not None:
        allowance.tell(limit, WORDS, due)
        told_at = due
    assert told_at == MORNING + HOUR
    assert len(allowance.times) <= after
    assert allowance.waiting == 0


def test_ten_thousand_wishes_keep_an_allowance_small() -> None:
    allowance = Allowance.of(wish("first"), None)
    limit = Limit(most=10, minutes=60)
    for number in range(10_000):
        at = MORNING + timedelta(milliseconds=6 * number)
        allowance.ask(wish(f"{number:026}"), limit, at, policy="hash")
        allowance._set_emissions(())
    assert (allowance.admitted, allowance.held_back) == (10, 9_990)
    assert len(allowance.model_dump_json()) < 64 * 1024
