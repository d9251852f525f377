"""A crisis, from the signal to the stand-down."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from rapport.common.aggregate import OUTBOX_LIMIT
from rapport.common.events.analytics import Series, SignalDetected
from rapport.common.events.cases import CaseCrisisLinked, CaseCrisisUnlinked
from rapport.common.events.clocks import ClockBreached, ClockCancelled, ClockMet, ClockStarted
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import (
    Coverage,
    CrisisDeclared,
    CrisisLinkRequested,
    CrisisProposed,
    CrisisStandDownRefused,
    CrisisStandDownRequested,
    CrisisStoodDown,
)
from rapport.common.events.envelope import sequence
from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.knowledge import Purpose, StatementReleased, Wording
from rapport.common.events.vocabulary import Channel, ComplaintType, Kind, Language, Severity
from rapport.common.testing import MORNING, Harness, harness
from rapport.routing.domain.crisis import Crisis, CrisisState, StandDown
from rapport.routing.repository import LINK_PAGE, MOST_CRISES
from rapport.routing.service import SERVICE

CRISES = "/routing/v1/crises"


@pytest.fixture
async def routing() -> AsyncIterator[Harness]:
    async with harness(SERVICE) as running:
        yield running


def complaint(
    case: str, *, product: str = "kettle", minutes: float = 0, **more: Any
) -> FeedbackReceived:
    at = MORNING + timedelta(minutes=minutes)
    given = {
        "feedback_id": f"f-{case}",
        "reference": case,
        "case_id": case,
        "client": "web",
        "kind": Kind.COMPLAINT,
        "channel": Channel.WEB,
        "language": Language.EN,
        "text": "The kettle broke after two days, the quality is terrible.",
        "product": product,
        "contact": Contact(person=f"person of {case}", email=f"{case}@home.example"),
        "occurred_at": at,
        "received_at": at,
    }
    return FeedbackReceived.model_validate(given | more)


def signal(id: str = "s1") -> SignalDetected:
    return SignalDetected(
        signal_id=id,
        series=Series(product="kettle", complaint_type=ComplaintType.PRODUCT_QUALITY),
        at=MORNING,
        since=MORNING - timedelta(hours=1),
        window=3600,
        observed=17,
        expected=1.2,
        score=6,
        path="cusum",
        reason={"en": "17 negative items in an hour where 1.2 are usual."},
        samples=("c1",),
    )


def released(crisis: str, purpose: Purpose = "holding") -> StatementReleased:
    return StatementReleased(
        statement_id="st",
        hash="h",
        purpose=purpose,
        crisis_id=crisis,
        by="pia",
        wordings={Language.EN: Wording(subject="s", text="t")},
        groups=(),
    )


async def declared(routing: Harness, **criteria: Any) -> str:
    """Propose a crisis by hand and declare it; return its id."""
    body = {"title": "Kettles break", "criteria": criteria or {"product": "kettle"}}
    proposed = await routing.call("POST", CRISES, json=body, as_="pia")
    assert proposed.status_code == 201, proposed.text
    id: str = proposed.json()["id"]
    answer = await routing.call("POST", f"{CRISES}/{id}/declaration", json={}, as_="lea")
    assert answer.status_code == 200, answer.text
    return id


def stored_crisis() -> Crisis:
    """Return a crisis whose end was asked for, as it looks for cases once more."""
    crisis = Crisis.from_signal("k", signal(), Severity.HIGH)
    crisis.state = CrisisState.STANDING_DOWN
    crisis.stand_down = StandDown(request_id="r", by="lea")
    return Crisis.model_validate(crisis.model_dump())


async def shown(routing: Harness, id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await routing.call("GET", f"{CRISES}/{id}")).json()
    return found


async def test_a_signal_proposes_a_crisis_that_a_person_declares(routing: Harness) -> None:
    await routing.given(signal())
    proposed = routing.published(CrisisProposed).data
    assert proposed.criteria.product == "kettle"
    assert proposed.reason.startswith("17 negative items")
    assert routing.all(CrisisDeclared) == []

    answer = await routing.call("POST", f"{CRISES}/{proposed.crisis_id}/declaration", json={})
    assert answer.json()["state"] == "declared"
    assert routing.published(CrisisDeclared).data.title == "kettle / product_quality"


async def test_the_same_matter_is_proposed_once(routing: Harness) -> None:
    await routing.given(signal("s1"), signal("s1"))
    await routing.given(signal("s2"))

    assert len(routing.all(CrisisProposed)) == 1


async def test_a_matter_is_proposed_once_also_beside_many_undecided_ones(routing: Harness) -> None:
    for number in range(MOST_CRISES + 1):
        body = {"title": "Something", "criteria": {"product": f"product {number}"}}
        await routing.call("POST", CRISES, json=body, as_="pia")
    await routing.advance(minutes=1)
    await routing.given(signal("s1"))
    await routing.given(signal("s2"))

    proposed = [event.data for event in routing.all(CrisisProposed) if event.data.signal_id]
    assert [one.signal_id for one in proposed] == ["s1"]
    assert proposed[0].reasons == signal().reason


async def test_a_dismissed_matter_can_be_proposed_again(routing: Harness) -> None:
    await routing.given(signal("s1"))
    id = routing.published(CrisisProposed).data.crisis_id
    await routing.call("POST", f"{CRISES}/{id}/dismissal", json={"reason": "a sale"})
    await routing.given(signal("s2"))

    assert len(routing.all(CrisisProposed)) == 2
    answer = await routing.call("POST", f"{CRISES}/{id}/declaration", json={})
    assert answer.status_code == 409


async def test_stored_cases_that_match_link_themselves_page_by_page(routing: Harness) -> None:
    await routing.given(*(complaint(f"c{number}") for number in range(450)))
    await routing.given(complaint("other", product="toaster"))
    id = await declared(routing)

    assert len(routing.all(CrisisLinkRequested)) == 450
    assert len(routing.all(CaseCrisisLinked)) == 450
    assert (await shown(routing, id))["cases"] == 450


async def test_later_cases_link_themselves_at_once(routing: Harness) -> None:
    id = await declared(routing)
    await routing.given(complaint("c1"), complaint("c2", product="toaster"))

    linked = routing.published(CaseCrisisLinked).data
    assert (linked.case_id, linked.crisis_id) == ("c1", id)
    assert linked.contact.email == "c1@home.example"


async def test_a_case_links_once_however_often_it_is_looked_for(routing: Harness) -> None:
    await routing.given(complaint("c1"))
    await declared(routing)
    await routing.advance(hours=1)
    await routing.given(complaint("c1", feedback_id="another message"))

    assert len(routing.all(CaseCrisisLinked)) == 1


async def test_what_happened_before_the_matter_began_does_not_belong(routing: Harness) -> None:
    await routing.given(complaint("c1", occurred_at=MORNING - timedelta(days=3)))
    await declared(routing, product="kettle", since=(MORNING - timedelta(hours=1)).isoformat())

    assert routing.all(CaseCrisisLinked) == []


MENTION: dict[str, Any] = {"kind": Kind.MENTION, "text": "There is a kettle in the kitchen."}


@pytest.mark.parametrize("later", [{}, MENTION])
async def test_a_case_belongs_to_a_matter_that_began_after_its_first_message(
    routing: Harness, later: dict[str, Any]
) -> None:
    await routing.given(complaint("c1", **MENTION))
    await routing.advance(days=3)
    await routing.given(complaint("c1", feedback_id="f2", minutes=3 * 24 * 60, **later))
    await routing.call("POST", "/routing/v1/cases/c1/assignment", json={"owner": "jun"})
    since = (MORNING + timedelta(days=2)).isoformat()
    await declared(routing, product="kettle", since=since)

    assert routing.published(CaseCrisisLinked).data.case_id == "c1"


async def test_a_sender_whose_clock_is_fast_belongs_too(routing: Harness) -> None:
    await routing.given(complaint("c1", occurred_at=MORNING + timedelta(hours=2)))
    since = (MORNING + timedelta(hours=1)).isoformat()
    await declared(routing, product="kettle", since=since)

    assert routing.published(CaseCrisisLinked).data.case_id == "c1"


async def test_a_case_linked_by_mistake_is_unlinked_by_hand(routing: Harness) -> None:
    await routing.given(complaint("c1"), complaint("c2", product="toaster"))
    id = await declared(routing)
    cases = f"{CRISES}/{id}/cases"
    await routing.call("POST", cases, json={"case_id": "c1", "belongs": False}, as_="lea")
    await routing.call("POST", cases, json={"case_id": "c2"})

    assert routing.published(CaseCrisisUnlinked).data.case_id == "c1"
    assert routing.all(CaseCrisisLinked)[-1].data.case_id == "c2"


async def test_what_was_unlinked_by_hand_comes_back_by_hand_alone(routing: Harness) -> None:
    await routing.given(complaint("c1"))
    id = await declared(routing)
    cases = f"{CRISES}/{id}/cases"
    await routing.call("POST", cases, json={"case_id": "c1", "belongs": False}, as_="lea")
    asked = len(routing.all(CrisisLinkRequested))
    await routing.advance(minutes=20)
    await routing.given(complaint("c1", feedback_id="f2"))
    await routing.given(CrisisLinkRequested(crisis_id=id, case_id="c1"))
    assert len(routing.all(CaseCrisisLinked)) == 1
    assert len(routing.all(CrisisLinkRequested)) == asked

    await routing.call("POST", cases, json={"case_id": "c1"}, as_="lea")
    assert len(routing.all(CaseCrisisLinked)) == 2


async def test_a_case_kept_out_of_one_crisis_joins_the_next_that_it_matches(
    routing: Harness,
) -> None:
    await routing.given(complaint("c1"))
    first = await declared(routing)
    body = {"case_id": "c1", "belongs": False}
    await routing.call("POST", f"{CRISES}/{first}/cases", json=body, as_="lea")
    second = await declared(routing, product="kettle", complaint_type="product_quality")
    linked = [event.data.crisis_id for event in routing.all(CaseCrisisLinked)]
    assert linked == [first, second]


async def test_cases_of_another_crisis_do_not_hold_up_a_stand_down(routing: Harness) -> None:
    await routing.given(*(complaint(f"c{number:03}") for number in range(LINK_PAGE)))
    first = await declared(routing)
    assert len(routing.all(CrisisLinkRequested)) == LINK_PAGE
    second = await declared(routing, product="kettle", complaint_type="product_quality")
    await routing.call("POST", f"{CRISES}/{second}/stand-down", as_="lea")
    assert len(routing.all(CrisisLinkRequested)) == LINK_PAGE
    await routing.call("POST", f"{CRISES}/{first}/stand-down", as_="lea")
    asked = [event.data.crisis_id for event in routing.all(CrisisStandDownRequested)]
    assert asked == [second, first]


async def test_the_last_page_of_cases_has_room_for_the_stand_down(routing: Harness) -> None:
    crisis = stored_crisis()
    crisis.link_page([f"c{number}" for number in range(LINK_PAGE)], None, MORNING)
    assert len(crisis.emitted) == OUTBOX_LIMIT


async def test_the_holding_statement_is_a_clock(routing: Harness) -> None:
    id = await declared(routing)
    started = routing.published(ClockStarted).data
    assert (started.of, started.clock) == ("crisis", "holding_statement")
    await routing.advance(minutes=30)
    await routing.given(released(id, "update"))
    assert routing.all(ClockMet) == []
    await routing.given(released(id, "holding"))

    met = routing.published(ClockMet).data
    assert (met.aggregate_id, met.elapsed, met.breached) == (id, 1800, False)


async def test_a_holding_statement_from_before_the_declaration_does_not_meet_its_clock(
    routing: Harness,
) -> None:
    body = {"title": "Kettles break", "criteria": {"product": "kettle"}}
    id = (await routing.call("POST", CRISES, json=body, as_="pia")).json()["id"]
    early = routing.event(released(id, "holding"), subject="st", sequence=sequence(2, 0))
    await routing.given(early)
    await routing.advance(minutes=10)
    await routing.call("POST", f"{CRISES}/{id}/declaration", json={}, as_="lea")
    await routing.given(early)
    assert routing.all(ClockMet) == []
    await routing.advance(minutes=30)
    await routing.given(released(id, "holding"))
    assert routing.published(ClockMet).data.elapsed == 1800


async def test_a_promised_update_is_a_clock_too(routing: Harness) -> None:
    id = await declared(routing)
    next_update = (MORNING + timedelta(hours=1)).isoformat()
    body = {"text": "We are looking into it.", "next_update_at": next_update}
    await routing.call("POST", f"{CRISES}/{id}/updates", json=body)
    await routing.advance(hours=1.5)
    breached = [event.data.clock for event in routing.all(ClockBreached)]
    assert breached == ["next_update"]
    await routing.call("POST", f"{CRISES}/{id}/updates", json={"text": "We know why."})

    assert routing.published(ClockMet).data.breached is True


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (MORNING.isoformat(), "is not in the future"),
        ("6313-07-21T05:19:07.6+14:37", "is more than a year away"),
    ],
)
async def test_a_promise_in_the_past_or_for_another_age_is_refused(
    routing: Harness, at: str, reason: str
) -> None:
    id = await declared(routing)
    body = {"text": "…", "next_update_at": at}
    answer = await routing.call("POST", f"{CRISES}/{id}/updates", json=body)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["reason"]) == ("/next_update_at", reason)


async def test_a_stand_down_is_refused_while_somebody_would_be_left_behind(
    routing: Harness,
) -> None:
    id = await declared(routing)
    answer = await routing.call("POST", f"{CRISES}/{id}/stand-down", as_="lea")
    assert (answer.status_code, answer.json()["state"]) == (202, "standing_down")
    asked = routing.published(CrisisStandDownRequested).data
    behind = Coverage(linked=3, delivered=3, without_closing=2)
    await routing.given(
        CommunicationReviewed(crisis_id=id, request_id=asked.request_id, coverage=behind)
    )

    refused = routing.published(CrisisStandDownRefused).data
    assert refused.reason.startswith("2 with a holding statement")
    assert refused.reasons["zh"].startswith("2 人")
    assert refused.reasons["fa"].startswith("۲ نفر")
    assert (await shown(routing, id))["state"] == "declared"


async def test_a_stand_down_looks_for_cases_once_more_and_then_ends_it(routing: Harness) -> None:
    id = await declared(routing)
    await routing.call("POST", f"{CRISES}/{id}/stand-down", as_="lea")
    await routing.given(complaint("late"))
    assert routing.published(CaseCrisisLinked).data.case_id == "late"
    asked = routing.published(CrisisStandDownRequested).data
    review = CommunicationReviewed(
        crisis_id=id, request_id=asked.request_id, coverage=Coverage(linked=1, delivered=1)
    )
    await routing.given(review)
    await routing.given(review)

    assert routing.published(CrisisStoodDown).data.by == "lea"
    assert routing.published(ClockCancelled).data.clock == "holding_statement"
    await routing.given(complaint("after"))
    await routing.advance(hours=2)
    assert len(routing.all(CaseCrisisLinked)) == 1


async def test_an_answer_to_another_request_changes_nothing(routing: Harness) -> None:
    id = await declared(routing)
    await routing.given(CommunicationReviewed(crisis_id=id, request_id="old", coverage=Coverage()))
    assert (await shown(routing, id))["state"] == "declared"


async def test_only_a_stood_down_crisis_is_reviewed(routing: Harness) -> None:
    id = await declared(routing)
    answer = await routing.call("POST", f"{CRISES}/{id}/review", json={"text": "Lessons."})
    assert answer.status_code == 409


async def test_a_drill_and_the_real_thing_do_not_meet(routing: Harness) -> None:
    await routing.given(signal(), exercise="spring drill")
    id = routing.published(CrisisProposed).data.crisis_id
    await routing.call("POST", f"{CRISES}/{id}/declaration", json={})
    await routing.given(complaint("real"))
    await routing.given(complaint("drilled"), exercise="spring drill")

    assert routing.published(CaseCrisisLinked).data.case_id == "drilled"
    assert routing.published(CaseCrisisLinked).exercise == "spring drill"


@pytest.mark.parametrize("drilled", [None, "spring drill"])
async def test_nor_do_they_meet_by_hand(routing: Harness, drilled: str | None) -> None:
    other = "spring drill" if drilled is None else None
    await routing.given(signal(), exercise=drilled)
    id = routing.published(CrisisProposed).data.crisis_id
    await routing.call("POST", f"{CRISES}/{id}/declaration", json={})
    await routing.given(complaint("c1"), exercise=other)
    answer = await routing.call("POST", f"{CRISES}/{id}/cases", json={"case_id": "c1"})

    assert answer.status_code == 409
    assert "is real" in answer.json()["detail"]
    assert "of the drill 'spring drill'" in answer.json()["detail"]
    assert routing.all(CaseCrisisLinked) == []


async def test_by_hand_a_drill_takes_a_case_of_its_own(routing: Harness) -> None:
    await routing.given(signal(), exercise="spring drill")
    id = routing.published(CrisisProposed).data.crisis_id
    await routing.call("POST", f"{CRISES}/{id}/declaration", json={})
    await routing.given(complaint("c1", product="toaster"), exercise="spring drill")
    await routing.call("POST", f"{CRISES}/{id}/cases", json={"case_id": "c1"})

    assert routing.published(CaseCrisisLinked).exercise == "spring drill"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"criteria": {"product": "kettle"}}, "/title"),
        ({"title": "x", "criteria": {}}, "/criteria"),
        ({"title": "x", "criteria": {"product": "k"}, "severity": "huge"}, "/severity"),
        ({"title": "x", "criteria": {"product": "k"}, "surprise": 1}, "/surprise"),
        ({"title": "x", "criteria": {"product": "k", "regoin": "n"}}, "/criteria/regoin"),
        ({"title": "x", "criteria": {"product": "k" * 501}}, "/criteria/product"),
        ({"title": "x", "criteria": {"product": " ", "brand": "b"}}, "/criteria/product"),
    ],
)
async def test_a_proposal_that_says_too_little_is_refused_with_its_field(
    routing: Harness, body: dict[str, Any], pointer: str
) -> None:
    answer = await routing.call("POST", CRISES, json=body)
    assert answer.status_code == 422
    assert pointer in [problem["pointer"] for problem in answer.json()["errors"]]


async def test_agents_may_propose_and_not_declare(routing: Harness) -> None:
    body = {"title": "x", "criteria": {"product": "kettle"}}
    proposed = await routing.call("POST", CRISES, json=body, roles=["agent"])
    assert proposed.status_code == 201
    id = proposed.json()["id"]
    answer = await routing.call("POST", f"{CRISES}/{id}/declaration", json={}, roles=["agent"])
    assert answer.status_code == 403
