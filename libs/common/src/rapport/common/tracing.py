"""Traces: one story is one trace, from the request that begins it to the message that leaves.

What goes on elsewhere or later carries the span that it follows from as a W3C `traceparent`: events
in their envelope, aggregates in their state, so that what falls due belongs to the story too. The
spans are few: a request; an event that leads on (to further events, or to something due) or fails;
the publishing of an outbox; a message that is sent. A batch of events has a span of its own, which
links to theirs.

Traces are off unless an OTLP endpoint is named; then nothing is made and nothing added. A span is
told once, when it is over, from the parts of the OpenTelemetry SDK (sampler, ids, processor,
exporter): a live span of the SDK costs three times as much, and there is one for most events.

Spans name kinds of things, members of enumerations and ids of events: no path, no query, no name of
anybody, no words of an error.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Thread
from time import time_ns
from typing import Any, Final

from opentelemetry import context as current
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from rapport.common.errors import Invalid
from rapport.common.events import codec
from rapport.common.events.codec import Headers, Message, Record

Attribute = str | int

LINKS_LIMIT: Final = 128
WORDS_LIMIT: Final = 200

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TRACEPARENT: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_UNSET: Final = Status()


@dataclass(frozen=True, slots=True)
class _Tools:
    """What spans are made with, while traces are on."""

    provider: TracerProvider
    processor: SpanProcessor


_tools: _Tools | None = None


def configure() -> None:
    """Trace from now on if the environment (`OTEL_*`) names a collector that takes OTLP over HTTP.

    Raises Invalid for an exporter or a protocol that we do not have.
    """
    if not _is_wanted():
        return
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from rapport.common.otlp import Exporter

    use(BatchSpanProcessor(Exporter()))


def use(processor: SpanProcessor) -> None:
    """Trace from now on, and let `processor` have each span that is sampled."""
    global _tools
    shutdown()
    _resource.cache_clear()
    _tools = _Tools(TracerProvider(shutdown_on_exit=False), processor)


def shutdown(patience: float = 5.0) -> None:
    """Trace no more; what has been told has `patience` seconds to leave."""
    global _tools
    tools, _tools = _tools, None
    if tools is not None:
        last = Thread(target=tools.processor.shutdown, name="last traces", daemon=True)
        last.start()
        last.join(patience)


def is_on() -> bool:
    """Tell whether traces are made."""
    return _tools is not None


def traceparent() -> str | None:
    """Return what carries the current span on to events and commands; None without one."""
    if _tools is None:
        return None
    context = get_current_span().get_span_context()
    return _written(context) if context.is_valid else None


def continued(traceparent: str | None) -> AbstractContextManager[None]:
    """Let what happens inside follow from the span that `traceparent` carries."""
    context = _read(traceparent) if _tools is not None else None
    return nullcontext() if context is None else _within(context)


def identify(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the ids of the current span to a log line (a structlog processor)."""
    if _tools is not None:
        context = get_current_span().get_span_context()
        if context.is_valid:
            entry["trace_id"] = f"{context.trace_id:032x}"
            entry["span_id"] = f"{context.span_id:016x}"
    return entry


class Span:
    """One piece of work of a service, from now on until `end`."""

    __slots__ = ("_began", "_kind", "_name", "_parent", "_service", "_tools", "context")

    def __init__(
        self,
        tools: _Tools,
        service: str,
        kind: SpanKind,
        name: str,
        parent: SpanContext | None,
        began: int | None = None,
    ) -> None:
        self._tools = tools
        self._service = service
        self._kind = kind
        self._name = name
        self._parent = parent
        self._began = began or time_ns()
        self.context = _new_context(tools.provider, kind, name, parent)

    def end(
        self,
        attributes: Mapping[str, Attribute],
        *,
        name: str | None = None,
        links: Sequence[SpanContext] = (),
        error: str | None = None,
    ) -> None:
        """Tell of it; `error` is a word of a bounded list for what went wrong."""
        if not self.context.trace_flags.sampled:
            return
        status = _UNSET
        if error is not None:
            status = Status(StatusCode.ERROR)
            attributes = {**attributes, "error.type": error}
        self._tools.processor.on_end(
            ReadableSpan(
                name or self._name,
                self.context,
                self._parent,
                _resource(self._service),
                attributes,
                links=[Link(context) for context in links[:LINKS_LIMIT]],
                kind=self._kind,
                status=status,
                start_time=self._began,
                end_time=time_ns(),
                instrumentation_scope=_scope(self._service),
            )
        )


class ServedRequest:
    """The span of an HTTP request, current until `end`."""

    def __init__(self, tools: _Tools, service: str, method: str, scope: Mapping[str, Any]) -> None:
        self._method = method
        self._scheme = scope.get("scheme", "http")
        self._verb = "HTTP" if method == "_OTHER" else method
        parent = _read_header(scope["headers"])
        self._span = Span(tools, service, SpanKind.SERVER, self._verb, parent)
        self._links: list[SpanContext] = []
        self._before = current.attach(_context_of(self._span.context)), _served.set(self)

    def end(self, status: int, route: str | None) -> None:
        """Tell of it, with the template of its path if it has one."""
        current.detach(self._before[0])
        _served.reset(self._before[1])
        attributes: dict[str, Attribute] = {
            "http.request.method": self._method,
            "url.scheme": self._scheme,
            "http.response.status_code": status,
        }
        if route is not None:
            attributes["http.route"] = route
        name = self._verb if route is None else f"{self._verb} {route}"
        error = str(status) if status >= 500 else None
        self._span.end(attributes, name=name, links=self._links, error=error)

    def link(self, other: SpanContext) -> None:
        """Note that it goes on with another story, unless that is its own."""
        if other.trace_id != self._span.context.trace_id:
            self._links.append(other)


_served: ContextVar[ServedRequest | None] = ContextVar("served", default=None)


def begin_request(service: str, method: str, scope: Mapping[str, Any]) -> ServedRequest | None:
    """Begin the span of a request; the caller's `traceparent` is its parent. None while off.

    `method` is one of HTTP's own, or `_OTHER`.
    """
    return None if _tools is None else ServedRequest(_tools, service, method, scope)


def goes_on_with(traceparent: str | None) -> None:
    """Link the current request to another story: that of what it changes."""
    request, other = _served.get(), _read(traceparent)
    if request is not None and other is not None:
        request.link(other)


class Batch:
    """The spans of one batch: of each event that leads on or fails, and of the whole."""

    def __init__(self, tools: _Tools, service: str, system: str, records: Sequence[Record]) -> None:
        self._tools = tools
        self._service = service
        self._system = system
        self._records = records
        self._name = f"process {records[0].topic}"
        self._began = time_ns()
        self._spans: dict[int, Span] = {}
        self._told: dict[int, tuple[Record, str | None]] = {}

    def traceparent(self, record: Record, before: str | None) -> str:
        """Return what carries the span of a record's event on to what follows from it."""
        return _written(self.span(record, before).context)

    def span(self, record: Record, before: str | None) -> Span:
        """Return the span of a record's event, which `before` carried here."""
        span = self._spans.get(id(record))
        if span is None:
            span = self._begin(_read(before))
            self._spans[id(record)] = span
        return span

    def _begin(self, parent: SpanContext | None) -> Span:
        kind = SpanKind.CONSUMER
        return Span(self._tools, self._service, kind, self._name, parent, self._began)

    def leads_on(self, record: Record) -> None:
        """Note that a record's event has led to something."""
        self._told.setdefault(id(record), (record, None))

    def fails(self, record: Record, error: str) -> None:
        """Note that a record has failed for good."""
        self._told[id(record)] = (record, error)

    def end(self) -> None:
        """Tell of all that there is to tell."""
        if not self._told:
            return
        first = self._records[0]
        shared: dict[str, Attribute] = {
            "messaging.system": self._system,
            "messaging.operation.name": "process",
            "messaging.destination.name": first.topic,
            "messaging.destination.partition.id": str(first.partition),
            "messaging.consumer.group.name": self._service,
        }
        for name, (record, error) in self._told.items():
            own = {"messaging.kafka.offset": record.offset} | _event_attributes(record.headers)
            self._spans[name].end(shared | own, error=error)
        if len(self._told) > 1:
            self._begin(None).end(
                shared | {"messaging.batch.message_count": len(self._records)},
                links=[self._spans[name].context for name in self._told],
            )


_batch: ContextVar[Batch | None] = ContextVar("batch", default=None)


@contextmanager
def _processing(batch: Batch) -> Iterator[Batch]:
    before = _batch.set(batch)
    try:
        yield batch
    finally:
        _batch.reset(before)
        batch.end()


def processing(
    service: str, system: str, records: Sequence[Record]
) -> AbstractContextManager[Batch | None]:
    """Give the spans of a batch while the block handles it; None while off."""
    if _tools is None:
        return nullcontext()
    return _processing(Batch(_tools, service, system, records))


def failing(record: Record, error: str) -> AbstractContextManager[None]:
    """Note that a record has failed for good; what happens inside belongs to its span."""
    batch = _batch.get()
    if batch is None:
        return nullcontext()
    batch.fails(record, error)
    return _within(batch.span(record, codec.traceparent(record.headers)).context)


@contextmanager
def publishing(service: str, system: str, messages: Sequence[Message]) -> Iterator[None]:
    """Trace the publishing of outboxes: as part of a story if they hold only one, else beside it.

    A span beside the stories links to what it publishes.
    """
    if _tools is None:
        yield
        return
    carried = dict.fromkeys(codec.traceparent(message.headers) for message in messages)
    origins = [context for text in carried if (context := _read(text)) is not None]
    is_one_story = len({context.trace_id for context in origins}) == 1
    parent = origins[0] if is_one_story else None
    span = Span(_tools, service, SpanKind.PRODUCER, "publish", parent)
    attributes: dict[str, Attribute] = {
        "messaging.system": system,
        "messaging.operation.name": "publish",
        "messaging.batch.message_count": len(messages),
    }
    error = None
    try:
        yield
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        span.end(attributes, links=() if is_one_story else origins, error=error)


@dataclass(slots=True)
class Call:
    """A call to the outside world; `error` is to say what went wrong, in a word of a list."""

    error: str | None = None


@contextmanager
def calling(service: str, name: str, **attributes: str) -> Iterator[Call]:
    """Trace a call to the outside world, as part of the current story."""
    call = Call()
    if _tools is None:
        yield call
        return
    parent = get_current_span().get_span_context()
    span = Span(_tools, service, SpanKind.CLIENT, name, parent if parent.is_valid else None)
    with _within(span.context):
        try:
            yield call
        except BaseException as failure:
            call.error = type(failure).__name__
            raise
        finally:
            span.end(
                {f"rapport.{key}": value for key, value in attributes.items()}, error=call.error
            )


def _is_wanted() -> bool:
    """Tell whether the environment asks for traces; raises Invalid for what we cannot do."""
    get = os.environ.get
    if not any(get(name) for name in _ENDPOINTS) or get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter == "none":
        return False
    if exporter != "otlp":
        raise Invalid("OTEL_TRACES_EXPORTER: expected otlp or none")
    protocol = next((found for name in _PROTOCOLS if (found := get(name))), "http/protobuf")
    if protocol != "http/protobuf":
        raise Invalid("OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf")
    return True


def _new_context(
    provider: TracerProvider, kind: SpanKind, name: str, parent: SpanContext | None
) -> SpanContext:
    """Return the ids of a span that begins, and whether it is sampled."""
    ids = provider.id_generator
    if parent is not None and isinstance(provider.sampler, ParentBased):
        return SpanContext(parent.trace_id, ids.generate_span_id(), False, parent.trace_flags)
    before = None if parent is None else _context_of(parent)
    trace = ids.generate_trace_id() if parent is None else parent.trace_id
    decided = provider.sampler.should_sample(before, trace, name, kind, None, ())
    flags = (
        TraceFlags.SAMPLED if decided.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
    )
    return SpanContext(trace, ids.generate_span_id(), False, TraceFlags(flags))


def _context_of(span: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(span))


@contextmanager
def _within(span: SpanContext) -> Iterator[None]:
    before = current.attach(_context_of(span))
    try:
        yield
    finally:
        current.detach(before)


def _written(span: SpanContext) -> str:
    return "00-%032x-%016x-%02x" % (span.trace_id, span.span_id, span.trace_flags)  # noqa: UP031


@lru_cache(1024)
def _read(traceparent: str | None) -> SpanContext | None:
    """Return the span that a `traceparent` names, None where it is none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    trace, span, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return context if context.is_valid else None


def _read_header(headers: Iterable[tuple[bytes, bytes]]) -> SpanContext | None:
    for name, value in headers:
        if name == b"traceparent":
            return _read(value.decode("latin-1"))
    return None


def _event_attributes(headers: Headers) -> dict[str, Attribute]:
    """Name an event; the ids of other systems may tell of somebody."""
    first = codec.pack(headers).first
    type, id, source = first("ce_type"), first("ce_id"), first("ce_source")
    attributes: dict[str, Attribute] = {}
    if type is not None:
        attributes["cloudevents.event_type"] = type.decode(errors="replace")[:WORDS_LIMIT]
    if id is not None and source is not None and source.startswith(b"/rapport/"):
        attributes["cloudevents.event_id"] = id.decode(errors="replace")[:WORDS_LIMIT]
    return attributes


@cache
def _resource(service: str) -> Resource:
    """Return who tells of a span: the service, unless the environment has another name for it."""
    named = Resource.create({SERVICE_NAME: f"rapport-{service}"})
    return named.merge(OTELResourceDetector().detect())


@cache
def _scope(service: str) -> InstrumentationScope:
    return InstrumentationScope(f"rapport.{service}")
