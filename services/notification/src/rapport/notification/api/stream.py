"""The live stream over HTTP: every event as it happens, without personal data.

The id of each is the positions in the log behind it, so whoever was away goes on where they were.
A `reset` event says that this cannot be (the log is shorter, or another one); the stream then goes
on from now. Every 15 seconds of silence a comment keeps the connection open.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from rapport.common.bus.port import Bus, Expired, Position
from rapport.common.errors import FieldProblem, Invalid
from rapport.common.events.codec import Record, Undecodable, decode, structured
from rapport.common.events.envelope import without_personal
from rapport.common.events.notifications import NotificationDelivered
from rapport.common.events.topics import (
    ANALYTICS,
    CASES,
    COMMUNICATIONS,
    CRISES,
    KNOWLEDGE,
    NOTIFICATIONS,
)
from rapport.common.http import Principal, Router, may
from rapport.notification.api.shared import Notifying

router = Router(tags=["stream"])

STREAMED: Final = tuple(
    topic.name for topic in (ANALYTICS, CASES, COMMUNICATIONS, CRISES, KNOWLEDGE, NOTIFICATIONS)
)

Positions = dict[Position, int]
"""The last offset that was seen of each partition; -1 where there was none."""


async def take_place(
    notification: Notifying, caller: Annotated[Principal, may("stream.read")]
) -> AsyncIterator[None]:
    """Dependency: a place among the listeners until the stream ends; raises TemporaryError."""
    with notification.listeners.place(caller.subject):
        yield


async def begin(
    notification: Notifying,
    last_event_id: Annotated[str | None, Header(max_length=8000)] = None,
) -> tuple[Positions, Positions | None]:
    """Dependency: where the log ends now, and where the caller was, if anywhere.

    Raises Invalid for a `Last-Event-ID` that is not one of ours.
    """
    return await _now(notification.bus), _positions(last_event_id)


@router.get(
    "/stream",
    summary="What happens, live",
    response_class=EventSourceResponse,
    dependencies=[Depends(take_place)],
)
async def stream(
    notification: Notifying,
    begun: Annotated[tuple[Positions, Positions | None], Depends(begin)],
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: every event as CloudEvents JSON, without personal data.

    Resumes after `Last-Event-ID`, or says `reset`. Messages to the live stream arrive as
    `notification.delivered` with their text.
    """
    bus = notification.bus
    now, before = begun
    positions = now
    if before is not None:
        if _is_behind(before, now):
            positions = before
        else:
            yield _reset(now)
    yield ServerSentEvent(comment="connected")
    while True:
        try:
            async with aclosing(_events(bus, positions)) as events:
                async for event in events:
                    yield event
            return
        except Expired:
            positions = await _now(bus)
            yield _reset(positions)


async def _events(bus: Bus, positions: Positions) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(bus.tail(STREAMED, dict(positions))) as read:
        async for records in read:
            for record in records:
                positions[record.topic, record.partition] = record.offset
                shown = shown_on_stream(record)
                if shown is not None:
                    yield ServerSentEvent(raw_data=shown, id=_last_event_id(positions))


def _reset(positions: Positions) -> ServerSentEvent:
    return ServerSentEvent(raw_data="{}", event="reset", id=_last_event_id(positions))


async def _now(bus: Bus) -> Positions:
    return {position: end - 1 for position, end in (await bus.ends(STREAMED)).items()}


def _is_behind(before: Positions, now: Positions) -> bool:
    """Tell whether somebody who was at `before` can go on in a log that ends at `now`."""
    return before.keys() == now.keys() and all(before[place] <= now[place] for place in now)


def shown_on_stream(record: Record) -> str | None:
    """Return a record's event as JSON without personal data; None for what cannot be read.

    An event that goes back to one group has been told. What was addressed to the stream itself
    keeps its text: it is meant for everyone there.
    """
    try:
        event = decode(record)
    except Undecodable:
        return None
    if event.redrive is not None:
        return None
    data = without_personal(event.data)
    if isinstance(event.data, NotificationDelivered) and event.data.channel == "stream":
        data |= {"subject": event.data.subject, "text": event.data.text}
    return json.dumps({**structured(event), "data": data}, ensure_ascii=False)


def _last_event_id(positions: Mapping[Position, int]) -> str:
    return ",".join(
        f"{STREAMED.index(topic)}:{partition}:{offset}"
        for (topic, partition), offset in sorted(positions.items())
    )


def _positions(text: str | None) -> Positions | None:
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
