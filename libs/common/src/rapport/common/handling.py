"""What a service's author writes: plain functions, and four decorators that say when they run.

`@on` declares a decision: an event changes one aggregate. `@due` declares what happens when
something of an aggregate falls due. `@fact` declares what an event is remembered as. `@foreign`
declares what becomes of other systems' records, which are no events of ours yet. None of them does
I/O: `prepare` reads what a whole batch needs beforehand, `then` acts on the outside world
afterwards. Loading, folding, saving, publishing and retrying are the engine's, written once.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rapport.common.aggregate import Aggregate, Due, Fact
from rapport.common.events.codec import Message, Record
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.topics import Topic

A = TypeVar("A", bound=Aggregate)
D = TypeVar("D", bound=EventData)

Prepare = Callable[[Sequence[Any], Any], Awaitable[Any]]
"""Gets a batch's events (or aggregates with due items) and the service's resources; returns what is
given to each decision. At most one bulk read; where that fails, each item is tried alone."""


Then = Callable[[Any, Any], Awaitable[None]]
"""Gets an aggregate as it was saved and the service's resources, and acts on the world outside."""


@dataclass(frozen=True)
class EventHandler(Generic[D, A]):
    """A decision on an event; calling it calls the decision, as tests do."""

    event: type[D]
    changes: type[A]
    key: Callable[[Event[D]], str | None]
    prepare: Prepare | None
    then: Then | None
    decide: Callable[..., A | None]

    def __call__(self, aggregate: A | None, event: Event[D], *given: Any) -> A | None:
        return self.decide(aggregate, event, *given)


@dataclass(frozen=True)
class DueHandler(Generic[A]):
    """A decision on a due item; calling it calls the decision."""

    changes: type[A]
    prepare: Prepare | None
    then: Then | None
    decide: Callable[..., A | None]

    def __call__(self, aggregate: A, item: Due, *given: Any) -> A | None:
        return self.decide(aggregate, item, *given)


@dataclass(frozen=True)
class FactHandler(Generic[D]):
    """What an event is remembered as."""

    events: tuple[type[D], ...]
    prepare: Prepare | None
    facts: Callable[..., Iterable[Fact]]

    def __call__(self, event: Event[D], *given: Any) -> Iterable[Fact]:
        return self.facts(event, *given)


@dataclass(frozen=True)
class ForeignHandler:
    """What becomes of the records of a topic that other systems write to."""

    topic: Topic
    messages: Callable[[Record, Any], Iterable[Message]]

    def __call__(self, record: Record, resources: Any) -> Iterable[Message]:
        return self.messages(record, resources)


def on(
    event: type[D],
    *,
    changes: type[A],
    key: Callable[[Event[D]], str | None],
    prepare: Prepare | None = None,
    then: Then | None = None,
) -> Callable[[Callable[..., A | None]], EventHandler[D, A]]:
    """Declare a decision: `decide(aggregate | None, event[, given])` gives the aggregate, or None.

    None means no change. `key` names the aggregate's id; None: the event is of no concern. `then`
    is as for due items, for work that need not wait for the scan: the decision leases it
    (`is_leased` of the aggregate) where `engine.room` says that there is room.
    """
    return lambda decide: EventHandler(event, changes, key, prepare, then, decide)


def due(
    changes: type[A],
    *,
    prepare: Prepare | None = None,
    then: Then | None = None,
) -> Callable[[Callable[..., A | None]], DueHandler[A]]:
    """Declare what happens when something falls due: `decide(aggregate, due[, given])`.

    `then(aggregate, resources)` runs after the save, for work outside (a message to send). It may
    run again if the process dies in between, so the decision leases the work first.
    """
    return lambda decide: DueHandler(changes, prepare, then, decide)


def fact(
    *events: type[D], prepare: Prepare | None = None
) -> Callable[[Callable[..., Iterable[Fact]]], FactHandler[D]]:
    """Declare what events are remembered as: `facts(event[, given])`, with derived ids.

    `prepare` is called just before the facts are inserted, after all that the events change.
    """
    return lambda facts: FactHandler(events, prepare, facts)


def foreign(
    topic: Topic,
) -> Callable[[Callable[[Record, Any], Iterable[Message]]], ForeignHandler]:
    """Declare what becomes of a topic's records: `messages(record, resources)` to publish.

    Their ids are derived, so that a record which comes again publishes nothing new. What it raises
    sends the record to the dead letters; the messages that came before are published all the same.
    """
    return lambda messages: ForeignHandler(topic, messages)


Declared = EventHandler[Any, Any] | DueHandler[Any] | FactHandler[Any] | ForeignHandler
