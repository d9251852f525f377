"""The life of a case, from what people say to its end."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from rapport.common.events.cases import (
    CaseClosed,
    CaseCrisisLinked,
    CaseCrisisUnlinked,
    CaseEscalated,
    CaseFeedbackAdded,
    CaseHandoverDeclined,
    CaseHandoverExpired,
    CaseHandoverOffered,
    CaseNoted,
    CaseOpened,
    CaseOwnerChanged,
    CaseReferralReturned,
    CaseReopened,
    CaseReplyRequested,
    CaseResolved,
    FeedbackClassified,
)
from rapport.common.events.clocks import (
    ClockBreached,
    ClockCancelled,
    ClockMet,
    ClockStarted,
    ClockWarned,
)
from rapport.common.events.crises import CrisisLinkRequested, Criteria
from rapport.common.events.feedback import Contact, Rating, Reach
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    OwnReason,
    Severity,
)
from rapport.common.testing import MORNING, Harness, harness
from rapport.routing.domain.case import Case
from rapport.routing.domain.clocks import Timing
from rapport.routing.domain.crisis import Crisis, CrisisState
from rapport.routing.domain.history import CaseHistory
from rapport.routing.domain.policies import KeptPolicy
from rapport.routing.service import SERVICE

from .told import BROKEN, RITA, delivered, failed, feedback, praise, suppressed


@pytest.fixture
async def routing() -> AsyncIterator[Harness]:
    async with harness(SERVICE) as running:
        yield running


async def case_of(routing: Harness, id: str = "c1") -> Case:
    case = await routing.running.store.get(Case, id)
    assert case is not None
    return case


async def post(routing: Harness, action: str, **body: Any) -> dict[str, Any]:
    """Do something to case c1 as a lead; return the answer's body."""
    response = await routing.call("POST", f"/routing/v1/cases/c1/{action}", json=body)
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


# What comes in


async def test_a_complaint_is_assessed_and_opens_a_case_with_an_owner_and_a_clock(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    classified = routing.published(FeedbackClassified).data
    assert classified.about.complaint_type is ComplaintType.PRODUCT_QUALITY
    assert classified.because["complaint_type"].terms
    opened = routing.published(CaseOpened).data
    assert (opened.owner, opened.team, opened.rule) == ("jun", "quality", "product")
    assert opened.excerpt == BROKEN
    started = routing.published(ClockStarted).data
    assert (started.owner, started.channel) == ("jun", Channel.WEB)
    assert started.due_at == MORNING + timedelta(hours=24)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kind": Kind.MENTION, "public": True, "channel": Channel.SOCIAL},
        {
            "kind": Kind.SURVEY_ANSWER,
            "channel": Channel.SURVEY,
            "text": None,
            "rating": Rating(value=5, minimum=1, maximum=5),
        },
    ],
)
async def test_what_asks_for_nothing_is_only_noted(routing: Harness, given: dict[str, Any]) -> None:
    await routing.given(praise(**given))
    assert routing.types() == [FeedbackClassified.TYPE, CaseNoted.TYPE]
    case = await case_of(routing)
    assert (case.owner, case.clock, case.next_due) == (None, None, None)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": Kind.MENTION, "public": True, "channel": Channel.SOCIAL},
        {
            "kind": Kind.SURVEY_ANSWER,
            "channel": Channel.SURVEY,
            "text": None,
            "rating": Rating(value=1, minimum=1, maximum=5),
        },
    ],
)
async def test_low_ratings_and_negative_mentions_are_work(
    routing: Harness, given: dict[str, Any]
) -> None:
    await routing.given(feedback(**given))
    assert routing.published(CaseOpened)


async def test_a_complaint_after_praise_opens_the_case_on_its_own_terms(routing: Harness) -> None:
    await routing.given(praise(channel=Channel.WEB, brand="Hearth"))
    await routing.advance(hours=1)
    await routing.given(
        feedback(feedback_id="f2", channel=Channel.HOTLINE, occurred_at=routing.clock.now())
    )
    opened = routing.published(CaseOpened).data
    assert (opened.feedback_id, opened.excerpt) == ("f2", BROKEN)
    assert (opened.about.kind, opened.about.channel) == (Kind.COMPLAINT, Channel.HOTLINE)
    assert opened.about.brand == "Hearth"
    assert opened.occurred_at == routing.clock.now()
    started = routing.published(ClockStarted).data
    assert started.due_at == routing.clock.now() + timedelta(minutes=15)


async def test_further_messages_join_the_case_and_the_worst_of_them_counts(
    routing: Harness,
) -> None:
    await routing.given(feedback(kind=Kind.QUESTION, text="When does my kettle arrive?"))
    await routing.given(
        feedback(feedback_id="f2", text="It arrived, caught fire and burned my hand!")
    )
    added = routing.published(CaseFeedbackAdded).data
    case = await case_of(routing)
    assert added.owner == case.owner
    assert case.about.kind is Kind.COMPLAINT
    assert case.about.severity is Severity.CRITICAL
    assert case.about.need in (Need.MATERIAL, Need.EMOTIONAL, Need.BOTH)
    assert case.conversation.count == 2


async def test_the_same_message_again_changes_nothing_but_its_reach(routing: Harness) -> None:
    post = {"public": True, "channel": Channel.SOCIAL}
    await routing.given(feedback(**post, reach=Reach(followers=10)))
    types, before = routing.types(), await case_of(routing)
    await routing.given(feedback(**post, reach=Reach(followers=10)))
    assert await case_of(routing) == before
    await routing.given(feedback(**post, reach=Reach(followers=10, views=5_000)))
    assert (await case_of(routing)).about.reach == 5_000
    assert routing.types() == types


async def test_a_conversation_keeps_what_is_bounded(routing: Harness) -> None:
    for batch in range(6):
        await routing.given(
            *(feedback(feedback_id=f"f{batch}-{n}", text="still broken") for n in range(60))
        )
    conversation = (await case_of(routing)).conversation
    assert (conversation.count, len(conversation.heard), len(conversation.messages)) == (
        360,
        360,
        20,
    )


async def test_a_batch_is_spread_over_those_who_speak_the_language(routing: Harness) -> None:
    await routing.given(
        *(feedback(feedback_id=f"f{n}", case_id=f"c{n}") for n in range(30)),
        *(
            feedback(feedback_id=f"z{n}", case_id=f"z{n}", language=Language.ZH, text="水壶坏了")
            for n in range(5)
        ),
    )
    owners = Counter(event.data.owner for event in routing.all(CaseOpened))
    assert owners == {"jun": 10 + 5, "kim": 10, "navid": 10}


async def test_loads_are_counted_again_after_a_while(routing: Harness) -> None:
    await routing.given(*(feedback(feedback_id=f"f{n}", case_id=f"c{n}") for n in range(3)))
    response = await routing.call("POST", "/routing/v1/cases/c1/closure")
    freed = response.json()["owner"]
    await routing.advance(seconds=30)
    await routing.given(feedback(feedback_id="f9", case_id="c9"))
    assert routing.all(CaseOpened)[-1].data.owner == freed


async def test_what_is_imported_is_counted_and_asks_nothing_of_anybody(routing: Harness) -> None:
    await routing.given(feedback(), historical=True)
    assert routing.types() == [FeedbackClassified.TYPE, CaseNoted.TYPE]
    assert routing.published(FeedbackClassified).historical
    await routing.advance(days=30)
    assert ClockWarned.TYPE not in routing.types()


async def test_a_live_message_opens_an_imported_conversation_and_its_clock_is_live(
    routing: Harness,
) -> None:
    await routing.given(feedback(), historical=True)
    await routing.given(feedback(feedback_id="f2"))
    await routing.advance(hours=25)
    assert not routing.published(CaseOpened).historical
    assert not routing.published(ClockBreached).historical


async def test_an_import_leaves_a_case_in_work_alone(routing: Harness) -> None:
    await routing.given(feedback())
    await routing.given(feedback(feedback_id="f0"), historical=True)
    assert CaseFeedbackAdded.TYPE not in routing.types()
    assert len(routing.all(FeedbackClassified)) == 2


# The clock


async def test_a_clock_warns_is_breached_and_brings_in_the_lead_then_the_manager(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await routing.advance(hours=17)
    assert ClockWarned.TYPE not in routing.types()
    await routing.advance(hours=1)
    assert routing.published(ClockWarned).time == MORNING + timedelta(hours=18)
    await routing.advance(hours=6)
    assert routing.published(ClockBreached).data.owner == "jun"
    first = routing.published(CaseEscalated).data
    assert (first.owner, first.to, first.level) == ("jun", "omid", 1)
    await routing.advance(days=10)
    second = routing.all(CaseEscalated)[-1]
    assert (second.data.to, second.data.level) == ("marta", 2)
    assert second.time == MORNING + timedelta(hours=48)
    assert (await case_of(routing)).owner == "jun"


def brought_in(routing: Harness) -> list[tuple[str, int]]:
    """Return who was brought in so far, each with the level."""
    return [(event.data.to, event.data.level) for event in routing.all(CaseEscalated)]


async def test_the_manager_is_brought_in_where_the_lead_has_taken_the_case(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await routing.advance(hours=24)
    await post(routing, "assignment", owner="omid")
    await routing.advance(hours=24)
    assert brought_in(routing) == [("omid", 1), ("marta", 2)]


async def test_the_lead_of_another_team_is_brought_in_too(routing: Harness) -> None:
    await routing.given(feedback())
    await post(routing, "escalation")
    await post(routing, "assignment", owner="tom")
    for _ in range(2):
        await post(routing, "escalation")
    assert brought_in(routing) == [("omid", 1), ("carol", 2), ("marta", 3)]


async def test_a_case_that_is_taken_up_again_climbs_from_the_bottom(routing: Harness) -> None:
    await routing.given(feedback())
    await routing.advance(hours=48)
    await post(routing, "closure")
    await routing.given(feedback(feedback_id="f2", text="It is broken again."))
    assert (await case_of(routing)).escalation == 0
    await routing.advance(hours=48)
    assert brought_in(routing) == [("omid", 1), ("marta", 2)] * 2


async def test_what_was_solved_without_a_reply_and_breaks_again_has_a_clock_that_warns(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await routing.advance(hours=48)
    await post(routing, "resolution", resolution="Told by phone: descale it.")
    await routing.given(feedback(feedback_id="f2", text="It is broken again."))
    assert routing.published(ClockCancelled).data.reason == OwnReason.FURTHER_MESSAGE
    assert len(routing.all(ClockStarted)) == 2
    await routing.advance(hours=48)
    assert brought_in(routing) == [("omid", 1), ("marta", 2)] * 2


async def test_an_answer_on_its_way_is_none_to_what_the_person_says_after_it(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    reply = await post(routing, "replies", text="We will replace it.")
    await post(routing, "closure")
    await routing.advance(minutes=1)
    await routing.given(feedback(feedback_id="f2", text="It is broken again."))
    await routing.given(delivered(reply["id"], routing.clock.now()))
    assert routing.all(ClockMet) == []
    again = await post(routing, "replies", text="We are sorry.")
    await routing.given(delivered(again["id"], routing.clock.now()))
    assert routing.published(ClockMet)


async def test_an_answer_meets_its_clock_also_where_ours_was_put_back(routing: Harness) -> None:
    await routing.given(feedback())
    routing.clock._now -= timedelta(minutes=10)
    reply = await post(routing, "replies", text="We will replace it.")
    await routing.given(delivered(reply["id"], routing.clock.now()))
    assert routing.published(ClockMet).data.elapsed == 0


async def test_a_case_that_was_stored_before_names_were_kept_skips_nobody() -> None:
    case = stored(escalation=1)
    while case.climb(["omid", "marta"], "overdue"):
        pass
    told = [(event.to, event.level) for event in case.emitted if isinstance(event, CaseEscalated)]
    assert told == [("omid", 2), ("marta", 3)]


async def test_a_clock_is_met_by_a_reply_that_was_delivered_not_by_a_click(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    reply = await post(routing, "replies", text="We will replace it.")
    asked = routing.published(CaseReplyRequested).data
    assert (asked.contact, asked.subject[:15]) == (RITA, "Re: The kettle ")
    assert ClockMet.TYPE not in routing.types()
    await routing.advance(hours=2)
    await routing.given(delivered(reply["id"], MORNING + timedelta(hours=1)))
    met = routing.published(ClockMet).data
    assert (met.elapsed, met.breached) == (3600, False)
    await routing.advance(days=10)
    assert ClockWarned.TYPE not in routing.types()
    assert [reply.state for reply in (await case_of(routing)).replies] == ["delivered"]


async def test_a_reply_that_fails_leaves_the_clock_running(routing: Harness) -> None:
    await routing.given(feedback())
    reply = await post(routing, "replies", text="We will replace it.")
    await routing.given(failed(reply["id"]))
    await routing.advance(hours=24)
    assert routing.published(ClockBreached)
    await routing.given(delivered(reply["id"], routing.clock.now() + timedelta(minutes=1)))
    assert routing.published(ClockMet).data.breached
    await routing.given(failed(reply["id"]))
    assert [reply.state for reply in (await case_of(routing)).replies] == ["delivered"]


async def test_in_a_drill_a_reply_that_was_held_back_counts(routing: Harness) -> None:
    await routing.given(feedback(), exercise="drill-1")
    await routing.given(feedback(feedback_id="f2", case_id="c2"))
    for case_id in ("c1", "c2"):
        path = f"/routing/v1/cases/{case_id}/replies"
        reply = (await routing.call("POST", path, json={"text": "Sorry."})).json()
        exercise = "drill-1" if case_id == "c1" else None
        await routing.given(suppressed(reply["id"], case_id), exercise=exercise)
    met = routing.published(ClockMet)
    assert (met.data.aggregate_id, met.exercise) == ("c1", "drill-1")


async def test_closing_cancels_a_clock_unless_an_answer_is_on_its_way(routing: Harness) -> None:
    await routing.given(feedback())
    reply = await post(routing, "replies", text="We have replaced it.")
    await post(routing, "closure")
    await routing.given(delivered(reply["id"], routing.clock.now()))
    assert routing.published(ClockMet)
    await routing.given(feedback(feedback_id="f2", case_id="c2"))
    await routing.call("POST", "/routing/v1/cases/c2/closure")
    assert routing.published(ClockCancelled).data.aggregate_id == "c2"


async def test_due_times_rebuilt_from_the_event_log_are_identical(routing: Harness) -> None:
    """A6: the log and the policies kept under their hashes are all that it takes."""
    for number, channel in enumerate(Channel):
        await routing.advance(hours=5)
        await routing.given(
            feedback(feedback_id=f"f{number}", case_id=f"c{number}", channel=channel)
        )
    await routing.advance(days=8)
    opened = {event.subject: event for event in routing.all(CaseOpened)}
    warned = {event.subject: event.time for event in routing.all(ClockWarned)}
    breached = {event.subject: event.time for event in routing.all(ClockBreached)}
    clocks = routing.all(ClockStarted)
    assert len(clocks) == len(Channel)
    for told in clocks:
        kept = await routing.running.store.get(KeptPolicy, told.data.policy)
        assert kept is not None
        rebuilt = Timing.model_validate_json(kept.text).start(
            "first_response",
            opened[told.subject].data.about,
            opened[told.subject].time,
            of="case",
            aggregate_id=told.subject,
        )
        assert rebuilt.policy == told.data.policy
        assert rebuilt.due_at == told.data.due_at == breached[told.subject]
        assert rebuilt.warn_at == warned[told.subject]


# Owners and handlers


async def test_an_unaccepted_handover_returns_to_the_owner(routing: Harness) -> None:
    await routing.given(feedback())
    await post(routing, "handover", to="kim", reason="night shift")
    await routing.advance(hours=4)
    expired = routing.published(CaseHandoverExpired).data
    assert (expired.returned_to, expired.offered_to) == ("jun", "kim")
    assert (await case_of(routing)).owner == "jun"


async def test_a_referral_that_is_not_returned_comes_back_by_itself(routing: Harness) -> None:
    await routing.given(feedback())
    shown = await post(routing, "referral", to="contracts", reason="warranty?")
    assert (shown["owner"], shown["handler"]) == ("jun", "contracts")
    await routing.advance(days=2)
    returned = routing.published(CaseReferralReturned).data
    assert (returned.handler, returned.expired) == ("contracts", True)
    assert (await case_of(routing)).handler == "jun"


# How it ends


async def test_a_resolved_case_closes_by_itself(routing: Harness) -> None:
    await routing.given(feedback())
    await post(routing, "resolution", resolution="replaced")
    resolved = routing.published(CaseResolved).data
    assert (resolved.opened_at, resolved.first_contact) == (MORNING, True)
    await routing.advance(days=7)
    closed = routing.published(CaseClosed).data
    assert (closed.by, closed.owner) == ("rapport", "jun")


async def test_a_further_message_takes_a_closed_case_up_again_with_a_new_clock(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await post(routing, "closure")
    await routing.advance(days=1)
    await routing.given(feedback(feedback_id="f2", text="It is broken again."))
    assert routing.published(CaseReopened).data.owner == "jun"
    assert len(routing.all(ClockStarted)) == 2
    await post(routing, "resolution", resolution="replaced")
    assert not routing.published(CaseResolved).data.first_contact


async def test_thanks_do_not_take_a_case_up_again(routing: Harness) -> None:
    await routing.given(feedback())
    await post(routing, "closure")
    await routing.given(praise(feedback_id="f2"))
    assert routing.published(CaseFeedbackAdded)
    assert CaseReopened.TYPE not in routing.types()


# Its crisis


async def declare(
    routing: Harness, id: str = "k1", state: CrisisState = CrisisState.DECLARED
) -> None:
    """Let there be a crisis about kettles."""
    crisis = Crisis(
        id=id,
        state=state,
        title="Kettles",
        reason="they burn",
        severity=Severity.HIGH,
        criteria=Criteria(product="kettle", since=MORNING),
        proposed_at=MORNING,
    )
    await routing.running.engine.change(Crisis, id, lambda _: crisis, cause=id)


async def test_a_case_that_matches_a_crisis_that_is_on_joins_it(routing: Harness) -> None:
    await declare(routing)
    await declare(routing, "k2", state=CrisisState.PROPOSED)
    await routing.given(feedback(), feedback(feedback_id="f2", case_id="c2", product="pan"))
    await routing.given(praise(feedback_id="f3", case_id="c3"))
    linked = routing.published(CaseCrisisLinked)
    assert (linked.subject, linked.data.crisis_id) == ("c1", "k1")
    assert linked.data.contact == RITA


async def test_what_happened_before_the_matter_does_not_belong_to_its_crisis(
    routing: Harness,
) -> None:
    await declare(routing)
    await routing.given(feedback(occurred_at=MORNING - timedelta(days=1)))
    assert CaseCrisisLinked.TYPE not in routing.types()


async def test_a_later_message_may_make_a_case_join(routing: Harness) -> None:
    await declare(routing)
    await routing.given(feedback(product=None))
    assert CaseCrisisLinked.TYPE not in routing.types()
    await routing.given(feedback(feedback_id="f2"))
    assert routing.published(CaseCrisisLinked)


async def test_a_drill_and_what_is_real_do_not_join(routing: Harness) -> None:
    await declare(routing)
    await routing.given(feedback(), exercise="drill-1")
    assert CaseCrisisLinked.TYPE not in routing.types()


async def test_a_stored_case_joins_when_it_is_asked_to_and_only_once(routing: Harness) -> None:
    await routing.given(feedback())
    await declare(routing)
    await declare(routing, "k2", state=CrisisState.STANDING_DOWN)
    asked = [CrisisLinkRequested(crisis_id=id, case_id="c1") for id in ("k1", "k1", "k2", "k3")]
    await routing.given(*asked)
    assert routing.published(CaseCrisisLinked).data.crisis_id == "k1"


ABOUT = {
    "kind": "complaint",
    "channel": "web",
    "language": "en",
    "complaint_type": "other",
    "need": "none",
    "sentiment": "negative",
    "trust_cause": "none",
    "severity": "normal",
}


def stored(**more: Any) -> Case:
    """Return case c1 as it was stored."""
    given = {
        "id": "c1",
        "state": "open",
        "owner": "jun",
        "about": ABOUT,
        "conversation": {"contact": {"person": "rita"}},
        "began_at": MORNING,
        "occurred_at": MORNING,
    }
    return Case.model_validate(given | more)


async def test_a_case_leaves_a_crisis_and_may_join_the_next_after_the_last_ended() -> None:
    case = stored()
    assert case.link("k1", active=["k1", "k2"])
    assert not case.link("k2", active=["k1", "k2"])
    assert case.link("k2", active=["k2"])
    assert not case.unlink("k1", by="lin")
    assert case.unlink("k2", by="lin")
    left = case.emitted[-1]
    assert isinstance(left, CaseCrisisUnlinked)
    assert left.person == "rita"


# What is remembered


async def test_the_history_tells_everything_in_order_and_nothing_personal(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await post(routing, "notes", text="Rita called: call her back at 555-0100.")
    await post(routing, "replies", text="Dear Rita, sorry.")
    await routing.advance(days=3)
    page = await routing.running.store.find(CaseHistory, {"case_id": "c1"})
    published = [kind for kind in routing.types() if kind.startswith("rapport.")]
    assert [entry.type for entry in page.items] == published
    assert not any("Rita" in entry.model_dump_json() for entry in page.items)


async def test_why_somebody_did_something_is_for_colleagues_and_not_for_the_history(
    routing: Harness,
) -> None:
    await routing.given(feedback())
    await post(routing, "assignment", owner="kim", reason="Rita asked for kim")
    await post(routing, "handover", to="lin", reason="Rita speaks French")
    declining = {"reason": "Rita is my aunt"}
    await routing.call("POST", "/routing/v1/cases/c1/handover/decline", json=declining, as_="lin")
    await post(routing, "closure")
    await post(routing, "reopening", reason="Rita called again")
    page = await routing.running.store.find(CaseHistory, {"case_id": "c1"})
    assert not any("Rita" in entry.model_dump_json() for entry in page.items)
    assert routing.published(CaseOwnerChanged).data.reason == "Rita asked for kim"
    assert routing.published(CaseHandoverOffered).data.reason == "Rita speaks French"
    assert routing.published(CaseHandoverDeclined).data.reason == "Rita is my aunt"
    assert routing.published(CaseReopened).data.reason == "Rita called again"


async def test_an_address_that_comes_later_is_where_replies_go(routing: Harness) -> None:
    nameless = Contact(handles={"forum": "kettle-fan"})
    await routing.given(feedback(contact=nameless, channel=Channel.FORUM))
    await routing.given(feedback(feedback_id="f2"))
    await routing.given(
        feedback(feedback_id="f3", contact=Contact(person="bob", email="bob@example.com"))
    )
    contact = (await case_of(routing)).conversation.contact
    assert contact == RITA.model_copy(update={"handles": {"forum": "kettle-fan"}})


BY_PHONE = Contact(person="rita by phone", phone="+44 20 7946 0100")


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (BY_PHONE, {"phone": "0044 20 79460100"}),
        (Contact(person="a fan", handles={"forum": "@Fan"}), {"handles": {"forum": "fan"}}),
    ],
)
async def test_who_can_be_called_and_gives_an_address_later_is_the_same_person(
    routing: Harness, first: Contact, later: dict[str, Any]
) -> None:
    await routing.given(feedback(contact=first))
    await routing.given(feedback(feedback_id="f2", contact=RITA.model_copy(update=later)))
    await routing.given(feedback(feedback_id="f3", contact=Contact(person="bob", phone="2")))
    contact = (await case_of(routing)).conversation.contact
    assert (contact.person, contact.email) == (first.person, RITA.email)
    assert (contact.phone, contact.handles) == (first.phone, first.handles)
    await post(routing, "replies", text="Sorry.")


async def test_its_crisis_is_told_of_an_address_that_comes_later(routing: Harness) -> None:
    await declare(routing)
    await routing.given(feedback(contact=BY_PHONE))
    with_address = BY_PHONE.model_copy(update={"email": "rita@example.com"})
    for number in (2, 3):
        await routing.given(feedback(feedback_id=f"f{number}", contact=with_address))
    first, again = routing.all(CaseCrisisLinked)
    assert first.data == again.data.model_copy(update={"contact": BY_PHONE})
    assert again.data.contact == with_address
    assert CaseCrisisUnlinked.TYPE not in routing.types()


async def test_its_crisis_knows_who_was_nameless_at_first_by_their_name_alone(
    routing: Harness,
) -> None:
    await declare(routing)
    await routing.given(feedback(contact=Contact()))
    await routing.given(feedback(feedback_id="f2"))
    assert routing.published(CaseCrisisUnlinked).data.person is None
    assert routing.all(CaseCrisisLinked)[-1].data.contact == RITA
    linking = [kind for kind in routing.types() if kind.startswith("rapport.case.crisis_")]
    assert linking == [
        CaseCrisisLinked.TYPE,
        CaseCrisisUnlinked.TYPE,
        CaseCrisisLinked.TYPE,
    ]


async def test_its_crisis_is_told_of_an_imported_address_with_the_next_message(
    routing: Harness,
) -> None:
    await declare(routing)
    await routing.given(feedback(contact=BY_PHONE))
    with_address = BY_PHONE.model_copy(update={"email": "rita@example.com"})
    await routing.given(feedback(feedback_id="f2", contact=with_address), historical=True)
    assert routing.published(CaseCrisisLinked).data.contact == BY_PHONE
    await routing.given(feedback(feedback_id="f3", contact=BY_PHONE))
    assert routing.all(CaseCrisisLinked)[-1].data.contact == with_address


async def test_a_crisis_that_is_over_is_told_of_no_address(routing: Harness) -> None:
    await declare(routing)
    await routing.given(feedback(contact=Contact()))
    await routing.running.engine.change(Crisis, "k1", over, cause="the end")
    await routing.given(feedback(feedback_id="f2"))
    assert routing.published(CaseCrisisLinked).data.contact == Contact()


def over(crisis: Crisis | None) -> Crisis:
    assert crisis is not None
    crisis.state = CrisisState.STOOD_DOWN
    return crisis


async def test_the_thread_of_an_e_mail_is_answered(routing: Harness) -> None:
    await routing.given(
        feedback(channel=Channel.EMAIL, source_ref="<1@example.com>", subject="Broken\nkettle")
    )
    await post(routing, "replies", text="Sorry.")
    asked = routing.published(CaseReplyRequested).data
    assert (asked.in_reply_to, asked.subject) == ("<1@example.com>", "Re: Broken kettle")
