"""Statements: byte for byte to the groups they name and to everyone linked to their crisis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rapport.common.aggregate import Due
from rapport.common.errors import PermanentError
from rapport.common.events.envelope import Event
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import StatementReleased
from rapport.common.handling import Declared, due, on
from rapport.notification import repository
from rapport.notification.domain.audience import Audience
from rapport.notification.domain.communications import (
    PAGE,
    Communication,
    Target,
    members,
    page_of,
)
from rapport.notification.resources import Resources


def statement_id(event: Event[StatementReleased]) -> str:
    """Return the id of the communication that carries a released statement."""
    return derived_id("statement", event.id)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What released statements are given: the audiences of their crises, and the time."""

    audiences: Mapping[str, Audience]
    now: datetime


async def its_audience(
    events: Sequence[Event[StatementReleased]], notification: Resources
) -> Beginning:
    """Read the audiences of released statements' crises, and tell the time."""
    crises = [item.data.crisis_id for item in events if item.data.crisis_id]
    audiences = await repository.audiences(notification.store, crises)
    return Beginning(audiences, notification.engine.clock.now())


@on(StatementReleased, changes=Communication, key=statement_id, prepare=its_audience)
def release(
    communication: Communication | None,
    event: Event[StatementReleased],
    given: Beginning,
) -> Communication | None:
    """Send a released statement to its groups and to everyone linked to its crisis.

    That begins at once, also where the clock that it was released by has been put back since.
    Raises PermanentError where one of the two is a drill and the other is not.
    """
    if communication is not None or event.historical:
        return None
    audience = given.audiences.get(event.data.crisis_id or "")
    if audience is not None and audience.exercise != event.exercise:
        raise PermanentError("a statement and its crisis are not of the same drill")
    made = Communication.of_statement(statement_id(event), event.data, event.time)
    made.step_at = min(event.time, given.now)
    return made


@on(StatementReleased, changes=Audience, key=lambda event: event.data.crisis_id)
def say_to_whoever_joins(
    audience: Audience | None, event: Event[StatementReleased]
) -> Audience | None:
    """Keep what was said in a crisis for those who are linked later."""
    if event.historical:
        return None
    audience = audience or Audience(id=event.data.crisis_id or "")
    return audience if audience.release(statement_id(event), event.data, event.time) else None


@dataclass(frozen=True, slots=True)
class PageOfRecipients:
    """What the next step of a communication is given; `is_last`: nobody joins any more."""

    targets: Sequence[Target]
    next: str | None
    is_last: bool
    now: datetime


async def next_pages(
    ready: Sequence[Communication], notification: Resources
) -> Mapping[str, PageOfRecipients]:
    """Read the next page of recipients for communications that go through many."""
    crises = [item.crisis_id for item in ready if item.crisis_id]
    audiences = await repository.audiences(notification.store, crises)
    return {
        item.id: await _next_page(item, audiences.get(item.crisis_id or ""), notification)
        for item in ready
    }


async def _next_page(
    item: Communication, audience: Audience | None, notification: Resources
) -> PageOfRecipients:
    now = notification.engine.clock.now()
    if item.stage == "groups":
        keep = notification.directory
        directory = await (keep.current() if item.cursor else keep.fresh())
        told = members(directory.stakeholders.values(), item.groups, item.named)
        return PageOfRecipients(*page_of(told, item.cursor), is_last=False, now=now)
    if audience is not None and audience.has_silenced(item):
        return PageOfRecipients((), None, is_last=True, now=now)
    linked, cursor = await repository.linked_page(
        notification.store, item.crisis_id or "", item.exercise, item.cursor, PAGE
    )
    fresh = [one.target for one in linked if not one.was_told(item.id)]
    targets = [target for target in fresh if target is not None]
    return PageOfRecipients(targets, cursor, audience is not None and audience.over, now)


@due(Communication, prepare=next_pages)
def turn_page(
    communication: Communication, item: Due, pages: Mapping[str, PageOfRecipients]
) -> Communication:
    """Ask for one page of notifications and go on."""
    page = pages[communication.id]
    communication.request(page.targets)
    communication.turn_page(page.next, max(page.now, item.at), is_last=page.is_last)
    return communication


DECLARED: Final[list[Declared]] = [release, say_to_whoever_joins, turn_page]
