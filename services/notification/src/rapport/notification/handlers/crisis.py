"""The people of a crisis: who joins and leaves, how far statements reach them, who is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rapport.common.aggregate import Due
from rapport.common.errors import PermanentError
from rapport.common.events.cases import CaseCrisisLinked, CaseCrisisUnlinked
from rapport.common.events.crises import (
    Coverage,
    CrisisDeclared,
    CrisisDismissed,
    CrisisStandDownRequested,
    CrisisStoodDown,
)
from rapport.common.events.envelope import Event
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationEvent,
    NotificationFailed,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.handling import Declared, due, on
from rapport.notification import repository
from rapport.notification.channels import Reason
from rapport.notification.domain.audience import Audience, Linked, Progress, linked_id
from rapport.notification.domain.notifications import OPTED_OUT, Notification
from rapport.notification.domain.stakeholders import Preference
from rapport.notification.resources import Resources

# Who belongs to it


@dataclass(frozen=True, slots=True)
class Crisis:
    """What a link to a crisis is given."""

    audiences: Mapping[str, Audience]
    preferences: Mapping[str, Preference]


async def what_was_said(
    events: Sequence[Event[CaseCrisisLinked]], notification: Resources
) -> Crisis:
    """Give links what was said in their crises, and who wants to hear nothing."""
    return Crisis(
        await repository.audiences(notification.store, [item.data.crisis_id for item in events]),
        await repository.preferences(
            notification.store, [_recipient_of(item.data) for item in events]
        ),
    )


def _recipient_of(data: CaseCrisisLinked) -> str:
    return data.contact.person or data.case_id


@on(
    CaseCrisisLinked,
    changes=Linked,
    key=lambda event: linked_id(event.data.crisis_id, _recipient_of(event.data)),
    prepare=what_was_said,
)
def link(linked: Linked | None, event: Event[CaseCrisisLinked], crisis: Crisis) -> Linked | None:
    """Somebody belongs to a crisis: they get what has been said, and what will be.

    Raises PermanentError where one of the two is a drill and the other is not.
    """
    if event.historical:
        return None
    audience = crisis.audiences.get(event.data.crisis_id)
    if audience is not None and audience.exercise != event.exercise:
        raise PermanentError("a case and its crisis are not of the same drill")
    recipient = _recipient_of(event.data)
    linked = linked or Linked.first(event.data, recipient)
    preference = crisis.preferences.get(recipient)
    declined = preference is not None and "statement" in preference.opted_out
    in_force = audience.in_force if audience is not None else ()
    return linked if linked.link(event.data, in_force, declined=declined) else None


@on(
    CaseCrisisUnlinked,
    changes=Linked,
    key=lambda event: linked_id(event.data.crisis_id, event.data.person or event.data.case_id),
)
def unlink(linked: Linked | None, event: Event[CaseCrisisUnlinked]) -> Linked | None:
    """A case was linked by mistake: its person hears no more of the crisis."""
    return linked if linked is not None and linked.unlink(event.data.case_id) else None


# Its beginning and its end


@on(CrisisDeclared, changes=Audience, key=lambda event: event.data.crisis_id)
def gather(audience: Audience | None, event: Event[CrisisDeclared]) -> Audience | None:
    """A declared crisis has an audience."""
    return Audience(id=event.data.crisis_id) if audience is None else None


@on(CrisisStandDownRequested, changes=Audience, key=lambda event: event.data.crisis_id)
def ask_for_review(
    audience: Audience | None, event: Event[CrisisStandDownRequested]
) -> Audience | None:
    """A stand-down waits for the coverage."""
    audience = audience or Audience(id=event.data.crisis_id)
    return audience if audience.ask_for_review(event.data.request_id, event.time) else None


async def coverage(ready: Sequence[Audience], notification: Resources) -> Mapping[str, Coverage]:
    """Count the coverage of the crises that are asked about."""
    return {
        item.id: await repository.coverage(notification.store, item.id, item.exercise)
        for item in ready
    }


@due(Audience, prepare=coverage)
def review(audience: Audience, item: Due, counted: Mapping[str, Coverage]) -> Audience:
    """Answer a stand-down request."""
    audience.review(item.name.removeprefix("review:"), counted[audience.id])
    return audience


@on(CrisisStoodDown, changes=Audience, key=lambda event: event.data.crisis_id)
def disperse(audience: Audience | None, event: Event[CrisisStoodDown]) -> Audience | None:
    """After the stand-down nobody is told anything that is not brought to an end."""
    return _end(audience, event.data.crisis_id)


@on(CrisisDismissed, changes=Audience, key=lambda event: event.data.crisis_id)
def dismiss(audience: Audience | None, event: Event[CrisisDismissed]) -> Audience | None:
    """What is no crisis has nobody to tell, as after a stand-down."""
    return _end(audience, event.data.crisis_id)


def _end(audience: Audience | None, crisis_id: str) -> Audience | None:
    """End a crisis, also one of which nothing was said: a statement may come after its end."""
    audience = audience or Audience(id=crisis_id)
    if audience.over:
        return None
    audience.over = True
    return audience


# How far statements reach them


def _told(event: Event[Any]) -> str | None:
    told: NotificationEvent = event.data
    if told.purpose != "statement" or told.crisis_id is None:
        return None
    return linked_id(told.crisis_id, told.recipient)


async def as_they_stand(
    events: Sequence[Event[NotificationRequested]], notification: Resources
) -> Mapping[str, Notification]:
    """Give requested statements the messages that are there already.

    A message may have ended before its recipient was linked: then nothing more is heard of it.
    """
    return await repository.notifications(
        notification.store,
        [item.data.notification_id for item in events if _told(item) is not None],
    )


@on(NotificationRequested, changes=Linked, key=_told, prepare=as_they_stand)
def note_requested(
    linked: Linked | None,
    event: Event[NotificationRequested],
    standing: Mapping[str, Notification],
) -> Linked | None:
    """A message is on its way to somebody, or has ended before."""
    message = standing.get(event.data.notification_id)
    return _note(linked, event, "queued" if message is None else _progress(message))


def _progress(message: Notification) -> Progress:
    match message.state:
        case "waiting" | "queued" | "leased":
            return "queued"
        case "suppressed":
            return _suppressed(message.reason)
        case ended:
            return ended


def _suppressed(reason: str | None) -> Progress:
    """Tell how far a message counts to have come; what only a drill held back, all the way."""
    if reason == Reason.EXERCISE:
        return "delivered"
    return "opted_out" if reason == OPTED_OUT else "failed"


@on(NotificationDelivered, changes=Linked, key=_told)
def note_delivered(linked: Linked | None, event: Event[NotificationDelivered]) -> Linked | None:
    """A message has reached somebody."""
    return _note(linked, event, "delivered")


@on(NotificationFailed, changes=Linked, key=_told)
def note_failed(linked: Linked | None, event: Event[NotificationFailed]) -> Linked | None:
    """A message was given up."""
    return _note(linked, event, "failed")


@on(NotificationSuppressed, changes=Linked, key=_told)
def note_suppressed(linked: Linked | None, event: Event[NotificationSuppressed]) -> Linked | None:
    """A message was not sent, on purpose."""
    return _note(linked, event, _suppressed(event.data.reason))


def _note(linked: Linked | None, event: Event[Any], progress: Progress) -> Linked | None:
    return linked if linked is not None and linked.note(event.data, progress) else None


DECLARED: Final[list[Declared]] = [
    link,
    unlink,
    gather,
    ask_for_review,
    review,
    disperse,
    dismiss,
    note_requested,
    note_delivered,
    note_failed,
    note_suppressed,
]
