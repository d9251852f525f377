"""Which event leads to which message, and what becomes of messages.

An event becomes an *alert* (a communication to those who subscribe), a *reply* or a *statement*;
each asks for notifications; a notification is leased, sent and recorded. Statements also reach
persons through their link to a crisis: `Audience` knows what was said, `Linked` who was told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from rapport.common.aggregate import Due, Fact
from rapport.common.errors import PermanentError
from rapport.common.events.cases import CaseCrisisLinked, CaseCrisisUnlinked, CaseReplyRequested
from rapport.common.events.crises import (
    Coverage,
    CrisisDeclared,
    CrisisStandDownRequested,
    CrisisStoodDown,
)
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import StatementReleased, Wording
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationEvent,
    NotificationFailed,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.vocabulary import Language
from rapport.common.handling import Declared, EventHandler, due, fact, on
from rapport.common.telemetry import SENT
from rapport.notification import repository
from rapport.notification.channels import (
    Delivered,
    Outcome,
    Outgoing,
    Refused,
    Retry,
    next_attempt,
)
from rapport.notification.channels.rendering import Alert, Digest, Renderer, Reply
from rapport.notification.domain.audience import Audience, Linked, linked_id
from rapport.notification.domain.communications import (
    PAGE,
    Communication,
    Target,
    members,
    targets_of,
)
from rapport.notification.domain.log import Interaction, Occurrence
from rapport.notification.domain.matters import MATTERS, Matter, matter_of
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import (
    Preference,
    Stakeholder,
    Subscription,
    next_digest,
)
from rapport.notification.resources import Resources

LANGUAGES: Final = (Language.EN, Language.ZH, Language.FA)
FEW: Final = 100
"""Up to so many recipients of an alert are asked for in one save."""


# Alerts: events that somebody subscribes to


async def subscribers(
    events: Sequence[Event[EventData]], notification: Resources
) -> tuple[repository.Directory, Renderer]:
    """Give alerts the current subscriptions, the stakeholders and the templates."""
    return await notification.directory.current(), notification.renderer


def alert(
    communication: Communication | None,
    event: Event[EventData],
    given: tuple[repository.Directory, Renderer],
) -> Communication | None:
    """Tell at once everybody who subscribes to this event; nobody is told of the past."""
    directory, renderer = given
    matter = matter_of(event)
    if communication is not None or matter is None or event.historical:
        return None
    wanted = wanted_by(directory.subscriptions, matter)
    told = list(recipients(wanted, matter, directory.stakeholders))
    if not told:
        return None
    made = Communication(
        id=_alert_id(event),
        purpose="digest" if matter.event == "digest.compiled" else "alert",
        wordings=alert_wordings(matter, event.time, renderer),
        data={"event": event.type, "event_id": event.id, **matter.about, **matter.data},
        crisis_id=matter.crisis_id,
        case_id=matter.case_id,
        planned_at=event.time,
    ).planned()
    made.request(told[:FEW])
    if len(told) > FEW:
        made.groups, made.stage, made.step_at = tuple(_groups(wanted)), "groups", event.time
    return made


def wanted_by(subscriptions: Iterable[Subscription], matter: Matter) -> list[Subscription]:
    """Return the subscriptions that want a matter at once."""
    return [
        item
        for item in subscriptions
        if item.deliver == "at_once" and item.wants(matter.event, matter.about)
    ]


def recipients(
    subscriptions: Iterable[Subscription],
    matter: Matter,
    stakeholders: Mapping[str, Stakeholder],
) -> Iterable[Target]:
    """Return everybody that subscriptions name, each way to reach them once."""
    named: dict[str, Stakeholder] = {}
    for subscription in subscriptions:
        for name in subscription.to:
            if name.startswith("group:"):
                found = members(list(stakeholders.values()), [name.removeprefix("group:")])
                named.update((item.id, item) for item in found)
            else:
                id = (matter.owner or "") if name == "owner" else name
                if id in stakeholders:
                    named[id] = stakeholders[id]
    return (target for item in named.values() for target in targets_of(item))


def alert_wordings(matter: Matter, at: datetime, renderer: Renderer) -> dict[Language, Wording]:
    """Return an alert, or a compiled digest, in every language."""
    wordings = {}
    for language in LANGUAGES:
        if matter.event == "digest.compiled":
            words = renderer.render("digest", language, _compiled(matter.data))
        else:
            words = renderer.render("alert", language, _alert(matter, at, language))
        wordings[language] = Wording(subject=words.subject, text=words.text)
    return wordings


def _alert(matter: Matter, at: datetime, language: Language) -> Alert:
    reason = matter.reason
    return Alert(
        event=matter.event,
        about=matter.title,
        reason=reason if isinstance(reason, str) else reason.get(language, reason.get("en", "")),
        severity=matter.severity,
        responsible=matter.owner,
        at=at,
        due_at=matter.due_at,
        suppressed=0,
        url=None,
    )


def _compiled(data: Mapping[str, Any]) -> Digest:
    return Digest(
        start=datetime.fromisoformat(data["start"]),
        end=datetime.fromisoformat(data["end"]),
        total=data["total"],
        by_kind=data["by_kind"],
        lines=data["lines"],
        items=(),
        suppressed=0,
        url=None,
    )


def _alert_id(event: Event[EventData]) -> str:
    return derived_id("alert", event.id)


def _groups(subscriptions: Iterable[Subscription]) -> list[str]:
    return sorted(
        {
            name.removeprefix("group:")
            for item in subscriptions
            for name in item.to
            if name.startswith("group:")
        }
    )


ALERTS: Final = tuple(
    EventHandler(kind, Communication, _alert_id, subscribers, alert)
    for kind in MATTERS
    if kind is not StatementReleased
)


# Digests: what somebody reads later


@fact(*MATTERS)
def remember(event: Event[EventData]) -> Iterable[Fact]:
    """Keep what happened for the digests."""
    matter = matter_of(event)
    if matter is not None and not event.historical:
        yield Occurrence(
            id=event.id,
            at=event.time,
            event=matter.event,
            title=matter.title,
            about=dict(matter.about),
        )


async def since_last_digest(
    ready: Sequence[Subscription], notification: Resources
) -> tuple[Mapping[str, Sequence[Occurrence]], repository.Directory, Renderer]:
    """Give due digests what happened in their periods."""
    happened = {}
    for item in ready:
        if item.digest_from is not None and item.digest_due is not None:
            happened[item.id] = await repository.occurrences(
                notification.store, item.digest_from, item.digest_due
            )
    return happened, await notification.directory.current(), notification.renderer


@due(Subscription, prepare=since_last_digest)
def send_digest(
    subscription: Subscription,
    item: Due,
    given: tuple[Mapping[str, Sequence[Occurrence]], repository.Directory, Renderer],
) -> Subscription:
    """Send what was collected, if anything was, and begin the next period."""
    happened, directory, renderer = given
    start = subscription.digest_from
    collected = [
        occurrence
        for occurrence in happened.get(subscription.id, ())
        if subscription.wants(occurrence.event, occurrence.about)
    ]
    if collected and start is not None:
        digest = _collected_digest(subscription, collected, start, item.at, directory, renderer)
        for wish in digest:
            subscription.emit(wish, key=wish.notification_id)
    subscription.digest_from = item.at
    subscription.digest_due = next_digest(subscription, item.at)
    return subscription


def _collected_digest(
    subscription: Subscription,
    collected: Sequence[Occurrence],
    start: datetime,
    end: datetime,
    directory: repository.Directory,
    renderer: Renderer,
) -> Iterable[NotificationRequested]:
    context = Digest(
        start=start,
        end=end,
        total=len(collected),
        by_kind={},
        lines=(),
        items=[
            {"event": item.event, "about": item.title, "at": item.at} for item in collected[:200]
        ],
        suppressed=max(0, len(collected) - 200),
        url=None,
    )
    wordings = {}
    for language in LANGUAGES:
        words = renderer.render("digest", language, context)
        wordings[language] = Wording(subject=words.subject, text=words.text)
    digest = Communication(
        id=derived_id("digest", subscription.id, end.isoformat()),
        purpose="digest",
        wordings=wordings,
        planned_at=end,
    )
    nobody = Matter(event="digest", title="", about={})
    told = list(recipients([subscription], nobody, directory.stakeholders))
    return [digest.wish(target) for target in told[: 2 * FEW]]


# Replies


async def templates(events: Sequence[Event[Any]], notification: Resources) -> Renderer:
    """Give replies their template."""
    return notification.renderer


@on(
    CaseReplyRequested,
    changes=Communication,
    key=lambda event: derived_id("reply", event.data.reply_id),
    prepare=templates,
)
def reply(
    communication: Communication | None, event: Event[CaseReplyRequested], renderer: Renderer
) -> Communication | None:
    """Send an owner's answer to the person, or record one that was given elsewhere."""
    if communication is not None:
        return None
    told = event.data
    words = renderer.render(
        "reply",
        told.language,
        Reply(subject=told.subject, text=told.text, reference=told.case_id),
    )
    made = Communication(
        id=derived_id("reply", told.reply_id),
        purpose="reply",
        wordings={told.language: Wording(subject=words.subject, text=words.text)},
        case_id=told.case_id,
        reply_id=told.reply_id,
        in_reply_to=told.in_reply_to,
        planned_at=event.time,
    ).planned()
    address = told.contact.email if told.via == "email" else None
    recipient = told.contact.person or told.case_id
    made.request([Target(recipient, told.via, address or "", told.language)])
    return made


# Statements


async def its_audience(
    events: Sequence[Event[StatementReleased]], notification: Resources
) -> Mapping[str, Audience]:
    """Give released statements the audiences of their crises."""
    crises = [item.data.crisis_id for item in events if item.data.crisis_id]
    return await repository.audiences(notification.store, crises)


@on(
    StatementReleased,
    changes=Communication,
    key=lambda event: derived_id("statement", event.id),
    prepare=its_audience,
)
def release(
    communication: Communication | None,
    event: Event[StatementReleased],
    audiences: Mapping[str, Audience],
) -> Communication | None:
    """Send a released statement to its groups and to everyone linked to its crisis.

    Raises PermanentError where one of the two is a drill and the other is not.
    """
    if communication is not None:
        return None
    audience = audiences.get(event.data.crisis_id or "")
    if audience is not None and audience.exercise != event.exercise:
        raise PermanentError("a statement and its crisis are not of the same drill")
    id = derived_id("statement", event.id)
    return Communication.of_statement(id, event.data, event.time)


@on(StatementReleased, changes=Audience, key=lambda event: event.data.crisis_id)
def say_to_whoever_joins(
    audience: Audience | None, event: Event[StatementReleased]
) -> Audience | None:
    """Keep what was said in a crisis for those who are linked later."""
    audience = audience or Audience(id=event.data.crisis_id or "")
    id = derived_id("statement", event.id)
    return audience if audience.release(id, event.data, event.time) else None


@dataclass(frozen=True)
class PageOfRecipients:
    """What the next step of a communication is given."""

    targets: Sequence[Target]
    next: str | None
    crisis_is_over: bool


async def next_pages(
    ready: Sequence[Communication], notification: Resources
) -> Mapping[str, PageOfRecipients]:
    """Read the next page of recipients for communications that go through many."""
    pages = {}
    crises = [item.crisis_id for item in ready if item.crisis_id]
    audiences = await repository.audiences(notification.store, crises)
    directory = await notification.directory.current()
    for item in ready:
        over = item.crisis_id is None or (
            item.crisis_id in audiences and audiences[item.crisis_id].over
        )
        if item.stage == "groups":
            pages[item.id] = _page_of_groups(item, directory.stakeholders, over)
        else:
            linked, cursor = await repository.linked_page(
                notification.store, item.crisis_id or "", item.cursor, PAGE
            )
            fresh = [one.target for one in linked if item.id not in one.communications]
            targets = [target for target in fresh if target is not None]
            pages[item.id] = PageOfRecipients(targets, cursor, over)
    return pages


def _page_of_groups(
    item: Communication, stakeholders: Mapping[str, Stakeholder], over: bool
) -> PageOfRecipients:
    belonging = sorted(members(list(stakeholders.values()), item.groups), key=lambda one: one.id)
    waiting = [one for one in belonging if one.id > (item.cursor or "")]
    chosen: list[Target] = []
    cursor = None
    for one in waiting:
        targets = list(targets_of(one))
        if len(chosen) + len(targets) > PAGE:
            return PageOfRecipients(chosen, cursor, over)
        chosen += targets
        cursor = one.id
    return PageOfRecipients(chosen, None, over)


@due(Communication, prepare=next_pages)
def turn_page(
    communication: Communication, item: Due, pages: Mapping[str, PageOfRecipients]
) -> Communication:
    """Ask for one page of notifications and go on."""
    page = pages[communication.id]
    communication.request(page.targets)
    communication.turn_page(page.next, item.at, crisis_is_over=page.crisis_is_over)
    return communication


# The people of a crisis


def _recipient_of(data: CaseCrisisLinked) -> str:
    return data.contact.person or data.case_id


@dataclass(frozen=True)
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


@on(
    CaseCrisisLinked,
    changes=Linked,
    key=lambda event: linked_id(event.data.crisis_id, _recipient_of(event.data)),
    prepare=what_was_said,
)
def link(linked: Linked | None, event: Event[CaseCrisisLinked], crisis: Crisis) -> Linked | None:
    """Somebody belongs to a crisis: they get what has been said, and what will be."""
    recipient = _recipient_of(event.data)
    linked = linked or Linked.first(event.data, recipient)
    preference = crisis.preferences.get(recipient)
    linked.opted_out = preference is not None and "statement" in preference.opted_out
    audience = crisis.audiences.get(event.data.crisis_id)
    releases = audience.releases if audience is not None else ()
    return linked if linked.link(event.data, releases) else None


@on(
    CaseCrisisUnlinked,
    changes=Linked,
    key=lambda event: linked_id(event.data.crisis_id, event.data.person or event.data.case_id),
)
def unlink(linked: Linked | None, event: Event[CaseCrisisUnlinked]) -> Linked | None:
    """A case was linked by mistake: its person hears no more of the crisis."""
    return linked if linked is not None and linked.unlink(event.data.case_id) else None


@on(CrisisDeclared, changes=Audience, key=lambda event: event.data.crisis_id)
def gather(audience: Audience | None, event: Event[CrisisDeclared]) -> Audience | None:
    """A declared crisis has an audience."""
    return Audience(id=event.data.crisis_id) if audience is None else None


@on(CrisisStandDownRequested, changes=Audience, key=lambda event: event.data.crisis_id)
def ask_for_review(audience: Audience | None, event: Event[CrisisStandDownRequested]) -> Audience:
    """A stand-down waits for the coverage."""
    audience = audience or Audience(id=event.data.crisis_id)
    audience.ask_for_review(event.data.request_id, event.time)
    return audience


async def coverage(ready: Sequence[Audience], notification: Resources) -> Mapping[str, Coverage]:
    """Count the coverage of the crises that are asked about."""
    return {item.id: await repository.coverage(notification.store, item.id) for item in ready}


@due(Audience, prepare=coverage)
def review(audience: Audience, item: Due, counted: Mapping[str, Coverage]) -> Audience:
    """Answer a stand-down request."""
    audience.review(item.name.removeprefix("review:"), counted[audience.id])
    return audience


@on(CrisisStoodDown, changes=Audience, key=lambda event: event.data.crisis_id)
def disperse(audience: Audience | None, event: Event[CrisisStoodDown]) -> Audience | None:
    """After the stand-down nobody can join any more."""
    if audience is None or audience.over:
        return None
    audience.over = True
    return audience


def _linked_key(event: Event[Any]) -> str | None:
    told: NotificationEvent = event.data
    if told.purpose != "statement" or told.crisis_id is None:
        return None
    return linked_id(told.crisis_id, told.recipient)


def _noting(
    kind: type[NotificationEvent], progress: Literal["queued", "delivered", "failed"]
) -> EventHandler[Any, Linked]:
    def note(linked: Linked | None, event: Event[Any]) -> Linked | None:
        return linked if linked is not None and linked.note(event.data, progress) else None

    return EventHandler(kind, Linked, _linked_key, None, note)


PROGRESS: Final = (
    _noting(NotificationRequested, "queued"),
    _noting(NotificationDelivered, "delivered"),
    _noting(NotificationFailed, "failed"),
    _noting(NotificationSuppressed, "failed"),
)


# Notifications: lease, send, record


async def opted_out(
    events: Sequence[Event[NotificationRequested]], notification: Resources
) -> Mapping[str, Preference]:
    """Give requested notifications what their recipients do not want."""
    return await repository.preferences(
        notification.store, [item.data.recipient for item in events]
    )


@on(
    NotificationRequested,
    changes=Notification,
    key=lambda event: event.data.notification_id,
    prepare=opted_out,
)
def queue(
    notification: Notification | None,
    event: Event[NotificationRequested],
    preferences: Mapping[str, Preference],
) -> Notification | None:
    """Store a message under its id, unless its recipient does not want to hear of this."""
    if notification is not None:
        return None
    queued = Notification.requested(event.data, event.time)
    preference = preferences.get(queued.recipient)
    if preference is not None and queued.purpose in preference.opted_out:
        queued.suppress("opted_out", event.time)
    return queued


async def send(notification: Notification, resources: Resources) -> None:
    """Send a leased message and record what became of it."""
    outgoing = await _outgoing(notification, resources)
    outcome = await resources.channels.send(notification.channel, outgoing)
    attempt = notification.attempts
    now = resources.engine.clock.now()
    SENT.labels(notification.channel, type(outcome).__name__.lower()).inc()
    await resources.engine.change(
        Notification,
        notification.id,
        lambda current: current and record(current, outcome, attempt, now),
        cause=derived_id("outcome", notification.id, str(attempt)),
    )
    if isinstance(outcome, Refused) and outcome.disable and notification.stakeholder:
        await _forget(notification, resources)


async def present(_: Sequence[Notification], notification: Resources) -> datetime:
    """Tell the time: an attempt may begin long after it was due, and its lease begins with it."""
    return notification.engine.clock.now()


@due(Notification, prepare=present, then=send)
def attempt(notification: Notification, item: Due, now: datetime) -> Notification:
    """Lease a message whose time has come, or whose lease ran out, to send it."""
    notification.lease(now)
    return notification


def record(
    notification: Notification, outcome: Outcome, attempt: int, now: datetime
) -> Notification | None:
    """Decide what an attempt's outcome means for its message."""
    match outcome:
        case Delivered(receipt):
            changed = notification.deliver(receipt, now)
        case Refused(reason):
            changed = notification.fail(reason.value, now)
        case Retry(reason, after):
            wait = next_attempt(notification.attempts, after)
            if wait is None:
                changed = notification.fail(reason.value, now)
            else:
                changed = notification.retry(attempt, now + timedelta(seconds=wait))
    return notification if changed else None


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
        if stakeholder is not None:
            stakeholder.forget_address(notification.address)
        return stakeholder

    await resources.engine.change(
        Stakeholder,
        notification.stakeholder or "",
        decide,
        cause=derived_id("gone", notification.id),
    )
    resources.directory.forget()


# The communication log


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


DECLARED: Final[tuple[Declared, ...]] = (
    *ALERTS,
    remember,
    send_digest,
    reply,
    release,
    say_to_whoever_joins,
    turn_page,
    link,
    unlink,
    gather,
    ask_for_review,
    review,
    disperse,
    *PROGRESS,
    queue,
    attempt,
    log_delivery,
)
