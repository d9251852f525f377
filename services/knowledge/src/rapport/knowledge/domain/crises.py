"""The crises that statements are about: only whether they are drills is of concern here.

A statement for a drill's crisis belongs to the drill, so nothing of it leaves (A15). For a crisis
that is not known there is none: it would reach nobody, or leave a drill.
"""

from typing import ClassVar

from rapport.common.aggregate import Aggregate


class KnownCrisis(Aggregate):
    """A crisis that was proposed; its `exercise` is all there is to know."""

    COLLECTION: ClassVar[str] = "known_crises"
