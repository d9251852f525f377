"""An aggregate: the unit that is loaded, decided on and saved whole, with the events that follow.

A decision changes the aggregate and calls `emit`; it does no I/O and reads no clock. The pipeline
(or a command) then stamps what was emitted with its cause: ids, correlation, exercise and time come
from there, so a decision never handles them, and the same cause gives the same events.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rapport.common.errors import PermanentError
from rapport.common.events.envelope import HOP_LIMIT, Event, EventData, sequence
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import Topic

OUTBOX_LIMIT: Final = 200
SEEN_LIMIT: Final = 64


class OutboxFull(PermanentError):
    """A decision emits more than one save may carry, or than there is room for behind others."""


class Due(NamedTuple):
    """Something of an aggregate that falls due: a clock, a lease, a scheduled step."""

    name: str
    at: datetime


class Cause(NamedTuple):
    """Why an aggregate changes: an event, a command or something due.

    `exercise` and `historical` of None mean the aggregate's own, as for commands and due items.
    """

    id: str
    time: datetime
    correlationid: str | None = None
    exercise: str | None = None
    historical: bool | None = None
    hops: int = 0
    traceparent: str | None = None

    @classmethod
    def of(cls, event: Event[EventData], traceparent: str | None = None) -> "Cause":
        """Return the cause that `event` is to what follows from it.

        `traceparent` carries the span of its handling on, where there is one.
        """
        return cls(
            id=event.id,
            time=event.time,
            correlationid=event.correlationid,
            exercise=event.exercise,
            historical=event.historical,
            hops=event.hops + 1,
            traceparent=traceparent or event.traceparent,
        )


class Emission(NamedTuple):
    """What a decision emitted, before it is stamped with its cause."""

    data: EventData
    business_key: str


class Aggregate(BaseModel):
    """Base of everything that a service owns and changes.

    Subclasses declare `COLLECTION`, the `TOPIC` their clock events travel on, their `SCHEMA` number
    (older code that meets a newer one must wait: it raises TemporaryError), the field combinations
    they are found by (`INDEXES`: equality on all fields but the last; equality, range or order on
    the last; a field is any attribute or property whose value is text, number, boolean, datetime or
    None), and the field that lists are in order of (`ORDER`). Where a kind is only ever listed by
    its `INDEXES`, `LISTED` of False spares it one more, for lists of all there is. A number, a text
    or a datetime of an index is looked up, never decoded.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    __slots__ = ("_emissions",)  # a private attribute of pydantic's costs each instance more

    COLLECTION: ClassVar[str]
    TOPIC: ClassVar[Topic | None] = None
    SCHEMA: ClassVar[int] = 1
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = ()
    ORDER: ClassVar[str] = "id"
    LISTED: ClassVar[bool] = True

    id: str
    version: int = 0
    correlation: str = ""
    exercise: str | None = None
    historical: bool = False
    traceparent: str | None = None
    sequences: dict[str, str] = Field(default_factory=dict)
    seen: list[str] = Field(default_factory=list)

    def due(self) -> Iterable[Due]:
        """Name what falls due, each with its time; nothing by default."""
        return ()

    @property
    def next_due(self) -> datetime | None:
        """When the first due item falls due, None when nothing does."""
        return min((item.at for item in self.due()), default=None)

    @property
    def is_leased(self) -> bool:
        """Whether work outside was leased by whoever decided last, to begin after the save."""
        return False

    def emit(self, data: EventData, *, key: str = "") -> None:
        """Record that `data` happened; `key` tells apart events of one type from one cause."""
        self._set_emissions([*self._so_far(), Emission(data, key)])

    @property
    def emitted(self) -> tuple[EventData, ...]:
        """What this decision has emitted so far (for tests of decisions without a pipeline)."""
        return tuple(emission.data for emission in self._so_far())

    def has_seen(self, cause: str) -> bool:
        """Tell whether a command has been applied before."""
        return cause in self.seen

    def remember(self, cause: str) -> None:
        """Keep a command among the last 64 that were applied."""
        self.seen = [*self.seen[1 - SEEN_LIMIT :], cause]

    def collect(
        self, cause: Cause, producer: str, *, first_position: int = 0
    ) -> list[tuple[str, Event[EventData]]]:
        """Return what was emitted since the last call as events, each with its topic's name.

        Raises `PermanentError` over the hop limit (a loop), `OutboxFull` over 200 events for one
        save.
        """
        emitted = self._so_far()
        if not emitted:
            return []
        self._set_emissions(())
        if cause.hops > HOP_LIMIT:
            raise PermanentError(f"more than {HOP_LIMIT} hops: events go in a circle")
        if first_position + len(emitted) > OUTBOX_LIMIT:
            raise OutboxFull(f"more than {OUTBOX_LIMIT} events for one save of {self.COLLECTION}")
        historical = self.historical if cause.historical is None else cause.historical
        events = []
        for position, (data, business_key) in enumerate(emitted, first_position):
            topic = data.TOPIC or self.TOPIC
            if topic is None:
                raise TypeError(f"{data.TYPE} has no topic and {self.COLLECTION} names none")
            stamped = Event(
                id=derived_id(cause.id, producer, data.TYPE, self.id, business_key),
                source=f"/rapport/{producer}",
                type=data.TYPE,
                subject=self.id,
                time=cause.time,
                data=data,
                partitionkey=self.id if data.KEY is None else getattr(data, data.KEY),
                correlationid=self.correlation or cause.correlationid or cause.id,
                causationid=cause.id,
                sequence=sequence(self.version + 1, position),
                exercise=self.exercise if self.exercise is not None else cause.exercise,
                historical=historical,
                hops=cause.hops,
                traceparent=cause.traceparent,
            )
            events.append((topic.name, stamped))
        return events

    def _so_far(self) -> Sequence[Emission]:
        try:
            emissions: Sequence[Emission] = object.__getattribute__(self, "_emissions")
        except AttributeError:
            return ()
        return emissions

    def _set_emissions(self, emissions: Sequence[Emission]) -> None:
        object.__setattr__(self, "_emissions", emissions)


class Fact(BaseModel):
    """Something that happened, inserted once and never changed; `id` makes a repeat a no-op.

    Facts hold no personal data. `FIELDS` are what they are found, counted and summed by; `INDEXES`,
    `ORDER` and `LISTED` are as for aggregates.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    COLLECTION: ClassVar[str]
    FIELDS: ClassVar[tuple[str, ...]] = ()
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = ()
    ORDER: ClassVar[str] = "id"
    LISTED: ClassVar[bool] = True

    id: str
