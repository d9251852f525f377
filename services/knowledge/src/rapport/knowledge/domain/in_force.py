"""Which statement speaks for a crisis and a purpose: of all that were released, the latest.

Releases may be heard of in any order, at the same time, or twice; the outcome is the same. Nobody
releases before what is in force, whatever their clock says: everybody tells the latest by its time.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import ClassVar, Final, Self

from pydantic import BaseModel, Field

from rapport.common.aggregate import Aggregate
from rapport.common.events.envelope import Instant
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import StatementReleased, StatementSuperseded
from rapport.common.events.topics import KNOWLEDGE, Topic
from rapport.knowledge.domain.statements import Statement

EARLIER_KEPT: Final = 100
TICK: Final = timedelta(microseconds=1)


class Released(BaseModel):
    """A statement that was released, and when."""

    statement_id: str
    hash: str
    at: Instant


class InForce(Aggregate):
    """The latest statement for one purpose of one crisis, and the ids of the earlier ones."""

    COLLECTION: ClassVar[str] = "in_force"
    TOPIC: ClassVar[Topic | None] = KNOWLEDGE

    latest: Released
    earlier: list[str] = Field(default_factory=list)

    @staticmethod
    def key(released: StatementReleased) -> str | None:
        """Return the id of what decides; None for a statement of no crisis, which stands alone."""
        if released.crisis_id is None:
            return None
        return derived_id("in force", released.crisis_id, released.purpose)

    @classmethod
    def begin(cls, released: StatementReleased, at: datetime) -> Self:
        """Return it with the first statement that is heard of."""
        return cls(id=cls.key(released), latest=_released(released, at))

    def hear(self, released: StatementReleased, at: datetime) -> Self | None:
        """Decide between the latest and another one; the earlier of the two is superseded.

        None where the other one is known.
        """
        if released.statement_id in (self.latest.statement_id, *self.earlier):
            return None
        rivals = (self.latest, _released(released, at))
        earlier, self.latest = sorted(rivals, key=lambda rival: (rival.at, rival.statement_id))
        self.earlier = [*self.earlier[1 - EARLIER_KEPT :], earlier.statement_id]
        self.emit(
            StatementSuperseded(
                statement_id=earlier.statement_id,
                hash=earlier.hash,
                purpose=released.purpose,
                crisis_id=released.crisis_id,
                superseded_by=self.latest.statement_id,
            ),
            key=earlier.statement_id,
        )
        return self


def time_of_release(
    now: datetime, in_force: Iterable[Statement], declared_at: datetime | None
) -> datetime:
    """Return when a statement is released that takes the place of those in force: after them.

    It is not before the declaration that it answers either, whatever the clock says.
    """
    after = (item.released_at + TICK for item in in_force if item.released_at is not None)
    return max((now, *after) if declared_at is None else (now, declared_at, *after))


def _released(released: StatementReleased, at: datetime) -> Released:
    return Released(statement_id=released.statement_id, hash=released.hash, at=at)
