"""Feedback in other people's form: CloudEvents, and whatever a mapping can read.

A request that brings one item is answered like a single submission; one that brings several, or
none that is wanted, is answered like a batch.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from rapport.common.direct import DirectRoute
from rapport.common.errors import Invalid, NotFound
from rapport.intake.api.reception import Call, Reception, read_aside
from rapport.intake.api.submitting import (
    Exercise,
    IdempotencyKey,
    Prefer,
    Submitter,
    reception,
    take_in,
)
from rapport.intake.api.views import BatchAnswer, Receipt, receipt
from rapport.intake.domain import (
    STRUCTURED,
    SUBMITTED,
    CloudEvent,
    Mapping,
    items_of_document,
    parse_array,
    parse_json,
    read_binary_event,
    read_event,
)
from rapport.intake.resources import LOT_LIMIT, Item, Lot

router = APIRouter(route_class=DirectRoute, tags=["feedback"])

_BATCH: Final = "application/cloudevents-batch+json"
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    207: {"model": BatchAnswer, "description": "Several items, or none that is wanted."},
}
_EVENTS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"Data of the type `{SUBMITTED}` are a submission as for `POST /feedback`; "
        "every other type needs a mapping that serves it. In binary mode the attributes are "
        "headers (`ce-id`, `ce-source`, `ce-type`, `ce-specversion`) and the body is the data.",
        "content": {
            STRUCTURED: {"schema": {"type": "object"}},
            _BATCH: {
                "schema": {"type": "array", "items": {"type": "object"}, "maxItems": LOT_LIMIT}
            },
            "application/json": {"schema": {}},
        },
    }
}


def _event_headers(_: Submitter, exercise: Exercise = None, prefer: Prefer = None) -> None:
    """What `submit_events` reads, for the documentation."""


def _hook(
    _: Submitter,
    mapping: Annotated[str, Path(description="A mapping's name.")],
    body: Annotated[Any, Body(description="Whatever the mapping reads.")],
    idempotency_key: IdempotencyKey = None,
    exercise: Exercise = None,
    prefer: Prefer = None,
) -> None:
    """What `submit_to_hook` reads, for the documentation."""


@router.post(
    "/events",
    status_code=202,
    response_model=Receipt,
    responses=_ANSWERS,
    dependencies=[Depends(_event_headers)],
    openapi_extra=_EVENTS,
)
async def submit_events(request: Request) -> Response:
    """Take in CloudEvents 1.0: one in binary or structured mode, or a batch of them."""
    desk = reception(request)
    call = await desk.call(request)
    headers = dict(request.headers)
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    async with desk.load.body(request.receive) as body:
        if content_type == _BATCH:
            lot = await read_aside(body, _read_batch, desk, call, body)
            return await take_in(desk, call, lot)
        if content_type == STRUCTURED:
            lot = await read_aside(body, _read_structured, desk, call, body)
        else:
            lot = await read_aside(body, _read_binary, desk, call, headers, body)
        return await _answer(desk, call, lot)


@router.post(
    "/hooks/{mapping}",
    status_code=202,
    response_model=Receipt,
    responses=_ANSWERS,
    dependencies=[Depends(_hook)],
)
async def submit_to_hook(request: Request) -> Response:
    """Take in another system's JSON, read by the mapping of this name."""
    desk = reception(request)
    call = await desk.call(request)
    mapping = desk.mappings.get(request.path_params["mapping"])
    if mapping is None:
        raise NotFound("there is no such mapping")
    async with desk.load.body(request.receive) as body:
        lot = await read_aside(body, _read_hook, desk, call, mapping, body)
        return await _answer(desk, call, lot)


async def _answer(desk: Reception, call: Call, lot: Lot) -> Response:
    if len(lot.items) != 1:
        return await take_in(desk, call, lot)
    (item,) = lot.items
    if isinstance(item.content, Invalid):
        raise item.content
    await desk.publish(call, lot.ids, lot.messages)
    return receipt(desk, item.id)


def _read_hook(desk: Reception, call: Call, mapping: Mapping, body: bytes) -> Lot:
    found = items_of_document(mapping, parse_json(body), call.at)
    return desk.lot((call.item({"index": index}, content) for index, content in found), call.at)


def _read_structured(desk: Reception, call: Call, body: bytes) -> Lot:
    return _read_event(desk, call, read_event(parse_json(body)))


def _read_binary(desk: Reception, call: Call, headers: dict[str, str], body: bytes) -> Lot:
    return _read_event(desk, call, read_binary_event(headers, body))


def _read_event(desk: Reception, call: Call, event: CloudEvent) -> Lot:
    return desk.lot(_brought(desk, call, event), call.at)


def _read_batch(desk: Reception, call: Call, body: bytes) -> Lot:
    items = (
        item
        for index, document in enumerate(parse_array(body, LOT_LIMIT))
        for item in _one_of_batch(desk, call, index, document)
    )
    return desk.lot(items, call.at)


def _one_of_batch(desk: Reception, call: Call, index: int, document: Any) -> Iterator[Item]:
    """Yield what one CloudEvent of a batch brings; a fault of its own is its own."""
    try:
        if isinstance(document, Invalid):
            raise document
        brought = list(_brought(desk, call, read_event(document)))
    except Invalid as refusal:
        yield Item({"index": index}, call.sender, "", refusal)
        return
    for item in brought:
        position = {"position": item.place["index"]} if len(brought) > 1 else {}
        yield item._replace(place={"index": index} | position)


def _brought(desk: Reception, call: Call, event: CloudEvent) -> Iterator[Item]:
    return desk.brought(event, call.sender.client, call.at, call.sender.exercise)
