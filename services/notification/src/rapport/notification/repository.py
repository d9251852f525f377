"""What notification reads, by name."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from rapport.common.clock import Clock
from rapport.common.events.crises import Coverage
from rapport.common.store.port import Range, Store, Where
from rapport.notification.domain.audience import COVERAGE_FIELDS, Audience, Linked, coverage_of
from rapport.notification.domain.log import LISTED, Occurrence, listed
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import Preference, Stakeholder, Subscription

A = TypeVar("A", Stakeholder, Subscription)

PAGE: Final = 200
FRESH: Final = timedelta(seconds=5)


def _linked_to(crisis_id: str, exercise: str | None) -> Where:
    """Look for those linked to a crisis now, in its own drill, or none.

    Who was linked before it was known that a crisis is of another drill is not among them.
    """
    return {"crisis_id": crisis_id, "exercise": exercise, "linked": True}


async def linked_page(
    store: Store, crisis_id: str, exercise: str | None, cursor: str | None, limit: int
) -> tuple[Sequence[Linked], str | None]:
    """Return a page of the persons who are linked to a crisis now, and the next cursor."""
    where = _linked_to(crisis_id, exercise)
    page = await store.find(Linked, where, limit=limit, cursor=cursor)
    return page.items, page.next


async def coverage(store: Store, crisis_id: str, exercise: str | None) -> Coverage:
    """Count how far a crisis's statements have reached those linked to it."""
    tallies = await store.tally(Linked, COVERAGE_FIELDS, _linked_to(crisis_id, exercise))
    return coverage_of((tally.group, tally.count) for tally in tallies)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a digest is made of: the first things that happened, and how many there were."""

    listed: Sequence[Occurrence] = ()
    total: int = 0


async def collected(store: Store, subscription: Subscription) -> Collected:
    """Return what happened in a digest's period and is subscribed to."""
    if subscription.digest_from is None or subscription.digest_due is None:
        return Collected()
    period = Range(subscription.digest_from, subscription.digest_due)
    where = {"event": list(subscription.events), "at": period}
    first: list[Occurrence] = []
    total, cursor = 0, None
    while True:
        page = await store.find(Occurrence, where, limit=PAGE, cursor=cursor)
        wanted = [item for item in page.items if subscription.wants(item.event, item.about)]
        total += len(wanted)
        first += wanted[: LISTED - len(first)]
        cursor = page.next
        if cursor is None:
            return Collected(listed(first), total)


async def audiences(store: Store, crises: Iterable[str]) -> Mapping[str, Audience]:
    """Return the audiences of some crises."""
    return await store.get_many(Audience, sorted(set(crises)))


async def preferences(store: Store, recipients: Iterable[str]) -> Mapping[str, Preference]:
    """Return what some recipients do not want."""
    return await store.get_many(Preference, sorted(set(recipients)))


async def notifications(store: Store, ids: Iterable[str]) -> Mapping[str, Notification]:
    """Return those of some messages that are stored."""
    return await store.get_many(Notification, sorted(set(ids)))


@dataclass(frozen=True, slots=True)
class Directory:
    """Who subscribes and who there is: everybody that is active, as read at one time."""

    subscriptions: Sequence[Subscription] = ()
    stakeholders: Mapping[str, Stakeholder] = field(default_factory=dict)


class Directories:
    """Keeps the directory for five seconds, or until something changes in this process."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reading = asyncio.Lock()
        self._known = Directory()
        self._fresh_until: datetime | None = None
        self._changes = 0

    def forget(self) -> None:
        """Read anew at the next use, also where a reading is under way."""
        self._changes += 1
        self._fresh_until = None

    async def current(self) -> Directory:
        """Return the directory; another process's changes show within five seconds."""
        async with self._reading:
            now, changes = self._clock.now(), self._changes
            if self._fresh_until is None or not now < self._fresh_until <= now + FRESH:
                self._known = Directory(
                    await self._all(Subscription),
                    {item.id: item for item in await self._all(Stakeholder)},
                )
                self._fresh_until = now + FRESH if changes == self._changes else None
            return self._known

    async def fresh(self) -> Directory:
        """Return the directory as it is now, whoever changed it."""
        self.forget()
        return await self.current()

    async def _all(self, kind: type[A]) -> list[A]:
        found: list[A] = []
        cursor = None
        while True:
            page = await self._store.find(kind, {"active": True}, limit=PAGE, cursor=cursor)
            found += page.items
            cursor = page.next
            if cursor is None:
                return found
