"""Feedback in our own form: one at a time, the busiest path of all, or many at once."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field

from rapport.common.direct import DirectRoute
from rapport.common.events.codec import Message
from rapport.common.http import Principal, may
from rapport.intake.api.reception import Call, Reception, read_aside
from rapport.intake.api.views import BatchAnswer, Receipt, batch_answer, receipt
from rapport.intake.domain import (
    Submission,
    parse_json,
    read_array,
    read_lines,
    read_submission,
)
from rapport.intake.resources import LOT_LIMIT, Item, Lot

_LINES: Final = ("ndjson", "jsonl", "json-lines", "jsonlines")

router = APIRouter(route_class=DirectRoute, tags=["feedback"])

Submitter = Annotated[Principal, may("feedback.submit")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=200,
        description="A repeat with this key and the same content gets the same id; with other "
        "content, 422. It need not be sent where each item has a source_ref.",
    ),
]
Exercise = Annotated[
    str | None,
    Header(
        alias="X-Rapport-Exercise",
        max_length=100,
        description="The id of the drill that this is part of; nothing of it reaches anybody real.",
    ),
]
Prefer = Annotated[
    str | None,
    Header(description="`known` marks the items that were accepted before."),
]


def reception(request: Request) -> Reception:
    """Return the service's reception."""
    found: Reception = request.app.state.resources
    return found


def _single(
    _: Submitter,
    body: Submission,
    idempotency_key: IdempotencyKey = None,
    exercise: Exercise = None,
) -> None:
    """What `submit` reads, for the documentation."""


def _many(
    _: Submitter,
    body: Annotated[list[Submission], Field(max_length=LOT_LIMIT)],
    idempotency_key: IdempotencyKey = None,
    exercise: Exercise = None,
    prefer: Prefer = None,
) -> None:
    """What `submit_batch` reads, for the documentation."""


_NDJSON: Final[dict[str, Any]] = {
    "requestBody": {
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        "description": f"At most {LOT_LIMIT:,} items, 10 MiB.",
    }
}


@router.post(
    "/feedback",
    status_code=202,
    response_model=Receipt,
    dependencies=[Depends(_single)],
)
async def submit(request: Request) -> Response:
    """Take in one complaint, question, request, praise, survey answer or mention."""
    desk = reception(request)
    call = await desk.call(request)
    async with desk.load.body(request.receive) as body:
        id, message = await read_aside(body, _read, desk, call, body)
        await desk.publish(call, [id], [message])
    return receipt(desk, id)


@router.post(
    "/feedback/batch",
    status_code=207,
    response_model=BatchAnswer,
    dependencies=[Depends(_many)],
    openapi_extra=_NDJSON,
)
async def submit_batch(request: Request) -> Response:
    """Take in many at once: a JSON array, or NDJSON. Good items go through, bad ones are told."""
    desk = reception(request)
    call = await desk.call(request)
    has_lines = any(name in request.headers.get("content-type", "").lower() for name in _LINES)
    async with desk.load.body(request.receive) as body:
        lot = await read_aside(body, _read_batch, desk, call, body, has_lines)
        return await take_in(desk, call, lot)


async def take_in(desk: Reception, call: Call, lot: Lot) -> Response:
    """Publish the good items in one call and return the line of each."""
    ids = lot.ids
    known = await desk.known(ids) if call.asks_known else None
    await desk.publish(call, ids, lot.messages)
    return batch_answer(desk, lot, known)


def _read(desk: Reception, call: Call, body: bytes) -> tuple[str, Message]:
    submission = read_submission(parse_json(body), call.at)
    id = call.name(submission)
    return id, desk.message(submission, id, call.sender, call.at)


def _read_batch(desk: Reception, call: Call, body: bytes, has_lines: bool) -> Lot:
    return desk.lot(_items(call, body, has_lines), call.at)


def _items(call: Call, body: bytes, has_lines: bool) -> Iterator[Item]:
    read = read_lines if has_lines else read_array
    for item in read(body, call.at, LOT_LIMIT):
        place = {"index": item.index}
        if item.line is not None:
            place["line"] = item.line
        yield call.item(place, item.result)
