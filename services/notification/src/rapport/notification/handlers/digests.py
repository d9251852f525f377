"""Digests: what somebody reads later is remembered, collected and sent once a period."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rapport.common.aggregate import Due, Fact
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.ids import derived_id
from rapport.common.events.vocabulary import Language
from rapport.common.handling import Declared, due, fact
from rapport.notification.channels.rendering import Digest, Renderer
from rapport.notification.domain.communications import Communication, page_of
from rapport.notification.domain.log import Occurrence
from rapport.notification.domain.matters import MATTERS, matter_of
from rapport.notification.domain.stakeholders import Subscription, digested_at
from rapport.notification.handlers.alerts import LANGUAGES, in_languages, told_by, told_of
from rapport.notification.repository import Collected, Directory, collected
from rapport.notification.resources import Resources


async def time_now(_: Sequence[Event[EventData]], notification: Resources) -> datetime:
    """Give the time at which things are remembered."""
    return notification.engine.clock.now()


@fact(*MATTERS, prepare=time_now)
def remember(event: Event[EventData], now: datetime) -> Iterable[Fact]:
    """Keep what happened for the digests, but nothing of the past or of a drill."""
    matter = matter_of(event)
    if matter is not None and not event.historical and event.exercise is None:
        yield Occurrence(
            id=event.id,
            at=digested_at(event.time, now),
            happened_at=event.time,
            event=matter.event,
            title=matter.title,
            term=matter.term,
            about=dict(matter.about),
        )


@dataclass(frozen=True, slots=True)
class Given:
    """What due digests are given: the time, what happened in their periods, readers and words."""

    now: datetime
    collected: Mapping[str, Collected]
    directory: Directory
    renderer: Renderer


async def since_last_digest(ready: Sequence[Subscription], notification: Resources) -> Given:
    """Give due digests what happened in their periods, their readers and their words."""
    return Given(
        notification.engine.clock.now(),
        {item.id: await collected(notification.store, item) for item in ready},
        await notification.directory.current(),
        notification.renderer,
    )


@due(Subscription, prepare=since_last_digest)
def send_digest(subscription: Subscription, item: Due, given: Given) -> Subscription:
    """Send what was collected, if anything was, page by page; then begin the next period."""
    if subscription.put_off(given.now):
        return subscription
    happened = given.collected[subscription.id]
    next_page = None
    if happened.total:
        digest = _digest(subscription, happened, given.renderer)
        groups, named = told_by([subscription], owner=None)
        readers = told_of(given.directory.stakeholders, groups, named)
        targets, next_page = page_of(readers, subscription.digest_cursor)
        for wish in digest.wishes(targets):
            subscription.emit(wish, key=wish.notification_id)
    subscription.turn_page(next_page)
    return subscription


def _digest(subscription: Subscription, happened: Collected, renderer: Renderer) -> Communication:
    start, end = subscription.digest_from, subscription.digest_due
    assert start is not None
    assert end is not None

    def context(language: Language) -> Digest:
        return Digest(
            start=start,
            end=end,
            total=happened.total,
            by_kind={},
            lines=(),
            items=[
                {
                    "event": item.event,
                    "about": renderer.named(item.term, item.title, language),
                    "at": item.happened_at or item.at,
                }
                for item in happened.listed
            ],
            suppressed=happened.total - len(happened.listed),
            url=None,
        )

    return Communication(
        id=derived_id("digest", subscription.id, end.isoformat()),
        purpose="digest",
        wordings=in_languages(LANGUAGES, renderer, "digest", context),
        planned_at=end,
    )


DECLARED: Final[list[Declared]] = [remember, send_digest]
