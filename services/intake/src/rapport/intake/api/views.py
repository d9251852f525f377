"""What intake answers: receipts, the lines of a batch, and where a message stands."""

from collections.abc import Collection
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, Field

from rapport.common.errors import Invalid
from rapport.common.events.envelope import Instant
from rapport.common.http import Problem, problem_of
from rapport.intake.api.reception import Reception
from rapport.intake.domain import reference_of
from rapport.intake.domain.status import State
from rapport.intake.resources import Item, Lot

StatusUrl = Annotated[str, Field(description="Where to ask how it stands, from this host's root.")]


class Receipt(BaseModel):
    """It is in the log for good."""

    id: str
    reference: Annotated[str, Field(description="For people to tell each other.")]
    status_url: StatusUrl


class ItemAnswer(BaseModel):
    """What became of one item: an `id`, or a `problem` and nothing of it was kept."""

    index: Annotated[int, Field(description="The item's place in what was sent, from 0.")]
    position: Annotated[
        int | None, Field(description="Its place within a CloudEvent that brings several.")
    ] = None
    line: Annotated[int | None, Field(description="NDJSON only: its line, from 1.")] = None
    id: str | None = None
    status_url: StatusUrl | None = None
    known: Annotated[
        bool | None, Field(description="With `Prefer: known`: it was accepted before.")
    ] = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """Item by item, in the order of what was sent."""

    accepted: int
    rejected: int
    items: list[ItemAnswer]


class StatusView(BaseModel):
    """Where a message stands."""

    id: str
    reference: str
    state: State
    case_id: str | None = None
    received_at: Instant | None = None
    changed_at: Instant | None = None
    historical: bool = False
    exercise: str | None = None


class Accepted(Response):
    """The answer 202 on the busiest path, with its headers ready."""

    def __init__(self, body: bytes) -> None:
        self.status_code = 202
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]


def receipt(reception: Reception, id: str) -> Response:
    """Return the answer 202; an id needs no escaping, so it is written as it is."""
    body = (
        f'{{"id":"{id}","reference":"{reference_of(id)}",'
        f'"status_url":"{reception.status_url(id)}"}}'
    )
    return Accepted(body.encode())


def batch_answer(reception: Reception, lot: Lot, known: Collection[str] | None) -> Response:
    """Return the answer 207; `known` are the ids accepted before, None where nobody asked."""
    met = set(known or ())
    lines = []
    for item in lot.items:
        lines.append(_line(reception, item, None if known is None else item.id in met))
        met.add(item.id)
    accepted = len(lot.messages)
    answer = BatchAnswer(accepted=accepted, rejected=len(lines) - accepted, items=lines)
    return Response(
        answer.model_dump_json(exclude_none=True),
        207,
        media_type="application/json",
        headers=None if known is None else {"Preference-Applied": "known"},
    )


def _line(reception: Reception, item: Item, known: bool | None) -> ItemAnswer:
    if isinstance(item.content, Invalid):
        return ItemAnswer(**item.place, problem=problem_of(item.content))
    url = reception.status_url(item.id)
    return ItemAnswer(**item.place, id=item.id, status_url=url, known=known)
