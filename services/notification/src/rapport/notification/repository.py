"""What notification reads, by name."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from rapport.common.clock import Clock
from rapport.common.events.crises import Coverage
from rapport.common.store.port import Range, Store
from rapport.notification.domain.audience import COVERAGE_FIELDS, Audience, Linked, coverage_of
from rapport.notification.domain.log import Occurrence
from rapport.notification.domain.stakeholders import Preference, Stakeholder, Subscription

A = TypeVar("A", Stakeholder, Subscription)

PAGE: Final = 200
FRESH: Final = timedelta(seconds=5)
DIGEST_ITEMS: Final = 1000


async def linked_page(
    store: Store, crisis_id: str, cursor: str | None, limit: int
) -> tuple[Sequence[Linked], str | None]:
    """Return a page of the persons linked to a crisis, and the next cursor."""
    page = await store.find(Linked, {"crisis_id": crisis_id}, limit=limit, cursor=cursor)
    return page.items, page.next


async def coverage(store: Store, crisis_id: str) -> Coverage:
    """Count how far a crisis's statements have reached those linked to it."""
    tallies = await store.tally(Linked, COVERAGE_FIELDS, {"crisis_id": crisis_id, "linked": True})
    return coverage_of((tally.group, tally.count) for tally in tallies)


async def occurrences(store: Store, start: datetime, end: datetime) -> Sequence[Occurrence]:
    """Return what happened in a period and can be subscribed to, at most the first 1,000."""
    page = await store.find(Occurrence, {"at": Range(start, end)}, limit=DIGEST_ITEMS)
    return page.items


async def audiences(store: Store, crises: Sequence[str]) -> Mapping[str, Audience]:
    """Return the audiences of some crises."""
    return await store.get_many(Audience, sorted(set(crises)))


async def preferences(store: Store, recipients: Sequence[str]) -> Mapping[str, Preference]:
    """Return what some recipients do not want."""
    return await store.get_many(Preference, sorted(set(recipients)))


class Directory:
    """Who subscribes and who there is, kept for five seconds or until something changes here."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._read_at: datetime | None = None
        self.subscriptions: Sequence[Subscription] = ()
        self.stakeholders: Mapping[str, Stakeholder] = {}

    def forget(self) -> None:
        """Read anew at the next use."""
        self._read_at = None

    async def current(self) -> "Directory":
        """Return this directory, fresh enough."""
        now = self._clock.now()
        if self._read_at is None or now - self._read_at > FRESH:
            self.subscriptions = await self._all(Subscription)
            self.stakeholders = {item.id: item for item in await self._all(Stakeholder)}
            self._read_at = now
        return self

    async def _all(self, kind: type[A]) -> list[A]:
        found: list[A] = []
        cursor = None
        while True:
            page = await self._store.find(kind, {"active": True}, limit=PAGE, cursor=cursor)
            found += page.items
            cursor = page.next
            if cursor is None:
                return found
