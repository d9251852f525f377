"""The line that several benchmarks share: a pipeline that stores nothing.

It decodes each record, derives the id of what follows from it, and publishes that.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rapport.common.bus.pipeline import Pipeline
from rapport.common.bus.port import Bus
from rapport.common.clock import SystemClock
from rapport.common.engine import Engine
from rapport.common.events.codec import Message, Record, decode, encode
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import Topic
from rapport.common.handling import foreign
from rapport.common.store.outbox import Relay
from rapport.common.store.sqlite import SqliteStore


def following(record: Record, out: str) -> Message:
    """Return what follows from a record, for the topic `out`."""
    event = decode(record)
    id = derived_id(event.id, "bench", event.type, event.subject, "followed")
    return encode(event._replace(id=id, causationid=event.id), out)


def pipeline(bus: Bus, topic: str, follow: Callable[[Record], Message]) -> Pipeline:
    """Return a service's pipeline that publishes at once what follows from a topic's records."""

    @foreign(Topic(topic, writer="bench"))
    def brought(record: Record, resources: Any) -> Iterator[Message]:
        yield follow(record)

    clock, store = SystemClock(), SqliteStore(None, ())
    engine = Engine("bench", store, Relay(bus, store, (), clock), clock)
    return Pipeline(engine, bus, clock, (), (), None, foreign=[brought])
