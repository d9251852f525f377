"""Notification over HTTP: who there is to be told, what was said, what became of it.

Views show addresses only to those who may read stakeholders; a list of notifications shows none.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, time
from typing import Annotated, Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from rapport.common.aggregate import Aggregate
from rapport.common.bus.port import Bus, Expired, Position
from rapport.common.errors import FieldProblem, Invalid, NotFound, PermanentError
from rapport.common.events.codec import Record, Undecodable, decode, structured
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.crises import Coverage
from rapport.common.events.envelope import Instant, without_personal
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Wording
from rapport.common.events.notifications import NotificationChannel, NotificationDelivered
from rapport.common.events.topics import (
    ANALYTICS,
    CASES,
    COMMUNICATIONS,
    CRISES,
    KNOWLEDGE,
    NOTIFICATIONS,
)
from rapport.common.events.vocabulary import Language
from rapport.common.http import Command, Cursor, Limit, Principal, Router, command, etag, may, page
from rapport.common.matching import Conditions
from rapport.common.people import person_id
from rapport.common.store.port import Store
from rapport.notification import repository
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.email import mailbox
from rapport.notification.channels.webhook import new_secret
from rapport.notification.domain.communications import Communication, Stage, members
from rapport.notification.domain.log import Interaction
from rapport.notification.domain.matters import FIELDS, MATTERS, event_name
from rapport.notification.domain.notifications import Notification, State
from rapport.notification.domain.stakeholders import (
    Address,
    Cadence,
    Preference,
    Stakeholder,
    StakeholderGroup,
    Subscription,
)
from rapport.notification.resources import Resources

router = Router(prefix="/notification/v1")

EVENTS: Final = frozenset(event_name(kind) for kind in MATTERS)
STREAMED: Final = tuple(
    topic.name for topic in (ANALYTICS, CASES, COMMUNICATIONS, CRISES, KNOWLEDGE, NOTIFICATIONS)
)

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Short = Annotated[str, StringConstraints(max_length=200)]
A = TypeVar("A", bound=Aggregate)


def resources(request: Request) -> Resources:
    """Dependency: what the service works with."""
    found: Resources = request.app.state.resources
    return found


Notifying = Annotated[Resources, Depends(resources)]


class Body(BaseModel):
    """A request's body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


# Stakeholders and groups


class AddressBody(Body):
    """Where to reach a stakeholder; a webhook without a secret is given one, shown once."""

    channel: Literal["email", "webhook", "stream"]
    to: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class StakeholderBody(Body):
    """A stakeholder's record."""

    name: Short = ""
    side: Literal["internal", "external"] = "external"
    language: Language = Language.EN
    groups: Annotated[tuple[Id, ...], Field(max_length=50)] = ()
    addresses: Annotated[tuple[AddressBody, ...], Field(max_length=10)] = ()
    active: bool = True


class AddressView(BaseModel):
    """An address; `secret` signs a webhook's messages and is shown only when it is made."""

    channel: NotificationChannel
    to: str
    secret: str | None = None


class StakeholderView(BaseModel):
    """A stakeholder; `recipient` is the person's id, the same for every record of theirs."""

    id: str
    name: str
    side: str
    language: Language
    groups: Sequence[str]
    addresses: Sequence[AddressView]
    active: bool
    recipient: str


def _stakeholder(
    item: Stakeholder, new_secrets: Mapping[str, str] | None = None
) -> StakeholderView:
    secrets = new_secrets or {}
    return StakeholderView(
        id=item.id,
        name=item.name,
        side=item.side,
        language=item.language,
        groups=item.groups,
        addresses=[
            AddressView(channel=one.channel, to=one.to, secret=secrets.get(one.to))
            for one in item.addresses
        ],
        active=item.active,
        recipient=item.recipient,
    )


@router.put("/stakeholders/{id}", summary="Create or replace a stakeholder's record")
async def put_stakeholder(
    id: Id,
    body: StakeholderBody,
    response: Response,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> StakeholderView:
    """Addresses are checked: a webhook must be one that users may make us call."""
    _check_addresses(body.addresses, notification.address_policy)
    made: dict[str, str] = {}

    def decide(current: Stakeholder | None) -> Stakeholder:
        current = current or Stakeholder(id=id)
        known = {one.to: one.secrets for one in current.addresses}
        for one in body.addresses:
            if one.channel == "webhook" and not known.get(one.to):
                made.setdefault(one.to, new_secret())
        addresses = tuple(
            Address(
                channel=one.channel, to=one.to, secrets=known.get(one.to) or _secrets(made, one)
            )
            for one in body.addresses
        )
        email = next((one.to for one in addresses if one.channel == "email"), None)
        current.become(
            name=body.name,
            side=body.side,
            language=body.language,
            groups=body.groups,
            addresses=addresses,
            recipient=person_id(notification.person_key, email=email),
            active=body.active,
        )
        return current

    saved = await cmd.change(Stakeholder, id, decide)
    notification.directory.forget()
    response.headers.update(etag(saved))
    return _stakeholder(saved, made)


def _secrets(made: Mapping[str, str], address: AddressBody) -> tuple[str, ...]:
    return (made[address.to],) if address.to in made else ()


def _check_addresses(addresses: Iterable[AddressBody], policy: AddressPolicy) -> None:
    problems = []
    for place, address in enumerate(addresses):
        pointer = f"/addresses/{place}/to"
        if address.channel == "email" and mailbox(address.to) is None:
            problems.append(FieldProblem(pointer, "is not an e-mail address"))
        if address.channel == "webhook":
            try:
                policy.check(address.to)
            except PermanentError as refused:
                problems.append(FieldProblem(pointer, refused.reason))
    if problems:
        raise Invalid("the addresses cannot be used", problems)


@router.get("/stakeholders", summary="List active stakeholders")
async def list_stakeholders(
    notification: Notifying,
    _: Annotated[Principal, may("stakeholder.read")],
    active: bool = True,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """In order of their ids."""
    found = await notification.store.find(
        Stakeholder, {"active": active}, limit=limit, cursor=cursor
    )
    return page(found, _stakeholder)


@router.get("/stakeholders/{id}", summary="Show a stakeholder")
async def get_stakeholder(
    id: Id,
    response: Response,
    notification: Notifying,
    _: Annotated[Principal, may("stakeholder.read")],
) -> StakeholderView:
    """With the version as ETag."""
    item = await _existing(notification.store, Stakeholder, id)
    response.headers.update(etag(item))
    return _stakeholder(item)


class GroupBody(Body):
    """A group's name in each language."""

    title: dict[Language, Short] = Field(default_factory=dict)


class GroupView(BaseModel):
    """A group and how many active stakeholders it has."""

    id: str
    title: dict[Language, str]
    members: int


@router.put("/stakeholder-groups/{id}", summary="Create or rename a stakeholder group")
async def put_group(
    id: Id,
    body: GroupBody,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> GroupView:
    """Stakeholders name the groups that they belong to."""

    def decide(current: StakeholderGroup | None) -> StakeholderGroup:
        current = current or StakeholderGroup(id=id)
        current.title = body.title
        return current

    return await _group(notification, await cmd.change(StakeholderGroup, id, decide))


@router.get("/stakeholder-groups", summary="List stakeholder groups")
async def list_groups(
    notification: Notifying,
    _: Annotated[Principal, may("stakeholder.read")],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """In order of their ids."""
    found = await notification.store.find(StakeholderGroup, limit=limit, cursor=cursor)
    views = [await _group(notification, item) for item in found.items]
    return {"items": views, "next": found.next}


async def _group(notification: Resources, group: StakeholderGroup) -> GroupView:
    directory = await notification.directory.current()
    count = sum(1 for _ in members(list(directory.stakeholders.values()), [group.id]))
    return GroupView(id=group.id, title=group.title, members=count)


class PreferenceBody(Body):
    """The purposes that a recipient does not want to hear of."""

    opted_out: tuple[CommunicationPurpose, ...] = ()


@router.put("/preferences/{recipient}", summary="Record what a recipient does not want")
async def put_preference(
    recipient: Id,
    body: PreferenceBody,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> PreferenceBody:
    """`recipient` is the person's id, as cases, notifications and stakeholders show it."""

    def decide(current: Preference | None) -> Preference:
        current = current or Preference(id=recipient)
        current.set(body.opted_out)
        return current

    saved = await cmd.change(Preference, recipient, decide)
    return PreferenceBody(opted_out=saved.opted_out)


# Subscriptions


class SubscriptionBody(Body):
    """What shall be told to whom, when it meets the conditions, at once or as a digest."""

    to: Annotated[tuple[Short, ...], Field(min_length=1, max_length=100)]
    events: Annotated[tuple[str, ...], Field(min_length=1, max_length=50)]
    when: Conditions = Conditions({})
    deliver: Literal["at_once", "digest"] = "at_once"
    every: Cadence = "daily"
    at: time = time(8, 0)
    time_zone: str = "UTC"

    @field_validator("events")
    @classmethod
    def _known(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(events) - EVENTS)
        if unknown:
            raise ValueError(f"not an event to subscribe to: {', '.join(unknown)}")
        return events

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("not a time zone") from None
        return name


class SubscriptionView(SubscriptionBody):
    """A subscription; `next_digest_at` is when its next digest is due."""

    id: str
    next_digest_at: datetime | None


def _subscription(item: Subscription) -> SubscriptionView:
    shown = {name: getattr(item, name) for name in SubscriptionBody.model_fields}
    return SubscriptionView(id=item.id, next_digest_at=item.digest_due, **shown)


@router.put("/subscriptions/{id}", summary="Create or replace a subscription")
async def put_subscription(
    id: Id,
    body: SubscriptionBody,
    response: Response,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> SubscriptionView:
    """`to`: stakeholder ids, `group:NAME`, or `owner` for the owner of the case in question."""
    body.when.check_fields(FIELDS, "/when")

    def decide(current: Subscription | None) -> Subscription:
        fresh = Subscription(id=id) if current is None else current
        for name in SubscriptionBody.model_fields:
            setattr(fresh, name, getattr(body, name))
        fresh.active = True
        fresh.schedule(cmd.at)
        return fresh

    saved = await cmd.change(Subscription, id, decide)
    notification.directory.forget()
    response.headers.update(etag(saved))
    return _subscription(saved)


@router.get("/subscriptions", summary="List subscriptions")
async def list_subscriptions(
    notification: Notifying,
    _: Annotated[Principal, may("stakeholder.read")],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """In order of their ids."""
    found = await notification.store.find(
        Subscription, {"active": True}, limit=limit, cursor=cursor
    )
    return page(found, _subscription)


@router.delete("/subscriptions/{id}", status_code=204, summary="End a subscription")
async def delete_subscription(
    id: Id, notification: Notifying, cmd: Annotated[Command, command("stakeholder.write")]
) -> None:
    """It can be put again later."""

    def decide(current: Subscription | None) -> Subscription | None:
        if current is not None:
            current.active = False
            current.schedule(cmd.at)
        return current

    await cmd.change(Subscription, id, decide)
    notification.directory.forget()


# Communications and notifications


class CommunicationBody(Body):
    """Something to say to groups, in any of the languages."""

    groups: Annotated[tuple[Id, ...], Field(min_length=1, max_length=50)]
    wordings: Annotated[dict[Language, Wording], Field(min_length=1)]


class CommunicationView(BaseModel):
    """A communication; `stage` tells how far it has been expanded."""

    id: str
    purpose: CommunicationPurpose
    groups: Sequence[str]
    crisis_id: str | None
    case_id: str | None
    statement_id: str | None
    statement_purpose: str | None
    statement_hash: str | None
    planned_at: datetime
    stage: Stage
    requested: int


def _communication(item: Communication) -> CommunicationView:
    return CommunicationView(
        **{name: getattr(item, name) for name in CommunicationView.model_fields}
    )


@router.post("/communications", status_code=201, summary="Say something to stakeholder groups")
async def post_communication(
    body: CommunicationBody, cmd: Annotated[Command, command("communication.write")]
) -> CommunicationView:
    """Planned, then expanded page by page; each member gets it once."""
    id = derived_id("communication", cmd.cause)

    def decide(current: Communication | None) -> Communication | None:
        if current is not None:
            return None
        return Communication(
            id=id,
            purpose="alert",
            wordings=body.wordings,
            groups=body.groups,
            planned_at=cmd.at,
            stage="groups",
            step_at=cmd.at,
        ).planned()

    return _communication(await cmd.change(Communication, id, decide))


@router.get("/communications", summary="List communications, newest first")
async def list_communications(
    notification: Notifying,
    _: Annotated[Principal, may("communication.read")],
    purpose: CommunicationPurpose | None = None,
    crisis_id: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Of one purpose or one crisis, if named."""
    where = {"purpose": purpose} if purpose else {"crisis_id": crisis_id} if crisis_id else {}
    found = await notification.store.find(
        Communication, where, limit=limit, cursor=cursor, newest_first=True
    )
    return page(found, _communication)


@router.get("/communications/{id}", summary="Show a communication")
async def get_communication(
    id: Id, notification: Notifying, _: Annotated[Principal, may("communication.read")]
) -> CommunicationView:
    """Without its words."""
    return _communication(await _existing(notification.store, Communication, id))


class CoverageView(BaseModel):
    """How far a communication has come (A1): its notifications by state, and, for a crisis
    statement, the coverage of the persons linked to the crisis."""

    notifications: dict[State, int]
    crisis: Coverage | None


@router.get("/communications/{id}/coverage", summary="Who has received it, in numbers")
async def get_coverage(
    id: Id, notification: Notifying, _: Annotated[Principal, may("communication.read")]
) -> CoverageView:
    """Counted now."""
    item = await _existing(notification.store, Communication, id)
    tallies = await notification.store.tally(
        Notification, ("state",), {"communication_id": item.id}
    )
    crisis = (
        await repository.coverage(notification.store, item.crisis_id) if item.crisis_id else None
    )
    return CoverageView(
        notifications={tally.group[0]: tally.count for tally in tallies}, crisis=crisis
    )


class NotificationView(BaseModel):
    """A message to one recipient, without its words and address."""

    id: str
    communication_id: str
    recipient: str
    channel: NotificationChannel
    purpose: CommunicationPurpose
    crisis_id: str | None
    case_id: str | None
    statement_purpose: str | None
    statement_hash: str | None
    language: Language
    state: State
    attempts: int
    reason: str | None
    receipt: str | None
    requested_at: datetime
    finished_at: datetime | None
    acknowledged_by: str | None


def _notification(item: Notification) -> NotificationView:
    return NotificationView(**{name: getattr(item, name) for name in NotificationView.model_fields})


@router.get("/notifications", summary="List notifications, newest first")
async def list_notifications(
    notification: Notifying,
    _: Annotated[Principal, may("communication.read")],
    communication_id: Id | None = None,
    recipient: Id | None = None,
    crisis_id: Id | None = None,
    state: State | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Of a communication (and a state), or of a recipient, a crisis or a state."""
    given = {
        "communication_id": communication_id,
        "recipient": recipient,
        "crisis_id": crisis_id,
        "state": state,
    }
    where = {name: value for name, value in given.items() if value is not None}
    found = await notification.store.find(
        Notification, where, limit=limit, cursor=cursor, newest_first=True
    )
    return page(found, _notification)


@router.post("/notifications/{id}/acknowledgement", summary="Confirm a delivered message")
async def acknowledge(
    id: Id, cmd: Annotated[Command, command("notification.acknowledge")]
) -> NotificationView:
    """Once; a repeat changes nothing."""

    def decide(current: Notification | None) -> Notification:
        if current is None:
            raise NotFound("there is no such notification")
        current.acknowledge(cmd.by.subject)
        return current

    return _notification(await cmd.change(Notification, id, decide))


# The communication log


class InteractionBody(Body):
    """A contact to put on record."""

    stakeholder: Id
    direction: Literal["in", "out"]
    channel: Short
    purpose: Short
    occurred_at: Instant
    outcome: Short
    follow_up: Short | None = None
    case_id: Id | None = None
    summary: Annotated[str, StringConstraints(max_length=5000)] = ""


class InteractionView(InteractionBody):
    """A contact on record."""

    id: str
    by: str | None
    notification_id: str | None


def _interaction(item: Interaction) -> InteractionView:
    return InteractionView(**{name: getattr(item, name) for name in InteractionView.model_fields})


@router.post("/interactions", status_code=201, summary="Put a contact on record")
async def post_interaction(
    body: InteractionBody, cmd: Annotated[Command, command("case.work")]
) -> InteractionView:
    """Sent messages are recorded by themselves; this is for calls, meetings, letters."""
    id = derived_id("interaction", cmd.cause)

    def decide(current: Interaction | None) -> Interaction | None:
        if current is not None:
            return None
        return Interaction(id=id, by=cmd.by.subject, **body.model_dump()).recorded()

    return _interaction(await cmd.change(Interaction, id, decide))


@router.get("/interactions", summary="List contacts, newest first")
async def list_interactions(
    notification: Notifying,
    _: Annotated[Principal, may("stakeholder.read")],
    stakeholder: Id | None = None,
    case_id: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """With one stakeholder, or about one case."""
    where = {"stakeholder": stakeholder} if stakeholder else {"case_id": case_id} if case_id else {}
    found = await notification.store.find(
        Interaction, where, limit=limit, cursor=cursor, newest_first=True
    )
    return page(found, _interaction)


# The live stream


@router.get("/stream", summary="What happens, live", response_class=StreamingResponse)
async def stream(
    notification: Notifying,
    _: Annotated[Principal, may("stream.read")],
    last_event_id: Annotated[str | None, Header(max_length=4000)] = None,
) -> StreamingResponse:
    """Server-sent events: every event as CloudEvents JSON, without personal data.

    Resumes after `Last-Event-ID`; where that has left the log, a `reset` event says so and the
    stream goes on from now. Messages to the live stream arrive as `notification.delivered` with
    their text.
    """
    return StreamingResponse(
        _sent(notification.bus, _positions(last_event_id)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _sent(bus: Bus, after: dict[Position, int] | None) -> AsyncIterator[str]:
    yield ": connected\n\n"
    try:
        positions = dict(after) if after is not None else await _now(bus)
        async for records in bus.tail(STREAMED, dict(positions)):
            for record in records:
                positions[record.topic, record.partition] = record.offset
                shown = shown_on_stream(record)
                if shown is not None:
                    yield f"id: {_last_event_id(positions)}\ndata: {shown}\n\n"
    except Expired:
        yield "event: reset\ndata: {}\n\n"


async def _now(bus: Bus) -> dict[Position, int]:
    return {position: end - 1 for position, end in (await bus.ends(STREAMED)).items()}


def shown_on_stream(record: Record) -> str | None:
    """Return a record's event as JSON without personal data; None for what cannot be read.

    What was addressed to the stream itself keeps its text: it is meant for everyone there.
    """
    try:
        event = decode(record)
    except Undecodable:
        return None
    data = without_personal(event.data)
    if isinstance(event.data, NotificationDelivered) and event.data.channel == "stream":
        data |= {"subject": event.data.subject, "text": event.data.text}
    return json.dumps({**structured(event), "data": data}, ensure_ascii=False)


def _last_event_id(positions: Mapping[Position, int]) -> str:
    return ",".join(
        f"{STREAMED.index(topic)}:{partition}:{offset}"
        for (topic, partition), offset in sorted(positions.items())
        if offset >= 0
    )


def _positions(text: str | None) -> dict[Position, int] | None:
    if not text:
        return None
    try:
        found = {}
        for part in text.split(","):
            topic, partition, offset = (int(number) for number in part.split(":"))
            found[STREAMED[topic], partition] = offset
        return found
    except (ValueError, IndexError):
        raise Invalid(
            "the request does not fit", [FieldProblem("/header/last-event-id", "not one of ours")]
        ) from None


async def _existing(store: Store, kind: type[A], id: str) -> A:
    found = await store.get(kind, id)
    if found is None:
        raise NotFound(f"there is no such {kind.__name__.lower()}")
    return found
