"""What routing reads, by name, and what its handlers and its API work with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rapport.common.clock import Clock
from rapport.common.engine import Engine
from rapport.common.store.port import Store
from rapport.routing.domain.assessment import Assessor
from rapport.routing.domain.case import Case
from rapport.routing.domain.crisis import ACTIVE, Crisis
from rapport.routing.domain.policies import Policies
from rapport.routing.domain.teams import Loads

MOST_CRISES = 200


async def active_crises(store: Store) -> Sequence[Crisis]:
    """Return the crises that cases link themselves to, at most 200."""
    return (await store.find(Crisis, {"state": ACTIVE}, limit=MOST_CRISES)).items


async def count_loads(store: Store) -> Loads:
    """Count the cases in work that each person owns."""
    tallies = await store.tally(Case, ["owner"], {"in_work": True})
    return Loads({str(tally.group[0]): tally.count for tally in tallies})


class Workloads:
    """The loads of everybody, counted anew when they are older than `fresh`.

    In between whoever assigns a case adds it, so that many at once are spread evenly.
    """

    def __init__(self, store: Store, clock: Clock, fresh: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._fresh = fresh
        self._counted_at: datetime | None = None
        self._loads = Loads()

    async def current(self) -> Loads:
        """Return the loads; what is added to them stays until they are counted again."""
        now = self._clock.now()
        if self._counted_at is None or now - self._counted_at >= self._fresh:
            self._loads = await count_loads(self._store)
            self._counted_at = now
        return self._loads


@dataclass(frozen=True, slots=True)
class Resources:
    """See the module's docstring."""

    store: Store
    engine: Engine
    assessor: Assessor
    policies: Policies
    workloads: Workloads
