"""The communication log: every contact with somebody is on record (S17)."""

from typing import Annotated, ClassVar, Literal

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.interactions import InteractionRecorded
from rapport.common.events.topics import INTERACTIONS


class Interaction(Aggregate):
    """One contact: with whom, which way, why, how, when, with what outcome."""

    COLLECTION = "interactions"
    TOPIC = INTERACTIONS
    INDEXES: ClassVar = (("stakeholder", "occurred_at"), ("case_id", "occurred_at"))
    ORDER = "occurred_at"

    stakeholder: str
    direction: Literal["in", "out"]
    channel: str
    purpose: str
    occurred_at: Instant
    outcome: str
    follow_up: str | None = None
    by: str | None = None
    notification_id: str | None = None
    case_id: str | None = None
    summary: Annotated[str, Personal(of="stakeholder")] = ""

    def recorded(self) -> "Interaction":
        """Say that this contact is on record."""
        told = {
            name: getattr(self, name)
            for name in InteractionRecorded.model_fields
            if name != "interaction_id"
        }
        self.emit(InteractionRecorded(interaction_id=self.id, **told))
        return self


class Occurrence(Fact):
    """Something that can be subscribed to has happened; digests are made from these."""

    COLLECTION = "occurrences"
    FIELDS: ClassVar = ("event", "at")
    INDEXES: ClassVar = (("event", "at"),)
    ORDER = "at"

    at: Instant
    event: str
    title: str
    about: dict[str, str | int | float | bool | None]
