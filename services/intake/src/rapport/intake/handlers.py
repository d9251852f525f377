"""Intake's handlers: what the events tell about each message, for those who sent it; and what other
systems publish, which is taken in like what they send over HTTP.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from rapport.common.bus.port import MESSAGE_LIMIT
from rapport.common.errors import Invalid, TooLarge
from rapport.common.events.cases import (
    CaseClosed,
    CaseEvent,
    CaseReopened,
    CaseResolved,
    FeedbackClassified,
)
from rapport.common.events.codec import Message, Record, traceparent
from rapport.common.events.dead_letters import EventDeadLettered
from rapport.common.events.envelope import Event
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.topics import INBOUND
from rapport.common.handling import Declared, foreign, on
from rapport.intake.domain import MAX_AHEAD, read_record, what_is_wrong
from rapport.intake.domain.status import CaseStatus, FeedbackStatus, State
from rapport.intake.resources import Desk, Lot

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


@foreign(INBOUND)
def inbound(record: Record, desk: Desk) -> Iterator[Message]:
    """Another system's CloudEvent brings feedback, as one that it sends over HTTP does.

    Nobody's token names the client, so that is the event's source: whoever may write to the topic
    is trusted with the names that it gives. Over HTTP ids and conversations are the client's, so
    that nobody writes into another's: an event that comes both ways is two messages. It came in
    when the bus got it, however long it has waited there.

    Of several items the good ones go through; the first bad one is what the dead letter names.
    """
    try:
        if record.value is not None and len(record.value) > MESSAGE_LIMIT:
            raise TooLarge(f"the record is over {MESSAGE_LIMIT:,} bytes")
        event = read_record(record.headers, record.value)
        at = _arrival(record, desk.clock.now())
        lot = desk.lot(desk.brought(event, None, at), at, traceparent(record.headers))
    except Invalid as refusal:
        raise type(refusal)(what_is_wrong(refusal)) from None
    yield from lot.messages
    _refuse_bad(lot)


def _arrival(record: Record, now: datetime) -> datetime:
    """Return when the bus got a record; now, if it tells no time that the topic still holds."""
    stamp = record.timestamp / 1000
    if stamp > (now + MAX_AHEAD).timestamp():
        raise Invalid("the record's timestamp is more than a day in the future")
    if stamp < (now - INBOUND.retention).timestamp():
        return now
    return min(datetime.fromtimestamp(stamp, UTC), now)


def _refuse_bad(lot: Lot) -> None:
    for item in lot.items:
        if isinstance(item.content, Invalid):
            place = f"item {item.place['index']}: " if len(lot.items) > 1 else ""
            raise type(item.content)(place + what_is_wrong(item.content))


DECLARED: Final[list[Declared]] = [
    inbound,
    received,
    routed,
    failed,
    *(
        on(kind, changes=CaseStatus, key=lambda event: event.data.case_id)(follow)
        for kind in CASE_STATES
    ),
]
