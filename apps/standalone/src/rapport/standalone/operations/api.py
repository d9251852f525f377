"""What an operator asks of a running system over HTTP, since its log belongs to it alone."""

from typing import Annotated, Self

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rapport.common.bus.dead_letters import Place, SentBack, Wanted, redrive, redrive_all
from rapport.common.bus.port import Bus
from rapport.common.http import Router, may

PLACES_LIMIT = 1_000

router = Router(prefix="/operations/v1", tags=["operations"])


class Redrive(BaseModel):
    """Which dead letters go back: those at some places, or all; those of a group, of a type."""

    model_config = ConfigDict(extra="forbid")

    places: list[Annotated[str, Field(pattern=r"^\d{1,10}/\d{1,18}$")]] = Field(
        default=[], max_length=PLACES_LIMIT, description="Partitions and offsets, as `3/17`."
    )
    all: bool = False
    group: str | None = Field(None, max_length=200, description="With `all`: only this group's.")
    type: str | None = Field(None, max_length=500, description="With `all`: only of this type.")

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if self.all == bool(self.places):
            raise ValueError("name places, or all")
        if self.places and (self.group or self.type):
            raise ValueError("a group or a type goes with all")
        return self

    async def carry_out(self, bus: Bus) -> "Redriven":
        """Send them back; raises NotFound where there is none at a place."""
        if self.all:
            return Redriven.of(await redrive_all(bus, Wanted(self.group, self.type)))
        return Redriven.of(await redrive(bus, map(Place.of, self.places)))


class Target(BaseModel):
    """Whom records went back to, on which topic, and how many."""

    group: str
    topic: str
    records: int


class Redriven(BaseModel):
    """What was sent back; `left` letters do not tell their origin, or are not whole."""

    items: list[Target]
    left: int

    @classmethod
    def of(cls, sent: SentBack) -> Self:
        """Return what a redrive has done."""
        items = [
            Target(group=group, topic=topic, records=number)
            for (group, topic), number in sorted(sent.records.items())
        ]
        return cls(items=items, left=sent.left)


@router.post(
    "/dead-letters/redrive",
    summary="Send dead letters back to the groups that gave them up",
    dependencies=[may("dead_letter.redrive")],
)
async def redrive_dead_letters(wanted: Redrive, request: Request) -> Redriven:
    """Publish the records again, each for its own group; a repeat changes nothing."""
    bus: Bus = request.app.state.bus
    return await wanted.carry_out(bus)
