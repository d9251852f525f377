"""Limits: nobody gets more alerts than the policy says; what is held back is counted and told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rapport.common.aggregate import Due
from rapport.common.events.envelope import Event
from rapport.common.events.knowledge import Wording
from rapport.common.events.notifications import (
    NotificationAdmitted,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.handling import Declared, due, on
from rapport.common.policy import Policy
from rapport.notification import repository
from rapport.notification.channels.rendering import HeldBack, Renderer
from rapport.notification.domain.allowances import Allowance, Limit, Limits, allowance_id
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import Preference
from rapport.notification.handlers.delivery import Opening, send, wants_none
from rapport.notification.resources import Resources


@dataclass(frozen=True, slots=True)
class Given:
    """What an allowance is given: the limits, the time at which it decides, who wants nothing."""

    limits: Policy[Limits]
    now: datetime
    preferences: Mapping[str, Preference]


async def limits_now(
    events: Sequence[Event[NotificationRequested]], notification: Resources
) -> Given:
    """Give allowances the limits and the time, since what counts is when a message goes out."""
    recipients = [item.data.recipient for item in events if item.data.limited]
    return Given(
        notification.limits,
        notification.engine.clock.now(),
        await repository.preferences(notification.store, recipients),
    )


def _allowance(event: Event[NotificationRequested]) -> str | None:
    wish = event.data
    if not wish.limited:
        return None
    return allowance_id(wish.recipient, wish.channel, event.exercise)


@on(NotificationRequested, changes=Allowance, key=_allowance, prepare=limits_now)
def ask(
    allowance: Allowance | None, event: Event[NotificationRequested], given: Given
) -> Allowance:
    """Let a message through to its recipient, or hold it back."""
    allowance = allowance or Allowance.of(event.data, event.exercise)
    allowance.ask(
        event.data,
        given.limits.rules.alerts,
        given.now,
        policy=given.limits.hash,
        opted_out=wants_none(given.preferences.get(allowance.recipient), event.data.purpose),
    )
    return allowance


async def opening(
    events: Sequence[Event[NotificationAdmitted]], notification: Resources
) -> Opening:
    """Look how many may go out at once."""
    return Opening.now_for([event.data.notification_id for event in events], notification)


@on(
    NotificationAdmitted,
    changes=Notification,
    key=lambda event: event.data.notification_id,
    prepare=opening,
    then=send,
)
def let_through(
    notification: Notification | None, event: Event[NotificationAdmitted], given: Opening
) -> Notification | None:
    """Send what was admitted."""
    if notification is None or not notification.admit(event.time):
        return None
    given.take(notification)
    return notification


@on(NotificationSuppressed, changes=Notification, key=lambda event: event.data.notification_id)
def hold_back(
    notification: Notification | None, event: Event[NotificationSuppressed]
) -> Notification | None:
    """Do not send what was held back."""
    if notification is None or not notification.hold_back(event.data.reason, event.time):
        return None
    return notification


async def words_now(
    _: Sequence[Allowance], notification: Resources
) -> tuple[Limit, Renderer, datetime]:
    """Give what tells of things held back the limit, the words and the time."""
    return notification.limits.rules.alerts, notification.renderer, notification.engine.clock.now()


@due(Allowance, prepare=words_now)
def tell_held_back(
    allowance: Allowance, item: Due, given: tuple[Limit, Renderer, datetime]
) -> Allowance:
    """Say what was held back, as soon as there is room for it."""
    limit, renderer, present = given
    now = max(present, item.at)
    words = renderer.render(
        "held_back",
        allowance.language,
        HeldBack(
            total=allowance.waiting,
            by_event=allowance.untold,
            start=allowance.untold_since or now,
            end=now,
            most=limit.most,
            minutes=limit.minutes,
        ),
    )
    allowance.tell(limit, Wording(subject=words.subject, text=words.text), now)
    return allowance


DECLARED: Final[list[Declared]] = [ask, let_through, hold_back, tell_held_back]
