"""What cases do: they hear messages, learn what became of replies, join crises, and keep time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rapport.common.aggregate import Due, Fact
from rapport.common.events.cases import CaseEvent, Subject
from rapport.common.events.clocks import ClockEvent
from rapport.common.events.crises import CrisisLinkRequested
from rapport.common.events.envelope import CATALOGUE, Event, EventData
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationEvent,
    NotificationFailed,
    NotificationSuppressed,
)
from rapport.common.events.vocabulary import OwnReason
from rapport.common.handling import Declared, due, fact, on
from rapport.routing.domain.assessment import Assessor
from rapport.routing.domain.case import SELF, Case
from rapport.routing.domain.clocks import Clock
from rapport.routing.domain.conversation import assessable, because_of, reach_of, subject_of
from rapport.routing.domain.crisis import Crisis
from rapport.routing.domain.history import CaseHistory
from rapport.routing.domain.policies import Policies
from rapport.routing.domain.record import Outcome, State
from rapport.routing.domain.rules import Assignment, assign
from rapport.routing.domain.teams import Loads, Teams
from rapport.routing.repository import Resources, active_crises

OF_A_CASE: Final = tuple(
    data for data in CATALOGUE.values() if issubclass(data, CaseEvent | ClockEvent)
)
"""Every event that may be part of a case's history."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a batch of messages is decided by."""

    assessor: Assessor
    policies: Policies
    loads: Loads
    crises: Sequence[Crisis]


async def everything(_: Sequence[Event[FeedbackReceived]], resources: Resources) -> Given:
    """Read who is how busy and which crises are on."""
    return Given(
        resources.assessor,
        resources.policies,
        await resources.workloads.current(),
        await active_crises(resources.store),
    )


async def crises_on(
    _: Sequence[Event[CrisisLinkRequested]], resources: Resources
) -> frozenset[str]:
    """Read which crises are on."""
    return frozenset(crisis.id for crisis in await active_crises(resources.store))


async def teams(_: Sequence[Case], resources: Resources) -> Teams:
    """Name the teams."""
    return resources.policies.teams


@on(FeedbackReceived, changes=Case, key=lambda event: event.data.case_id, prepare=everything)
def hear(case: Case | None, event: Event[FeedbackReceived], given: Given) -> Case | None:
    """A conversation's first message begins its case, a later one joins it.

    A message that came before may only tell that it has travelled further. An imported one is
    counted and asks nothing of anybody.
    """
    feedback = event.data
    if case is not None and case.conversation.has_heard(feedback.feedback_id):
        return case if case.raise_reach(reach_of(feedback.reach)) else None
    assessment = given.assessor.assess(assessable(feedback))
    about = subject_of(feedback, assessment)
    if case is None:
        case = Case.begin(feedback.case_id, feedback, about, event.time)
    case.hear(feedback, about, because_of(assessment))
    if event.historical:
        if case.owner is None:
            case.put_on_record(feedback.feedback_id)
        return case
    _act_on(case, about, event, given)
    _link(case, event, given)
    return case


def _act_on(case: Case, about: Subject, event: Event[FeedbackReceived], given: Given) -> None:
    """Open the case, or reopen it, if the message asks for that."""
    asks = given.policies.rules.need_action(about)
    if case.state is State.NOTED and asks:
        case.open(_assign(case, given), _clock(case, event, given), event.time)
        return
    case.put_on_record(event.data.feedback_id)
    if asks and not case.in_work:
        case.reopen(SELF, OwnReason.FURTHER_MESSAGE)
        case.await_reply(_clock(case, event, given))


def _assign(case: Case, given: Given) -> Assignment:
    policies = given.policies
    assignment = assign(case.about, policies.rules, policies.teams, given.loads)
    given.loads[assignment.owner] += 1
    return assignment


def _clock(case: Case, event: Event[FeedbackReceived], given: Given) -> Clock:
    return given.policies.timing.start(
        "first_response",
        case.about,
        event.time,
        of="case",
        aggregate_id=case.id,
        channel=case.about.channel,
    )


def _link(case: Case, event: Event[FeedbackReceived], given: Given) -> None:
    """Join the first crisis of the same drill, or of none, whose criteria match.

    The one that it belongs to already hears where its person can be reached by now.
    """
    active = [crisis.id for crisis in given.crises]
    if case.crisis_id in active:
        case.tell_contact()
        return
    for crisis in given.crises:
        same = crisis.exercise == event.exercise
        matches = same and crisis.criteria.match(case.about, case.occurred_at)
        if matches and case.link(crisis.id, active):
            return


@on(CrisisLinkRequested, changes=Case, key=lambda event: event.data.case_id, prepare=crises_on)
def join(
    case: Case | None, event: Event[CrisisLinkRequested], active: frozenset[str]
) -> Case | None:
    """A stored case that matches a crisis joins it, as long as that is on."""
    crisis = event.data.crisis_id
    if case is None or crisis not in active:
        return None
    return case if case.link(crisis, active) else None


def _replied_case(event: Event[NotificationEvent]) -> str | None:
    return event.data.case_id if event.data.purpose == "reply" else None


@on(NotificationDelivered, changes=Case, key=_replied_case)
def reply_delivered(case: Case | None, event: Event[NotificationDelivered]) -> Case | None:
    """A reply that reached the person meets the clock."""
    return _settled(case, event.data, "delivered", event.data.delivered_at)


@on(NotificationFailed, changes=Case, key=_replied_case)
def reply_failed(case: Case | None, event: Event[NotificationFailed]) -> Case | None:
    """A reply that was given up leaves the clock running."""
    return _settled(case, event.data, "failed", event.time)


@on(NotificationSuppressed, changes=Case, key=_replied_case)
def reply_suppressed(case: Case | None, event: Event[NotificationSuppressed]) -> Case | None:
    """A reply that was held back on purpose leaves the clock running, except in a drill."""
    return _settled(case, event.data, "suppressed", event.time)


def _settled(
    case: Case | None, told: NotificationEvent, outcome: Outcome, at: datetime
) -> Case | None:
    if case is None or told.reply_id is None:
        return None
    return case if case.settle_reply(told.reply_id, outcome, at) else None


@due(Case, prepare=teams)
def keep_time(case: Case, item: Due, given: Teams) -> Case:
    """What falls due is done; an overdue clock brings in the team's lead, then the duty manager."""
    case.fall_due(item, given.ladder(case.team))
    return case


@fact(*OF_A_CASE)
def remember(event: Event[EventData]) -> Iterable[Fact]:
    """What happened to a case is its history."""
    if not isinstance(event.data, ClockEvent) or event.data.of == "case":
        yield CaseHistory.of(event)


DECLARED: Final[list[Declared]] = [
    hear,
    join,
    reply_delivered,
    reply_failed,
    reply_suppressed,
    keep_time,
    remember,
]
