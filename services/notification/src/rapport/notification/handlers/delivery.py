"""Delivery: a notification is queued, leased, sent, recorded, and put on the log of contacts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from rapport.common import tracing
from rapport.common.aggregate import Due
from rapport.common.engine import Engine
from rapport.common.errors import TemporaryError, pause_after
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.envelope import Event
from rapport.common.events.ids import derived_id
from rapport.common.events.notifications import NotificationDelivered, NotificationRequested
from rapport.common.handling import Declared, due, on
from rapport.common.telemetry import SEND_SECONDS, SENT
from rapport.notification import repository
from rapport.notification.channels import (
    Delivered,
    Outcome,
    Outgoing,
    Reason,
    Refused,
    Retry,
    next_attempt,
)
from rapport.notification.channels.destinations import destination_of
from rapport.notification.domain.log import Interaction
from rapport.notification.domain.notifications import OPTED_OUT, Notification
from rapport.notification.domain.stakeholders import Preference, Stakeholder
from rapport.notification.resources import Resources

LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries to record an outcome."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """The time, the messages that there is room to send at once, and who is too busy."""

    now: datetime
    room_for: frozenset[str]
    busy: frozenset[str]

    @classmethod
    def now_for(cls, ids: Sequence[str], notification: Resources) -> "Opening":
        """Return how it is now for these messages, in the order of their turns."""
        room = notification.engine.room(Notification)
        return cls(
            notification.engine.clock.now(),
            frozenset(ids[:room]),
            notification.destinations.busy,
        )

    def take(self, notification: Notification) -> None:
        """Let a message that is due go out with the save that queues it, where there is room.

        One for a busy receiver, and what there is no room for, waits for the scan.
        """
        notification.hurry(self.now)
        destination = destination_of(notification.channel, notification.address)
        if (
            notification.id in self.room_for
            and destination not in self.busy
            and any(item.at <= self.now for item in notification.due())
        ):
            notification.lease(self.now)


@dataclass(frozen=True, slots=True)
class Asked:
    """What requested notifications are given: what their recipients do not want, and the room."""

    preferences: Mapping[str, Preference]
    opening: Opening


async def asked(events: Sequence[Event[NotificationRequested]], notification: Resources) -> Asked:
    """Read what the recipients of requested notifications do not want, and look for room."""
    recipients = [item.data.recipient for item in events]
    preferences = await repository.preferences(notification.store, recipients)
    ids = [item.data.notification_id for item in events if not item.data.limited]
    return Asked(preferences, Opening.now_for(ids, notification))


async def send(notification: Notification, resources: Resources) -> None:
    """Send a leased message and record what became of it."""
    if not notification.is_leased:
        return
    outgoing = await _outgoing(notification, resources)
    channel, attempt = notification.channel, notification.attempts
    with tracing.calling("notification", f"send {channel}", channel=channel) as call:
        with (
            SEND_SECONDS.labels(channel).time(),
            resources.destinations.sending(destination_of(channel, notification.address)),
        ):
            outcome = await resources.channels.send(channel, outgoing)
        if not isinstance(outcome, Delivered):
            call.error = outcome.reason.value
        now = resources.engine.clock.now()
        SENT.labels(channel, type(outcome).__name__.lower()).inc()
        notification = await _recorded(
            notification,
            lambda current: current and record(current, outcome, attempt, now),
            derived_id("outcome", notification.id, str(attempt)),
            resources.engine,
        )
    if isinstance(outcome, Refused) and outcome.disable and notification.stakeholder:
        await _forget(notification, resources)


@on(
    NotificationRequested,
    changes=Notification,
    key=lambda event: event.data.notification_id,
    prepare=asked,
    then=send,
)
def queue(
    notification: Notification | None,
    event: Event[NotificationRequested],
    given: Asked,
) -> Notification | None:
    """Store a message under its id; it is not sent where its recipient wants no such messages.

    One that is limited waits for its recipient's allowance, which decides about both.
    """
    if notification is not None:
        return None
    queued = Notification.requested(event.data, event.time)
    preference = given.preferences.get(queued.recipient)
    if not event.data.limited and wants_none(preference, queued.purpose):
        queued.suppress(OPTED_OUT, event.time)
    given.opening.take(queued)
    return queued


def wants_none(preference: Preference | None, purpose: CommunicationPurpose) -> bool:
    """Tell whether a recipient wants nothing that is for this."""
    return preference is not None and purpose in preference.opted_out


@dataclass(frozen=True, slots=True)
class Turn:
    """When attempts begin, and for how many seconds which messages wait for a busy receiver."""

    now: datetime
    put_off: Mapping[str, float] = field(default_factory=dict)


async def turn(ready: Sequence[Notification], notification: Resources) -> Turn:
    """Tell the time: an attempt may begin long after it was due, and its lease begins with it."""
    wanted = [(item.id, destination_of(item.channel, item.address)) for item in ready]
    return Turn(notification.engine.clock.now(), notification.destinations.put_off(wanted))


@due(Notification, prepare=turn, then=send)
def attempt(notification: Notification, item: Due, turn: Turn) -> Notification:
    """Lease a message whose time has come, or whose lease ran out, to send it.

    One whose last attempt never ended is given up; one for a busy receiver waits for its turn.
    """
    if next_attempt(notification.attempts) is None:
        notification.fail(Reason.TIMEOUT.value, turn.now)
    elif notification.id in turn.put_off:
        notification.put_off(turn.now + timedelta(seconds=turn.put_off[notification.id]))
    else:
        notification.lease(turn.now)
    return notification


def record(
    notification: Notification, outcome: Outcome, attempt: int, now: datetime
) -> Notification | None:
    """Decide what an attempt's outcome means for its message.

    What a channel refuses because it is of a drill has not failed: it is not sent on purpose.
    """
    match outcome:
        case Delivered(receipt):
            changed = notification.deliver(receipt, now)
        case Refused(Reason.EXERCISE as reason):
            changed = notification.suppress(reason.value, now)
        case Refused(reason):
            changed = notification.fail(reason.value, now)
        case Retry(reason, after):
            wait = next_attempt(notification.attempts, after)
            if wait is None:
                changed = notification.fail(reason.value, now)
            else:
                changed = notification.retry(attempt, now + timedelta(seconds=wait))
    return notification if changed else None


async def _recorded(
    notification: Notification,
    decide: Callable[[Notification | None], Notification | None],
    cause: str,
    engine: Engine,
) -> Notification:
    """Record an outcome, however long the store is in trouble.

    One that nobody knows is sent again when its lease is over: so as soon as the store is back.
    """
    read: Notification | None = notification
    tries = 0
    while True:
        try:
            return await engine.change(
                Notification, notification.id, decide, cause=cause, read=read
            )
        except TemporaryError as error:
            read = None
            tries += 1
            pause = min(LONGEST_PAUSE, pause_after(error, tries))
            log.warning("outcome.waits", reason=error.reason, tries=tries, pause=pause)
            await engine.clock.sleep(pause)


async def _outgoing(notification: Notification, resources: Resources) -> Outgoing:
    secrets: tuple[str, ...] = ()
    if notification.channel == "webhook" and notification.stakeholder:
        stakeholder = await resources.store.get(Stakeholder, notification.stakeholder)
        addresses = stakeholder.addresses if stakeholder is not None else ()
        secrets = next((one.secrets for one in addresses if one.to == notification.address), ())
    return Outgoing(
        notification_id=notification.id,
        kind=notification.purpose,
        to=notification.address,
        language=notification.language,
        time=notification.requested_at,
        subject=notification.subject,
        text=notification.text,
        data=notification.data,
        statement_hash=notification.statement_hash,
        exercise=notification.exercise,
        in_reply_to=notification.in_reply_to,
        secrets=secrets,
    )


async def _forget(notification: Notification, resources: Resources) -> None:
    def decide(stakeholder: Stakeholder | None) -> Stakeholder | None:
        if stakeholder is None or not stakeholder.forget_address(notification.address):
            return None
        return stakeholder

    await resources.engine.change(
        Stakeholder,
        notification.stakeholder or "",
        decide,
        cause=derived_id("gone", notification.id),
    )
    resources.directory.forget()


@on(NotificationDelivered, changes=Interaction, key=lambda event: event.data.notification_id)
def log_delivery(
    interaction: Interaction | None, event: Event[NotificationDelivered]
) -> Interaction | None:
    """Every message that went out is on record."""
    if interaction is not None:
        return None
    told = event.data
    return Interaction(
        id=told.notification_id,
        stakeholder=told.recipient,
        direction="out",
        channel=told.channel,
        purpose=told.purpose,
        occurred_at=told.delivered_at,
        outcome="delivered",
        notification_id=told.notification_id,
        case_id=told.case_id,
    ).recorded()


DECLARED: Final[list[Declared]] = [queue, attempt, log_delivery]
