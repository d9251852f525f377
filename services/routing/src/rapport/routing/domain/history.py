"""The history of a case: every event of it, in order, as it is told on the topic."""

from typing import Any, ClassVar

from rapport.common.aggregate import Fact
from rapport.common.events.envelope import Event, EventData, Instant, without_personal


class CaseHistory(Fact):
    """One event of a case; `data` are the event's without what is personal.

    `sequence` is the case's version and the event's place in it, so it sorts as things happened.
    """

    COLLECTION: ClassVar[str] = "case_history"
    FIELDS: ClassVar[tuple[str, ...]] = ("case_id", "sequence")
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("case_id", "sequence"),)
    ORDER: ClassVar[str] = "sequence"
    LISTED: ClassVar[bool] = False

    case_id: str
    sequence: str
    at: Instant
    type: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event[EventData]) -> "CaseHistory":
        """Return what is remembered of an event that a case emitted."""
        return cls(
            id=event.id,
            case_id=event.subject,
            sequence=event.sequence or "",
            at=event.time,
            type=event.type,
            data=without_personal(event.data),
        )
