"""What senders send in these tests, and how they do it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from rapport.common.errors import TemporaryError
from rapport.common.events import Event, Message
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.testing import Harness, token

FEEDBACK = "/intake/v1/feedback"
BATCH = "/intake/v1/feedback/batch"
EVENTS = "/intake/v1/events"
HOOKS = "/intake/v1/hooks"

PROBLEM = "application/problem+json"
SHOP = "shop"
"""The client that sends, unless a test says otherwise."""

LEAK = "The kettle leaks at the handle."


def complaint(**fields: Any) -> dict[str, Any]:
    """Return a complaint about a kettle, except for the fields given."""
    document = {"kind": "complaint", "channel": "web", "text": LEAK, "source_ref": "T-1"}
    return document | fields


async def send(
    intake: Harness, path: str, *, as_: str = SHOP, settled: bool = True, **arguments: Any
) -> httpx2.Response:
    """Post as a publisher; without `settled` nothing of what follows has happened yet."""
    if settled:
        return await intake.call("POST", path, as_=as_, roles=["publisher"], **arguments)
    authorization = {"Authorization": f"Bearer {token(as_, 'publisher')}"}
    headers = authorization | arguments.pop("headers", {})
    return await intake.http.post(path, headers=headers, **arguments)


async def accepted(intake: Harness, *, settled: bool = True, **fields: Any) -> dict[str, str]:
    """Send a complaint, which is taken in; return the receipt."""
    answer = await send(intake, FEEDBACK, settled=settled, json=complaint(**fields))
    assert answer.status_code == 202, answer.text
    receipt: dict[str, str] = answer.json()
    return receipt


def received(intake: Harness) -> list[Event[FeedbackReceived]]:
    """Return all that intake has told the others."""
    return intake.all(FeedbackReceived)


def published(intake: Harness) -> list[Message]:
    """Return all that intake has published, as others get it."""
    return [Message(record.topic, *record[4:]) for record in intake.bus.records]


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """Return the problem document that an answer of this status is."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    return document


def reasons(document: dict[str, Any]) -> dict[str, str]:
    """Return the reasons that a problem document tells, by pointer."""
    return {entry["pointer"]: entry["reason"] for entry in document.get("errors", [])}


@contextmanager
def jammed_bus(intake: Harness) -> Iterator[None]:
    """Put the harness's bus in trouble for a while."""

    async def refuse(messages: object) -> None:
        raise TemporaryError("the bus is in trouble", 3.0)

    publish = intake.bus.publish
    intake.bus.publish = refuse  # type: ignore[method-assign]
    yield
    intake.bus.publish = publish  # type: ignore[method-assign]
