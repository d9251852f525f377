"""Spans as OTLP's protobuf, written directly.

The OpenTelemetry SDK makes an object of each field first, which costs more than all else that a
span does. Spans of ours have few kinds of fields: attributes that are text, whole numbers or truth
values, links without attributes, no events. Field numbers are those of opentelemetry-proto's
`trace.proto`, the bytes those of protobuf's encoding guide; the tests hold both to what the SDK
writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, Status

_REMOTE_IS_TOLD: Final = 0x100
_REMOTE: Final = 0x200


class Exporter(OTLPSpanExporter):
    """The SDK's exporter (addresses, headers, certificates, retries) without its encoding."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans to the collector; called in the processor's own thread."""
        sent = self._client.export(encoded(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def encoded(spans: Iterable[ReadableSpan]) -> bytes:
    """Return an ExportTraceServiceRequest that tells of spans of ours, service by service."""
    by_service: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        by_service.setdefault(id(span.instrumentation_scope), []).append(span)
    return b"".join(_field(b"\x0a", _resource_spans(some)) for some in by_service.values())


def _resource_spans(spans: Sequence[ReadableSpan]) -> bytes:
    resource, scope = spans[0].resource, spans[0].instrumentation_scope
    named = _text(b"\x0a", scope.name) if scope is not None else b""
    told = _field(b"\x0a", named) + b"".join([_field(b"\x12", _span(span)) for span in spans])
    whose = _attributes(b"\x0a", resource.attributes)
    return _field(b"\x0a", whose) + _field(b"\x12", told)


def _span(span: ReadableSpan) -> bytes:
    parent, start, end = span.parent, span.start_time or 0, span.end_time or 0
    return b"".join(
        (
            _ids(span.context),
            b"" if parent is None else b"\x22\x08" + parent.span_id.to_bytes(8),
            _text(b"\x2a", span.name),
            b"\x30" + _varint(span.kind.value + 1),
            b"\x39" + start.to_bytes(8, "little"),
            b"\x41" + end.to_bytes(8, "little"),
            _attributes(b"\x4a", span.attributes or {}),
            *[
                _field(b"\x6a", _ids(link.context) + _flags(b"\x35", link.context))
                for link in span.links
            ],
            _field(b"\x7a", _status(span.status)),
            _flags(b"\x85\x01", parent),
        )
    )


def _ids(context: SpanContext) -> bytes:
    return b"\x0a\x10" + context.trace_id.to_bytes(16) + b"\x12\x08" + context.span_id.to_bytes(8)


def _flags(tag: bytes, context: SpanContext | None) -> bytes:
    is_remote = context is not None and context.is_remote
    return tag + (_REMOTE_IS_TOLD | (_REMOTE if is_remote else 0)).to_bytes(4, "little")


def _status(status: Status) -> bytes:
    code = status.status_code.value
    return b"\x18" + _varint(code) if code else b""


def _attributes(tag: bytes, attributes: Mapping[str, object]) -> bytes:
    return b"".join([_field(tag, _key(key) + _value(it)) for key, it in attributes.items()])


@lru_cache(256)
def _key(key: str) -> bytes:
    return _text(b"\x0a", key)


def _value(value: object) -> bytes:
    if isinstance(value, str):
        return _field(b"\x12", _field(b"\x0a", value.encode()))
    if isinstance(value, bool):
        return _field(b"\x12", b"\x10" + _varint(value))
    if isinstance(value, int):
        return _field(b"\x12", b"\x18" + _varint(value))
    raise TypeError(f"no attribute of ours is {type(value).__name__}")


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode()) if text else b""


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if 0 <= number < 128:
        return _SMALL[number]
    return _longer(number % (1 << 64))  # negative numbers are two's complement, ten bytes long


def _longer(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


_SMALL: Final = [bytes([number]) for number in range(128)]
