"""What an event is: CloudEvents 1.0 attributes around frozen, typed data.

An event's data is a pydantic model declared with `@event`, which names its type, its topic and the
field that must stay in order (the partition key). The declaration enters the catalogue, from which
the codec, the generated schemas and the documentation are made.

An event's `time` is when what it tells of happened, as far as the story is concerned: a request's
arrival, a clock's due time, a delivery. What follows from an event without a decision of the
outside world carries that event's time, so that working through a backlog, or through it again,
gives the same events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    RootModel,
)
from pydantic_core import CoreSchema

from rapport.common.events.topics import Topic

HOP_LIMIT: Final = 16

_LEAVES: Final = frozenset({str, int, float, bool, datetime, type(None)})


def _utc(value: datetime) -> datetime:
    try:
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no moment that can be told in UTC") from None


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
"""A moment: an aware datetime, turned to UTC on the way in; a naive one is refused."""


@dataclass(frozen=True, slots=True)
class Personal:
    """Marks a field that tells about a person; `of` names whose it is ("contact", "author").

    Marked fields never show in logs, metrics, error texts or dead-letter views.
    """

    of: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say so in generated schemas, as `x-personal`."""
        return handler(schema) | {"x-personal": self.of}


class Value(BaseModel):
    """A frozen part of an event's data; unknown fields of newer writers are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class EventData(Value):
    """The data of one event type; declare subclasses with `@event`."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[Topic | None]
    KEY: ClassVar[str | None]


Data = TypeVar("Data", bound=EventData, covariant=True)
Declared = TypeVar("Declared", bound=type[EventData])

CATALOGUE: Final[dict[str, type[EventData]]] = {}
"""Every event type that Rapport writes or reads, by its CloudEvents type."""


def event(
    type: str, topic: Topic | None = None, *, key: str | None = None
) -> Callable[[Declared], Declared]:
    """Declare an event type and enter it in the catalogue.

    `topic` None means that the event travels on the topic of the aggregate that emits it. `key`
    names the field of the data that must stay in order; None means the emitting aggregate's id.
    """

    def declare(data: Declared) -> Declared:
        if type in CATALOGUE:
            raise TypeError(f"event type {type} is declared twice")
        data.TYPE, data.TOPIC, data.KEY = type, topic, key
        CATALOGUE[type] = data
        return data

    return declare


class Event(NamedTuple, Generic[Data]):
    """One event: the CloudEvents attributes and extensions of DESIGN, and its data.

    `sequence` is the emitting aggregate's version and the event's place in it, as text that sorts;
    None for events of no aggregate. `hops` counts the events between this one and the outside
    world. `redrive` names the consumer group that gets it once more from the dead letters.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: Data
    partitionkey: str
    correlationid: str
    causationid: str | None = None
    sequence: str | None = None
    exercise: str | None = None
    historical: bool = False
    hops: int = 0
    redrive: str | None = None
    traceparent: str | None = None


def sequence(version: int, position: int) -> str:
    """Return the sortable text of an aggregate's version and a position (0-999) in it."""
    return f"{version:010d}.{position:03d}"


@cache
def personal_fields(model: type[BaseModel]) -> frozenset[str]:
    """Name the fields of `model` that are marked `Personal`."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if any(isinstance(mark, Personal) for mark in field.metadata)
    )


def without_personal(model: BaseModel) -> dict[str, Any]:
    """Return the model as JSON-ready values with every marked field, at any depth, left out.

    A field is marked by what its annotation begins with, `Annotated[..., Personal(...)]`: a mark
    further inside is not seen (a test keeps the contract free of such).
    """
    dumped = model.model_dump(mode="json", exclude=set(personal_fields(type(model))))
    for name in dumped:
        dumped[name] = _hide(getattr(model, name), dumped[name])
    return dumped


def _hide(value: Any, dumped: Any) -> Any:
    if type(value) in _LEAVES:
        return dumped
    if isinstance(value, RootModel):
        return _hide(value.root, dumped)
    if isinstance(value, BaseModel):
        return without_personal(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_hide(item, shown) for item, shown in zip(value, dumped, strict=True)]
    if isinstance(value, dict):
        return {
            str(key): _hide(item, shown)
            for (key, item), shown in zip(value.items(), dumped.values(), strict=True)
        }
    return dumped
