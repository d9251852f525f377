"""Traces: what belongs to one story is one trace, told in few spans; off means off."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import httpx2
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rapport.common import tracing
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.errors import Invalid, TemporaryError
from rapport.common.events import encode
from rapport.common.events.topics import FEEDBACK
from rapport.common.telemetry import configure_logs
from rapport.common.testing import Harness, harness

from .shop import SHOP, ItemSold, Shop, Till, TillClosed, TillCounted, front_of

ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = ELSEWHERE.split("-")[1]
UNSAMPLED = f"{ELSEWHERE[:-2]}00"
SECRET = "leila@example.org"


class Told:
    """The spans that were told."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        """Every span, in the order in which they were over."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name."""
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        [span] = self.named(name)
        return span


def ids(span: ReadableSpan) -> str:
    """Return what carries a span on."""
    context = span.context
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def span_id(span: ReadableSpan) -> int:
    """Return the id of a span in its trace."""
    context = span.context
    assert context is not None
    return int(context.span_id)


def parent(span: ReadableSpan) -> int | None:
    """Return the id of a span's parent."""
    return None if span.parent is None else span.parent.span_id


@pytest.fixture
def told() -> Iterator[Told]:
    """Have traces on, told into a list."""
    exporter = InMemorySpanExporter()
    tracing.use(SimpleSpanProcessor(exporter))
    yield Told(exporter)
    tracing.shutdown()


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(SHOP) as under_test:
        yield under_test


@pytest.fixture
async def front(shop: Harness) -> AsyncIterator[httpx2.AsyncClient]:
    """The whole application as a server has it."""
    async with front_of(shop) as client:
        yield client


# A request


async def test_a_request_is_a_span_and_what_it_changes_goes_on_from_there(
    shop: Harness, front: httpx2.AsyncClient, told: Told
) -> None:
    path = f"/shop/v1/tills/{SECRET}/sales?who={SECRET}"
    answer = await front.post(path, headers={"traceparent": ELSEWHERE})
    assert answer.status_code == 200
    await shop.settle()

    served = told.one("POST /shop/v1/tills/{till}/sales")
    assert served.kind is SpanKind.SERVER
    assert served.resource.attributes["service.name"] == "rapport-shop"
    assert served.attributes == {
        "http.request.method": "POST",
        "http.route": "/shop/v1/tills/{till}/sales",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    assert ids(served).split("-")[1] == TRACE
    assert parent(served) == int(ELSEWHERE.split("-")[2], 16)
    assert shop.published(TillCounted).traceparent == ids(served)
    assert parent(told.one("publish")) == span_id(served)
    assert SECRET not in "".join(span.to_json() for span in told.all)


@pytest.mark.parametrize(
    "header",
    ["", "00", f"{ELSEWHERE}-more", ELSEWHERE.upper(), f"00-{'0' * 32}-{'0' * 16}-01", SECRET * 99],
)
async def test_a_caller_with_a_broken_trace_begins_a_new_one(
    front: httpx2.AsyncClient, told: Told, header: str
) -> None:
    await front.post("/shop/v1/tills/t1/sales", headers={"traceparent": header})
    assert told.one("POST /shop/v1/tills/{till}/sales").parent is None


async def test_a_request_that_fails_says_so_and_not_with_whose_words(
    shop: Harness, front: httpx2.AsyncClient, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(shop.running.store, "get_many", fails)
    answer = await front.post("/shop/v1/tills/t1/sales")
    assert answer.status_code == 500
    served = told.one("POST /shop/v1/tills/{till}/sales")
    assert served.status.status_code is StatusCode.ERROR
    assert served.status.description is None
    assert served.attributes is not None
    assert served.attributes["error.type"] == "500"
    assert not served.events

    await front.request("BREW", f"/shop/v1/{SECRET}")
    assert told.one("HTTP").attributes == {
        "http.request.method": "_OTHER",
        "http.response.status_code": 404,
        "url.scheme": "http",
    }


async def test_those_who_operate_are_no_story(front: httpx2.AsyncClient, told: Told) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/nowhere"):
        await front.get(path)
    assert told.all == []


# Events


async def test_an_event_that_leads_on_is_a_span_between_the_one_before_and_what_follows(
    shop: Harness, told: Told
) -> None:
    sold = shop.event(ItemSold(till="t1", item="tea"), traceparent=ELSEWHERE, source="/rapport/x")
    await shop.given(sold)
    processed = told.one("process rapport.feedback")
    assert processed.kind is SpanKind.CONSUMER
    assert ids(processed).split("-")[1] == TRACE
    assert parent(processed) == int(ELSEWHERE.split("-")[2], 16)
    assert processed.attributes == {
        "messaging.system": "embedded",
        "messaging.operation.name": "process",
        "messaging.destination.name": "rapport.feedback",
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": "shop",
        "messaging.kafka.offset": 0,
        "cloudevents.event_id": sold.id,
        "cloudevents.event_type": "test.item.sold.v1",
    }
    assert shop.published(TillCounted).traceparent == ids(processed)
    published = told.one("publish")
    assert published.kind is SpanKind.PRODUCER
    assert parent(published) == span_id(processed)

    await shop.given(sold)
    assert len(told.all) == 2, "a repeat leads to nothing"


async def test_the_ids_that_others_give_are_not_told(shop: Harness, told: Told) -> None:
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), id=SECRET, source="/elsewhere"))
    assert SECRET not in "".join(span.to_json() for span in told.all)


async def test_a_batch_links_to_the_spans_of_its_events(shop: Harness, told: Told) -> None:
    sales = [ItemSold(till=f"t{number % 2}", item=f"item {number}") for number in range(5)]
    await shop.given(*sales, sales[0])

    whole = told.named("process rapport.feedback")[-1]
    single = told.named("process rapport.feedback")[:-1]
    assert len(single) == 5
    assert [link.context for link in whole.links] == [span.context for span in single]
    assert whole.parent is None
    assert whole.attributes is not None
    assert whole.attributes["messaging.batch.message_count"] == 6
    carried = {event.traceparent for event in shop.all(TillCounted)}
    assert carried == {ids(span) for span in single}

    published = told.one("publish")
    assert published.parent is None
    assert [link.context.span_id for link in published.links] == [*map(span_id, single)]


async def test_what_falls_due_goes_on_with_the_story_and_so_does_what_is_done_outside(
    shop: Harness, told: Told
) -> None:
    under: list[str | None] = []
    shop_itself: Shop = shop.running.resources
    shop_itself.after_close = Watched(under)
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), traceparent=ELSEWHERE))
    processed = told.one("process rapport.feedback")
    await shop.advance(hours=8)

    assert shop.published(TillClosed).traceparent == ids(processed)
    assert under == [ids(processed)]


class Watched(list[str]):
    """Notes under which span something was added."""

    def __init__(self, under: list[str | None]) -> None:
        super().__init__()
        self._under = under

    def append(self, item: str) -> None:
        super().append(item)
        self._under.append(tracing.traceparent())


async def test_a_call_to_the_outside_is_a_span_and_what_it_comes_to_goes_on(told: Told) -> None:
    with tracing.continued(ELSEWHERE), tracing.calling("post", "send pigeon", bird="grey") as call:
        call.error = "eaten"
        after = tracing.traceparent()
    sent = told.one("send pigeon")
    assert sent.kind is SpanKind.CLIENT
    assert ids(sent) == after
    assert parent(sent) == int(ELSEWHERE.split("-")[2], 16)
    assert sent.attributes == {"rapport.bird": "grey", "error.type": "eaten"}
    assert sent.status.status_code is StatusCode.ERROR

    with pytest.raises(ValueError, match="leila"), tracing.calling("post", "send raven"):
        raise ValueError(SECRET)
    lost = told.one("send raven")
    assert lost.parent is None
    assert lost.attributes == {"error.type": "ValueError"}
    assert not lost.events


async def test_publishing_that_fails_says_why_in_a_word(told: Told) -> None:
    with pytest.raises(TemporaryError), tracing.publishing("shop", "kafka", []):
        raise TemporaryError("the bus is away")
    published = told.one("publish")
    assert published.attributes is not None
    assert published.attributes["error.type"] == "TemporaryError"


# Failures and logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log as a process does; gives what has been written so far."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs()
    monkeypatch.setattr("rapport.common.bus.pipeline.log", structlog.get_logger("pipeline"))
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize("broken", [False, True], ids=["refused", "unreadable"])
async def test_what_ends_in_the_dead_letters_shows_in_its_trace_and_its_log_line_leads_there(
    shop: Harness, told: Told, lines: Callable[[], list[dict[str, Any]]], broken: bool
) -> None:
    sold = shop.event(ItemSold(till="t1", item=SECRET, price=-1), traceparent=ELSEWHERE)
    message = encode(sold)
    await shop.deliver([message._replace(value=SECRET.encode())] if broken else [message])

    failed = told.one("process rapport.feedback")
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == ("Undecodable" if broken else "PermanentError")
    assert failed.status.status_code is StatusCode.ERROR
    assert parent(failed) == int(ELSEWHERE.split("-")[2], 16)
    assert SECRET not in failed.to_json()

    [line] = [line for line in lines() if line["event"] == "event.dead_lettered"]
    assert f"00-{line['trace_id']}-{line['span_id']}-01" == ids(failed)
    assert SECRET not in str(line)


def test_a_line_outside_of_every_story_has_no_ids(
    told: Told, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    structlog.get_logger("x").info("alone")
    with tracing.continued(ELSEWHERE):
        structlog.get_logger("x").info("together")
        logging.getLogger("x").warning("and others")
    alone, together, others = lines()
    assert "trace_id" not in alone
    assert together["trace_id"] == others["trace_id"] == TRACE


async def test_a_reader_does_not_go_on_with_the_story_of_whoever_wakes_it(
    told: Told, shop: Harness, tmp_path: Path
) -> None:
    under: list[bool] = []
    done = asyncio.Event()

    async def handler(records: Any) -> None:
        under.append(trace.get_current_span().get_span_context().is_valid)
        done.set()

    bus = EmbeddedBus(tmp_path / "bus.db")
    await bus.start()
    await bus.subscribe("shop", [FEEDBACK.name], handler)
    with tracing.continued(ELSEWHERE):
        await bus.publish([encode(shop.event(ItemSold(till="t1", item="tea")))])
    await done.wait()
    await bus.stop()
    assert under == [False]


# Off, and the environment


async def test_off_means_off(shop: Harness, front: httpx2.AsyncClient) -> None:
    assert not tracing.is_on()
    await front.post("/shop/v1/tills/t1/sales", headers={"traceparent": ELSEWHERE})
    await shop.given(ItemSold(till="t2", item="tea"))
    assert [event.traceparent for event in shop.all(TillCounted)] == [None, None]
    till = await shop.running.store.get(Till, "t2")
    assert till is not None
    assert till.traceparent is None

    with tracing.continued(ELSEWHERE), tracing.calling("post", "send pigeon"):
        assert tracing.traceparent() is None
    assert tracing.processing("shop", "embedded", []).__enter__() is None


async def test_what_is_traced_elsewhere_stays_so_while_traces_are_off(shop: Harness) -> None:
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), traceparent=ELSEWHERE))
    assert shop.published(TillCounted).traceparent == ELSEWHERE


@pytest.mark.parametrize("sampler", ["", "always_off"])
async def test_what_is_not_sampled_is_not_told_and_those_after_it_know(
    shop: Harness, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    exporter = InMemorySpanExporter()
    tracing.use(SimpleSpanProcessor(exporter))
    given = ELSEWHERE if sampler else UNSAMPLED
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), traceparent=given))
    tracing.shutdown()
    assert exporter.get_finished_spans() == ()
    counted = shop.published(TillCounted)
    assert counted.traceparent is not None
    assert counted.traceparent.split("-")[1] == TRACE
    assert counted.traceparent.endswith("-00")


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_without_an_endpoint_or_told_not_to_there_are_no_traces(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracing.configure()
    assert not tracing.is_on()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: expected otlp or none"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf",
        ),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    for key, given in {**ENDPOINT, name: value}.items():
        monkeypatch.setenv(key, given)
    with pytest.raises(Invalid, match=reason):
        tracing.configure()
    assert not tracing.is_on()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector that keeps what it is told: its address, and paths with bodies."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.parametrize("named", [None, "the-shop"])
async def test_a_collector_is_told_all_of_it_before_the_end(
    shop: Harness,
    collector: tuple[str, list[tuple[str, bytes]]],
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
) -> None:
    address, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=mars")
    if named is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", named)
    tracing.configure()
    await shop.given(ItemSold(till="t1", item="tea"))
    tracing.shutdown()

    [(path, body)] = received
    assert path == "/v1/traces"
    for word in (named or "rapport-shop", "mars", "process rapport.feedback", "rapport.shop"):
        assert word.encode() in body


def test_the_end_does_not_wait_for_a_collector_that_is_stuck() -> None:
    stuck = Flag()

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            stuck.wait()

    tracing.use(Stuck())
    tracing.shutdown(patience=0.01)
    assert not tracing.is_on()
    stuck.set()
