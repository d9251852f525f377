"""What a sender may know: where their message stands, as far as the events have told.

Two projections, each of which only goes forward. A feedback's follows its own way until it has
reached its case; from there on the case's goes on for all of the conversation's messages.
"""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Self

from rapport.common.aggregate import Aggregate
from rapport.common.events.envelope import Instant
from rapport.intake.domain.identity import reference_of


class State(StrEnum):
    """Where a message stands."""

    PENDING = "pending"
    """It is accepted for good, and nothing more is known yet."""
    RECEIVED = "received"
    """It waits to be assessed."""
    FAILED = "failed"
    """It could not be handled; an operator can have it tried again."""
    ROUTED = "routed"
    """It was assessed and belongs to a case."""
    RESOLVED = "resolved"
    """Its case has a solution."""
    CLOSED = "closed"
    """Nothing remains to be done in its case."""
    REOPENED = "reopened"
    """Its case was resolved or closed and is in work again."""


_RANK: Final = {
    state: rank
    for rank, state in enumerate((State.PENDING, State.RECEIVED, State.FAILED, State.ROUTED))
}


class FeedbackStatus(Aggregate):
    """How far one message has come; `client` is unknown until its own event has been read."""

    COLLECTION: ClassVar[str] = "feedback_status"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("reference",),)

    state: State = State.PENDING
    case_id: str | None = None
    client: str | None = None
    received_at: Instant | None = None
    changed_at: Instant

    @property
    def reference(self) -> str:
        """The id as people read it to each other."""
        return reference_of(self.id)

    def advance(self, state: State, at: datetime, case_id: str | None) -> Self | None:
        """Go on to `state`; None (nothing done) where the message is as far or further."""
        if _RANK[state] <= _RANK[self.state]:
            return None
        self.state = state
        self.changed_at = at
        self.case_id = case_id or self.case_id
        return self


class CaseStatus(Aggregate):
    """What became of a case that once was resolved; `as_of` is the sequence of its last event."""

    COLLECTION: ClassVar[str] = "case_status"

    state: State
    as_of: str
    changed_at: Instant
