"""What is told to a collector: byte for byte what the OpenTelemetry SDK would tell."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from rapport.common.otlp import encoded

SERVICES = [
    (Resource({"service.name": f"rapport-{name}", "replica": 3}), InstrumentationScope(name))
    for name in ("intake", "routing")
]

contexts = st.builds(
    SpanContext,
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(1)),
)
keys = st.text(string.ascii_lowercase + "._", min_size=1, max_size=140)
values = st.text(max_size=200) | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1)
moments = st.integers(1, (1 << 63) - 1)
statuses = st.sampled_from([Status(), Status(StatusCode.OK), Status(StatusCode.ERROR)])


@st.composite
def spans(draw: st.DrawFn) -> ReadableSpan:
    resource, scope = draw(st.sampled_from(SERVICES))
    return ReadableSpan(
        draw(st.text(max_size=200)),
        draw(contexts),
        draw(st.none() | contexts),
        resource,
        draw(st.dictionaries(keys, values, max_size=9)),
        links=[Link(context) for context in draw(st.lists(contexts, max_size=3))],
        kind=draw(st.sampled_from(SpanKind)),
        status=draw(statuses),
        start_time=draw(moments),
        end_time=draw(moments),
        instrumentation_scope=scope,
    )


def service_of(span: ReadableSpan) -> str:
    assert span.instrumentation_scope is not None
    return span.instrumentation_scope.name


@given(st.lists(spans(), max_size=5))
def test_the_bytes_are_those_of_the_sdk(told: Sequence[ReadableSpan]) -> None:
    by_service = sorted(told, key=service_of)
    assert encoded(by_service) == encode_spans(by_service).SerializeToString()


@given(st.lists(spans(), max_size=5))
def test_services_come_one_after_the_other_in_the_order_of_their_first_span(
    told: Sequence[ReadableSpan],
) -> None:
    request = ExportTraceServiceRequest.FromString(encoded(told))
    names = [part.scope_spans[0].scope.name for part in request.resource_spans]
    assert names == list(dict.fromkeys(map(service_of, told)))


def test_an_attribute_that_we_do_not_have_is_refused() -> None:
    resource, scope = SERVICES[0]
    span = ReadableSpan(
        "odd", SpanContext(1, 1, False), None, resource, {"share": 0.5}, instrumentation_scope=scope
    )
    with pytest.raises(TypeError, match="no attribute of ours is float"):
        encoded([span])
