"""The pipeline: one partition's batch, from records to saved aggregates and dead letters.

Decode, prepare once per handler, group by aggregate, apply, insert facts, dead-letter what failed
for good; returning means that the batch is done. What other systems' records bring is published
first. Trouble of our own (TemporaryError) is waited out here, with growing pauses, so handlers and
adapters know nothing of retries.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any, Final

import structlog

from rapport.common import tracing
from rapport.common.aggregate import Aggregate, Cause, Fact
from rapport.common.bus.port import HEADERS_LIMIT, MESSAGE_LIMIT, Bus, headers_size
from rapport.common.bus.rests import rest
from rapport.common.clock import Clock
from rapport.common.engine import Engine, Step
from rapport.common.errors import PermanentError, TemporaryError, pause_after, reason_of
from rapport.common.events import dead_letters
from rapport.common.events.codec import (
    Headers,
    Message,
    Record,
    Undecodable,
    decode,
    event_type,
    traceparent,
)
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.topics import DEAD_LETTERS
from rapport.common.handling import EventHandler, FactHandler, ForeignHandler
from rapport.common.telemetry import BATCH_SECONDS, DEAD_LETTERED, HANDLED, RETRIES

PREPARE_TRIES: Final = 5
REASON_LIMIT: Final = 1_000
PUBLISHED_AT_ONCE: Final = 1_000

log = structlog.get_logger(__name__)

_Work = tuple[Record, Event[EventData]]
_Steps = dict[type[Aggregate], dict[str, list[Step]]]
_Given = tuple[Any, ...] | Exception
_Prepared = EventHandler[Any, Any] | FactHandler[Any]


class Pipeline:
    """Handles batches of records for one service, which is also the name of its consumer group."""

    def __init__(
        self,
        engine: Engine,
        bus: Bus,
        clock: Clock,
        handlers: Sequence[EventHandler[Any, Any]],
        facts: Sequence[FactHandler[Any]],
        resources: Any,
        *,
        foreign: Sequence[ForeignHandler] = (),
        system: str = "embedded",
    ) -> None:
        self.group = engine.service
        self._system = system
        self._engine = engine
        self._bus = bus
        self._clock = clock
        self._resources = resources
        self._handlers: dict[str, list[EventHandler[Any, Any]]] = defaultdict(list)
        self._facts: dict[str, list[FactHandler[Any]]] = defaultdict(list)
        for handler in handlers:
            self._add(handler)
        for fact in facts:
            for declared in fact.events:
                self._facts[declared.TYPE].append(fact)
        self._foreign = {handler.topic.name: handler for handler in foreign}
        self.types = frozenset(self._handlers) | frozenset(self._facts)

    async def handle(self, records: Sequence[Record]) -> None:
        """Do all that these records ask for; only cancellation gets out."""
        started = perf_counter()
        with rest():
            await self._engine.relay.room()
        tries = 0
        while True:
            try:
                await self._attempt(records)
            except Exception as error:
                tries += 1
                RETRIES.labels(self.group).inc()
                pause = pause_after(error, tries)
                log.warning(
                    "batch.retry",
                    group=self.group,
                    tries=tries,
                    pause=pause,
                    reason=reason_of(error),
                    exc_info=not isinstance(error, TemporaryError),
                )
                with rest():
                    await self._clock.sleep(pause)
            else:
                break
        BATCH_SECONDS.labels(self.group).observe(perf_counter() - started)

    async def _attempt(self, records: Sequence[Record]) -> None:
        with tracing.processing(self.group, self._system, records) as spans:
            await self._handle(records, spans)

    async def _handle(self, records: Sequence[Record], spans: tracing.Batch | None) -> None:
        dead: list[Message] = []
        await self._take_in(records, dead, spans)
        work = list(self._read(records, dead))
        if not work and not dead:  # as with most batches: a topic has events of many kinds
            return
        steps, owners = await self._plan(work, dead, spans)
        for kind, by_id in steps.items():
            try:
                await self._engine.apply(kind, by_id)
            finally:
                self._begin_outside(by_id)
            for step in chain.from_iterable(by_id.values()):
                if step.failure is not None:
                    dead += self._give_up(owners[id(step)], step.failure)
                elif spans is not None and step.leads_on:
                    spans.leads_on(owners[id(step)])
        await self._insert_facts(work, dead)
        if dead:
            await self._bus.publish(dead)
            for letter in dead:
                DEAD_LETTERED.labels(self.group, _cause_of(letter)).inc()
        for type, number in Counter(event.type for _, event in work).items():
            HANDLED.labels(self.group, type).inc(number)

    async def _take_in(
        self, records: Sequence[Record], dead: list[Message], spans: tracing.Batch | None
    ) -> None:
        """Publish what the records of other systems bring, so many messages at a time."""
        brought: list[Message] = []
        for record in records:
            if record.topic not in self._foreign:
                continue
            if dead_letters.redriven_for(record.headers) in (None, self.group):
                brought += self._brought(record, dead, spans)
                HANDLED.labels(self.group, record.topic).inc()
                await asyncio.sleep(0)  # one may have much in it: others get their turn
            if len(brought) >= PUBLISHED_AT_ONCE:
                await self._bus.publish(brought)
                brought = []
        if brought:
            await self._bus.publish(brought)

    def _brought(
        self, record: Record, dead: list[Message], spans: tracing.Batch | None
    ) -> list[Message]:
        """Return what a foreign record brings before it fails, if it does."""
        told = record
        if spans is not None:
            told = _carrying(record, spans.traceparent(record, traceparent(record.headers)))
        brought: list[Message] = []
        try:
            for message in self._foreign[record.topic](told, self._resources):
                brought.append(message)
        except TemporaryError:
            raise
        except Exception as failure:
            dead += self._give_up(record, failure)
        else:
            if spans is not None and brought:
                spans.leads_on(record)
        return brought

    def _add(self, handler: EventHandler[Any, Any]) -> None:
        known = self._handlers[handler.event.TYPE]
        if any(other.changes is handler.changes for other in known):
            raise TypeError(
                f"{self.group}: two handlers of {handler.event.TYPE} change "
                f"{handler.changes.__name__}"
            )
        known.append(handler)

    def _read(self, records: Sequence[Record], dead: list[Message]) -> Iterable[_Work]:
        """Decode what concerns this service; what cannot be read is dead-lettered."""
        for record in records:
            if record.topic in self._foreign:
                continue
            if record.topic == DEAD_LETTERS.name:
                yield record, dead_letters.told(record)
                continue
            type = event_type(record.headers)
            if type is not None and type not in self.types:
                continue
            try:
                event = decode(record)
            except Undecodable as problem:
                if dead_letters.redriven_for(record.headers) in (None, self.group):
                    dead += self._give_up(record, problem)
            else:
                if event.redrive in (None, self.group):
                    yield record, event

    async def _plan(
        self, work: Sequence[_Work], dead: list[Message], spans: tracing.Batch | None
    ) -> tuple[_Steps, dict[int, Record]]:
        """Turn events into steps, grouped by aggregate and in order, with what they are given."""
        given = await self._prepare(work, self._handlers)
        steps: _Steps = defaultdict(lambda: defaultdict(list))
        owners: dict[int, Record] = {}
        for record, event in work:
            for handler in self._handlers.get(event.type, ()):
                try:
                    key = handler.key(event)
                    prepared = _prepared(given, handler, event)
                except Exception as failure:
                    dead += self._give_up(record, failure)
                    continue
                if key is not None:
                    decide = partial(_call, handler, event, prepared)
                    carried = spans.traceparent(record, event.traceparent) if spans else None
                    step = Step(Cause.of(event, carried), decide, event, then=handler.then)
                    owners[id(step)] = record
                    steps[handler.changes][key].append(step)
        return steps, owners

    async def _prepare(
        self, work: Sequence[_Work], declared: Mapping[str, Sequence[_Prepared]]
    ) -> dict[tuple[int, int], _Given]:
        """Call each handler's `prepare` once with all its events; if that fails, for each alone."""
        events: dict[int, list[Event[EventData]]] = defaultdict(list)
        handlers: dict[int, _Prepared] = {}
        for _, event in work:
            for handler in declared.get(event.type, ()):
                if handler.prepare is not None:
                    handlers[id(handler)] = handler
                    events[id(handler)].append(event)
        given: dict[tuple[int, int], _Given] = {}
        for name, handler in handlers.items():
            together = await self._given(handler, events[name], PREPARE_TRIES)
            for event in events[name]:
                given[name, id(event)] = (
                    await self._given(handler, [event], 1)
                    if isinstance(together, Exception)
                    else together
                )
        return given

    async def _given(
        self, handler: _Prepared, events: Sequence[Event[EventData]], most: int
    ) -> _Given:
        """Return what `prepare` gives for these events, or how it failed `most` times."""
        assert handler.prepare is not None
        for tries in range(1, most + 1):
            try:
                return (await handler.prepare(events, self._resources),)
            except TemporaryError:
                raise
            except Exception as error:
                log.warning("prepare.failed", group=self.group, tries=tries, exc_info=True)
                if tries == most or isinstance(error, PermanentError):
                    return error
                await self._clock.sleep(0.05 * 2**tries)
        raise AssertionError

    def _begin_outside(self, by_id: Mapping[str, Sequence[Step]]) -> None:
        """Begin what was leased, whatever went wrong since: it would wait for its lease to end."""
        for step in chain.from_iterable(by_id.values()):
            if step.begins and step.then is not None and step.result is not None:
                self._engine.begin(step.then, step.result)

    async def _insert_facts(self, work: Sequence[_Work], dead: list[Message]) -> None:
        """Insert what events are remembered as: at once or, if that is refused, event by event."""
        given = await self._prepare(work, self._facts)
        facts: list[tuple[Record, list[Fact]]] = []
        for record, event in work:
            for handler in self._facts.get(event.type, ()):
                try:
                    prepared = _prepared(given, handler, event)
                    facts.append((record, list(handler(event, *prepared))))
                except Exception as failure:
                    dead += self._give_up(record, failure)
        insert = self._engine.store.insert_facts
        try:
            if facts:
                await insert([fact for _, some in facts for fact in some])
        except PermanentError:
            for record, some in facts:
                try:
                    await insert(some)
                except PermanentError as refusal:
                    dead += self._give_up(record, refusal)

    def _give_up(self, record: Record, failure: Exception) -> list[Message]:
        """Return the dead letter of a record; what is one already is not written again."""
        cause = type(failure).__name__
        reason = reason_of(failure)[:REASON_LIMIT]
        with tracing.failing(record, cause):
            log.error(
                "event.dead_lettered",
                group=self.group,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                event_type=event_type(record.headers),
                cause=cause,
                reason=reason,
            )
        if record.topic == DEAD_LETTERS.name:
            return []
        details = {
            "original-topic": record.topic,
            "original-partition": str(record.partition),
            "original-offset": str(record.offset),
            "original-timestamp": str(record.timestamp),
            "original-consumer-group": self.group,
            "exception-fqcn": f"{type(failure).__module__}.{cause}",
            "exception-message": reason,
        }
        return [_letter(record, details)]


def _letter(record: Record, details: Mapping[str, str]) -> Message:
    """Return a record as it was, under `details`, which name what there is no room for, too."""
    key, value = record.key, record.value
    own = [item for item in record.headers if not item[0].startswith(dead_letters.PREFIX)]
    left_out = []
    if (size := _size(key, value)) > MESSAGE_LIMIT:
        left_out.append(f"key and value, {size} bytes")
        key = value = None
    if headers_size([*_told(details, left_out), *own]) > HEADERS_LIMIT:
        left_out.append(f"headers, some of {headers_size(own)} bytes")
    headers = tuple(_fitting([*_told(details, left_out), *own]))
    return Message(DEAD_LETTERS.name, key, value, headers)


def _told(details: Mapping[str, str], left_out: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter that are not its record's."""
    if left_out:
        details = {**details, "left-out": "; ".join(left_out)}
    return [
        (f"{dead_letters.PREFIX}{name}", text.encode(errors="replace"))
        for name, text in details.items()
    ]


def _cause_of(letter: Message) -> str:
    """Return what kind of error a dead letter names, without its module."""
    named = dict(letter.headers)[f"{dead_letters.PREFIX}exception-fqcn"]
    return named.decode().rpartition(".")[2]


def _size(key: str | None, value: bytes | None) -> int:
    return len((key or "").encode(errors="replace")) + len(value or b"")


def _carrying(record: Record, traceparent: str) -> Record:
    """Return the record with another trace context."""
    others = [item for item in record.headers if item[0] != "traceparent"]
    return record._replace(headers=(*others, ("traceparent", traceparent.encode())))


def _fitting(headers: Headers) -> Iterator[tuple[str, bytes]]:
    """Yield the headers that a message has room for, those in front first."""
    room = HEADERS_LIMIT
    for name, value in headers:
        size = len(name.encode()) + len(value)
        if size <= room:
            room -= size
            yield name, value


def _prepared(
    given: Mapping[tuple[int, int], _Given], handler: _Prepared, event: Event[EventData]
) -> tuple[Any, ...]:
    """Return what a handler is given for an event; raises as its `prepare` did."""
    prepared = given.get((id(handler), id(event)), ())
    if isinstance(prepared, Exception):
        raise prepared
    return prepared


def _call(
    handler: EventHandler[Any, Any],
    event: Event[EventData],
    given: tuple[Any, ...],
    aggregate: Aggregate | None,
) -> Aggregate | None:
    decided: Aggregate | None = handler.decide(aggregate, event, *given)
    return decided
