"""The communication log: every contact with somebody is on record (S17)."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, ClassVar, Final, Literal

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.interactions import InteractionRecorded
from rapport.common.events.topics import INTERACTIONS

LISTED: Final = 200
LISTED_BYTES: Final = 64 * 1024
"""So many of the things that happened a digest lists, and so much their titles take up in all.

A page of a hundred copies of a digest is one save, and each copy one event.
"""


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
    """Something that can be subscribed to has happened; digests are made from these.

    `at` is when it counts for digests. It `happened_at` then or before; None: then.
    """

    COLLECTION = "occurrences"
    FIELDS: ClassVar = ("event", "at")
    INDEXES: ClassVar = (("event", "at"),)
    ORDER = "at"

    at: Instant
    happened_at: Instant | None = None
    event: str
    title: str
    term: str | None = None
    about: dict[str, str | int | float | bool | None]


def listed(happened: Sequence[Occurrence]) -> Sequence[Occurrence]:
    """Return the first of these that a digest has room to list; the others it counts."""
    sizes = accumulate(len(item.title.encode()) for item in happened[:LISTED])
    return happened[: sum(size <= LISTED_BYTES for size in sizes)]
