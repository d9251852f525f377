"""Intake's handlers: what the events tell about each message, for those who sent it."""

from typing import Final

from rapport.common.events.cases import (
    CaseClosed,
    CaseEvent,
    CaseReopened,
    CaseResolved,
    FeedbackClassified,
)
from rapport.common.events.dead_letters import EventDeadLettered
from rapport.common.events.envelope import Event
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.handling import Declared, on
from rapport.intake.domain.status import CaseStatus, FeedbackStatus, State

CASE_STATES: Final[dict[type[CaseEvent], State]] = {
    CaseResolved: State.RESOLVED,
    CaseClosed: State.CLOSED,
    CaseReopened: State.REOPENED,
}
"""What a case's events mean for all its messages."""

DECIDING_GROUP: Final = "routing"
"""Whose dead letter means that a message got no case."""


@on(FeedbackReceived, changes=FeedbackStatus, key=lambda event: event.data.feedback_id)
def received(
    status: FeedbackStatus | None, event: Event[FeedbackReceived]
) -> FeedbackStatus | None:
    """A message is in the log; what was heard of it before stays."""
    if status is not None and status.client is not None:
        return None
    status = status or FeedbackStatus(id=event.data.feedback_id, changed_at=event.time)
    status.advance(State.RECEIVED, event.time, event.data.case_id)
    status.client = event.data.client
    status.received_at = event.data.received_at
    status.historical = event.historical
    return status


@on(FeedbackClassified, changes=FeedbackStatus, key=lambda event: event.data.feedback_id)
def routed(
    status: FeedbackStatus | None, event: Event[FeedbackClassified]
) -> FeedbackStatus | None:
    """A message was assessed and has its case."""
    status = status or FeedbackStatus(id=event.data.feedback_id, changed_at=event.time)
    return status.advance(State.ROUTED, event.time, event.data.case_id)


def _message_without_case(event: Event[EventDeadLettered]) -> str | None:
    letter = event.data
    is_ours = letter.event_type == FeedbackReceived.TYPE and letter.group == DECIDING_GROUP
    return letter.subject if is_ours else None


@on(EventDeadLettered, changes=FeedbackStatus, key=_message_without_case)
def failed(status: FeedbackStatus | None, event: Event[EventDeadLettered]) -> FeedbackStatus | None:
    """A message could not be handled; a later success (a redrive) counts for more."""
    status = status or FeedbackStatus(id=event.subject, changed_at=event.time)
    return status.advance(State.FAILED, event.time, event.data.partitionkey)


def follow(status: CaseStatus | None, event: Event[CaseEvent]) -> CaseStatus | None:
    """A case goes on; its own order counts, whichever event comes first."""
    state, as_of = CASE_STATES[type(event.data)], event.sequence or ""
    if status is None:
        return CaseStatus(id=event.data.case_id, state=state, as_of=as_of, changed_at=event.time)
    if as_of <= status.as_of:
        return None
    status.state, status.as_of, status.changed_at = state, as_of, event.time
    return status


DECLARED: Final[list[Declared]] = [
    received,
    routed,
    failed,
    *(
        on(kind, changes=CaseStatus, key=lambda event: event.data.case_id)(follow)
        for kind in CASE_STATES
    ),
]
