"""Topic rapport.communications: everything outgoing, as one communication to many recipients."""

from typing import Literal

from rapport.common.events.crises import Coverage
from rapport.common.events.envelope import EventData, event
from rapport.common.events.topics import COMMUNICATIONS

CommunicationPurpose = Literal["alert", "digest", "reply", "statement", "survey"]


class CommunicationEvent(EventData):
    """What every communication event carries: what it is for, and what it came from."""

    communication_id: str
    purpose: CommunicationPurpose
    crisis_id: str | None = None
    case_id: str | None = None
    statement_id: str | None = None


@event("rapport.communication.planned.v1", COMMUNICATIONS)
class CommunicationPlanned(CommunicationEvent):
    """Something shall be said to these groups, or to everyone linked to a crisis."""

    groups: tuple[str, ...] = ()
    statement_hash: str | None = None


@event("rapport.communication.completed.v1", COMMUNICATIONS)
class CommunicationCompleted(CommunicationEvent):
    """Nobody can join any more; how many were asked to be told."""

    requested: int


@event("rapport.communication.reviewed.v1", COMMUNICATIONS)
class CommunicationReviewed(EventData):
    """How far a crisis's statements have reached, as asked by a stand-down request."""

    crisis_id: str
    request_id: str
    coverage: Coverage
