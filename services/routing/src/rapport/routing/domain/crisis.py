"""The crisis: which cases belong to it, and whether they still do so by themselves."""

from enum import StrEnum
from typing import ClassVar, Final

from rapport.common.aggregate import Aggregate
from rapport.common.events.crises import Criteria
from rapport.common.events.topics import CRISES, Topic


class CrisisState(StrEnum):
    """Where a crisis is in its life."""

    PROPOSED = "proposed"
    """A signal, or somebody, says that this may be a crisis."""
    DECLARED = "declared"
    """It is one; cases that match its criteria link themselves."""
    STANDING_DOWN = "standing_down"
    """Its end was asked for; cases still link themselves, so that nobody is left out."""
    STOOD_DOWN = "stood_down"
    """It is over."""
    DISMISSED = "dismissed"
    """Somebody decided that it is none."""


ACTIVE: Final = (CrisisState.DECLARED, CrisisState.STANDING_DOWN)


class Crisis(Aggregate):
    """One crisis; membership lives in its cases."""

    COLLECTION: ClassVar[str] = "crises"
    TOPIC: ClassVar[Topic | None] = CRISES
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("state",),)

    state: CrisisState
    criteria: Criteria
