"""What routing reads, by name, and what its handlers and its API work with."""

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rapport.common.aggregate import OUTBOX_LIMIT
from rapport.common.clock import Clock
from rapport.common.engine import Engine
from rapport.common.store.port import Range, Store
from rapport.routing.domain.assessment import Assessor
from rapport.routing.domain.case import Case
from rapport.routing.domain.crisis import ACTIVE, Crisis, CrisisState
from rapport.routing.domain.policies import Policies
from rapport.routing.domain.teams import Loads

MOST_CRISES: Final = 200
LINK_PAGE: Final = OUTBOX_LIMIT - 1
"""Cases of a page: each is a message, and the last page has one more."""


async def active_crises(store: Store) -> Sequence[Crisis]:
    """Return the crises that cases link themselves to, at most 200."""
    return (await store.find(Crisis, {"state": ACTIVE}, limit=MOST_CRISES)).items


async def crises_on_the_table(store: Store) -> Sequence[Crisis]:
    """Return the crises that are on, and the 200 that were proposed last."""
    proposed = await store.find(
        Crisis, {"state": CrisisState.PROPOSED}, limit=MOST_CRISES, newest_first=True
    )
    return [*await active_crises(store), *proposed.items]


@dataclass(frozen=True, slots=True)
class MatchingCases:
    """Ids of cases that a crisis shall ask to link themselves, and the cursor of the next page."""

    cases: Sequence[str]
    next: str | None


async def matching_cases(store: Store, crisis: Crisis, active: Container[str]) -> MatchingCases:
    """Return those of the next candidates that match a crisis and belong to no `active` one.

    Candidates share the first thing that the criteria name and are listed after the matter began:
    no case is listed before it occurred, which is what the criteria go by.
    """
    criteria = crisis.criteria
    fields = ("product", "brand", "region", "complaint_type")
    named = next(field for field in fields if getattr(criteria, field) is not None)
    where = {named: getattr(criteria, named), "listed_at": Range(start=criteria.since)}
    page = await store.find(Case, where, limit=LINK_PAGE, cursor=crisis.link_cursor)
    matching = [
        case.id
        for case in page.items
        if case.may_join(crisis.id, active)
        and case.exercise == crisis.exercise
        and criteria.match(case.about, case.occurred_at)
    ]
    return MatchingCases(matching, page.next)


async def count_loads(store: Store) -> Loads:
    """Count the cases in work that each person owns."""
    tallies = await store.tally(Case, ["owner"], {"in_work": True})
    return Loads({str(tally.group[0]): tally.count for tally in tallies})


class Workloads:
    """The loads of everybody, counted anew when they are older than `fresh`.

    In between whoever assigns a case adds it, so that many at once are spread evenly. Whoever asks
    while they are counted waits for that count.
    """

    def __init__(self, store: Store, clock: Clock, fresh: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._fresh = fresh
        self._counted_at: datetime | None = None
        self._loads = Loads()
        self._counting = asyncio.Lock()

    async def current(self) -> Loads:
        """Return the loads; what is added to them stays until they are counted again."""
        async with self._counting:
            now = self._clock.now()
            age = None if self._counted_at is None else now - self._counted_at
            if age is None or not timedelta() <= age < self._fresh:
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
