"""Subscriptions over HTTP: who wants to hear of what, at once or as a digest."""

from datetime import datetime, time
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Response
from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from rapport.common.errors import FieldProblem, Invalid
from rapport.common.http import Command, Cursor, Limit, Router, command, etag, may
from rapport.common.matching import Conditions
from rapport.notification.api.shared import Body, Id, Line, Listed, Notifying, existing, listed
from rapport.notification.domain.matters import DIGEST_ONLY, EVENTS, FIELDS
from rapport.notification.domain.stakeholders import Cadence, Subscription

router = Router(tags=["subscriptions"])

LONGEST_CONDITIONS: Final = 8_000
"""Characters of a subscription's conditions, as JSON."""

LocalTime = Annotated[
    time,
    WithJsonSchema(
        {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?$"}
    ),
]
"""A time of day; JSON Schema's `time` has a zone, and this has none."""


def _known(event: str) -> str:
    if event not in EVENTS:
        raise ValueError("is not an event to subscribe to")
    return event


EventName = Annotated[str, Field(max_length=100), AfterValidator(_known)]


def _bounded(conditions: Conditions) -> Conditions:
    if len(conditions.model_dump_json()) > LONGEST_CONDITIONS:
        raise ValueError(f"is longer than {LONGEST_CONDITIONS:,} characters")
    return conditions


class SubscriptionBody(Body):
    """What shall be told to whom, when it meets the conditions, at once or as a digest."""

    to: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]
    events: Annotated[tuple[EventName, ...], Field(min_length=1, max_length=50)]
    when: Annotated[Conditions, AfterValidator(_bounded)] = Conditions({})
    deliver: Literal["at_once", "digest"] = "at_once"
    every: Cadence = "daily"
    at: LocalTime = time(8, 0)
    time_zone: Annotated[str, Field(max_length=100)] = "UTC"

    @field_validator("at")
    @classmethod
    def _local(cls, at: time) -> time:
        if at.tzinfo is not None:
            raise ValueError("give the local time; its zone is `time_zone`")
        return at

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("not a time zone") from None
        return name

    def checked(self) -> Self:
        """Raise Invalid for what can be subscribed to, but not like this."""
        self.when.check_fields(FIELDS, "/when")
        late = sorted(set(self.events) & DIGEST_ONLY)
        if late and self.deliver == "at_once":
            problem = FieldProblem("/events", f"only digests tell of {', '.join(late)}")
            raise Invalid("the request does not fit", [problem])
        return self


class SubscriptionView(SubscriptionBody):
    """A subscription; `next_digest_at` is when its next digest is due."""

    id: str
    next_digest_at: datetime | None


def _shown(item: Subscription) -> SubscriptionView:
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
    wanted = body.checked()

    def decide(current: Subscription | None) -> Subscription:
        subscription = Subscription(id=id) if current is None else current
        for name in SubscriptionBody.model_fields:
            setattr(subscription, name, getattr(wanted, name))
        subscription.active = True
        subscription.schedule(cmd.at)
        return subscription

    saved = await cmd.change(Subscription, id, decide)
    notification.directory.forget()
    response.headers.update(etag(saved))
    return _shown(saved)


@router.get("/subscriptions", summary="List subscriptions", dependencies=[may("stakeholder.read")])
async def list_subscriptions(
    notification: Notifying, limit: Limit = 50, cursor: Cursor = None
) -> Listed[SubscriptionView]:
    """In order of their ids."""
    where = {"active": True}
    found = await notification.store.find(Subscription, where, limit=limit, cursor=cursor)
    return listed(found, _shown)


@router.get(
    "/subscriptions/{id}", summary="Show a subscription", dependencies=[may("stakeholder.read")]
)
async def get_subscription(id: Id, response: Response, notification: Notifying) -> SubscriptionView:
    """With the version as ETag; also one that has ended."""
    item = await existing(notification.store, Subscription, id)
    response.headers.update(etag(item))
    return _shown(item)


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
