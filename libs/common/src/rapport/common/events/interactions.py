"""Topic rapport.interactions: the communication log and the people in it."""

from typing import Annotated, Literal

from rapport.common.events.envelope import EventData, Instant, Personal, event
from rapport.common.events.topics import INTERACTIONS


@event("rapport.interaction.recorded.v1", INTERACTIONS, key="stakeholder")
class InteractionRecorded(EventData):
    """A contact with somebody is on record: who, why, how, when, with what outcome (S17)."""

    interaction_id: str
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


@event("rapport.stakeholder.changed.v1", INTERACTIONS, key="stakeholder")
class StakeholderChanged(EventData):
    """A stakeholder's record is new or has changed."""

    stakeholder: str
    groups: tuple[str, ...]
    active: bool
    name: Annotated[str, Personal(of="stakeholder")] = ""


@event("rapport.stakeholder.preference_changed.v1", INTERACTIONS, key="stakeholder")
class StakeholderPreferenceChanged(EventData):
    """Somebody opted out of a purpose, or in again."""

    stakeholder: str
    purpose: str
    opted_out: bool
