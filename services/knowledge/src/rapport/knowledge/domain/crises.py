"""The crises that statements are about: whether they are drills, and since when they are on.

A statement for a drill's crisis belongs to the drill, so nothing of it leaves (A15). For a crisis
that is not known there is none: it would reach nobody, or leave a drill.
"""

from typing import ClassVar

from rapport.common.aggregate import Aggregate
from rapport.common.events.envelope import Instant


class KnownCrisis(Aggregate):
    """A crisis that was proposed, in its `exercise` if it is a drill's, and maybe declared."""

    COLLECTION: ClassVar[str] = "known_crises"

    declared_at: Instant | None = None
