"""One story is one trace, from the request that begins it to the message that leaves.

Played where all of it runs in one process, so that the spans of every service can be seen.
"""

import json
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rapport.common import tracing
from rapport.common.events.codec import Message
from rapport.common.events.topics import INBOUND
from rapport.standalone.demo.receivers import MailServer

from .clients import Rapport
from .conftest import Installation
from .test_complaint import complaint

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REPLY = "We are sorry. Your money is on its way back to you."
ALERT = [
    "rapport-intake: POST /intake/v1/feedback",
    "rapport-routing: process rapport.feedback",
    "rapport-notification: process rapport.cases",
    "rapport-notification: process rapport.notifications",  # whether it is within the limit
    "rapport-notification: process rapport.notifications",
    "rapport-notification: send email",
    "rapport-notification: process rapport.notifications",
]
ANSWER = [
    "rapport-routing: POST /routing/v1/cases/{id}/replies",
    "rapport-notification: process rapport.cases",
    "rapport-notification: process rapport.notifications",
    "rapport-notification: send email",
    "rapport-routing: process rapport.notifications",
]


@pytest.fixture
def told() -> Iterator[InMemorySpanExporter]:
    """The spans that were told, by all services."""
    exporter = InMemorySpanExporter()
    tracing.use(SimpleSpanProcessor(exporter))
    yield exporter
    tracing.shutdown()


@pytest.fixture
async def rapport(told: InMemorySpanExporter, embedded: Installation) -> Rapport:
    """A client of a system whose owners are told of new cases by e-mail."""
    client = embedded.client
    for person in ("kim", "lin"):
        record = {"addresses": [{"channel": "email", "to": f"{person}@support.example"}]}
        await client.put(f"/notification/v1/stakeholders/{person}", record, as_="lin")
    wish = {"to": ["kim", "lin"], "events": ["case.opened"]}
    await client.put("/notification/v1/subscriptions/new-cases", wish, as_="lin")
    told.clear()
    return client


def name(span: ReadableSpan) -> str:
    """Name a span by its service and what it did."""
    service = span.resource.attributes["service.name"]
    assert isinstance(service, str)
    return f"{service}: {span.name}"


def path_to(span: ReadableSpan, spans: list[ReadableSpan]) -> list[str]:
    """Name a span after all those that it follows from."""
    before = [
        other
        for other in spans
        if span.parent and other.context and other.context.span_id == span.parent.span_id
    ]
    return [*(path_to(before[0], spans) if before else ()), name(span)]


async def test_a_complaint_and_its_answer_are_traced_from_the_request_to_the_e_mail_and_back(
    rapport: Rapport, mail: MailServer, told: InMemorySpanExporter
) -> None:
    receipt = await rapport.send(complaint())
    case = await rapport.case_of(receipt)
    path = f"/routing/v1/cases/{case['id']}"
    headers = {"traceparent": CALLER}
    await rapport.post(f"{path}/replies", {"text": REPLY}, as_="lin", headers=headers)
    await rapport.until(
        lambda: rapport.get(path), lambda case: case["clock"]["state"] == "met", "no answer counts"
    )
    await rapport.settled()

    spans = list(told.get_finished_spans())
    paths = [path_to(span, spans) for span in spans]
    assert paths.count(ALERT) == 2, "an alert to each of two people"
    assert paths.count(ANSWER) == 1
    served = [span for span in spans if name(span) in (ALERT[0], ANSWER[0])]
    traces = {name(span): span.context.trace_id for span in served if span.context}
    assert f"{traces[ANSWER[0]]:032x}" == CALLER.split("-")[1]
    [link] = next(span.links for span in served if name(span) == ANSWER[0])
    assert link.context.trace_id == traces[ALERT[0]], "the answer leads to what it answers"
    for span, way in zip(spans, paths, strict=True):
        if way[0] in traces and span.context is not None:
            assert span.context.trace_id == traces[way[0]]
    assert {arrival.to for arrival in mail.arrived} == {
        "kim@support.example",
        "lin@support.example",
        "robin1@example.org",
    }

    everything = "".join(span.to_json() for span in spans)
    for personal in ("robin", "Robin", "support.example", "kettle", "sorry", receipt["status_url"]):
        assert personal not in everything


async def test_a_record_of_another_system_goes_on_with_its_trace(
    rapport: Rapport, embedded: Installation, told: InMemorySpanExporter
) -> None:
    event = {
        "specversion": "1.0",
        "id": "order 7 of robin1@example.org",
        "source": "/shop",
        "type": "rapport.feedback.submitted.v1",
        "data": complaint(),
    }
    headers = (
        ("content-type", b"application/cloudevents+json"),
        ("traceparent", CALLER.encode()),
    )
    await embedded.publish(Message(INBOUND.name, "7", json.dumps(event).encode(), headers))
    await rapport.until(
        lambda: rapport.all("/routing/v1/cases"), lambda cases: len(cases) == 1, "no case"
    )
    await rapport.settled()

    story = ["rapport-intake: process rapport.inbound", *ALERT[1:]]
    spans = list(told.get_finished_spans())
    [first] = [span for span in spans if name(span) == story[0]]
    assert first.context is not None
    assert first.parent is not None
    assert f"00-{first.context.trace_id:032x}-{first.parent.span_id:016x}-01" == CALLER
    assert [path_to(span, spans) for span in spans].count(story) == 2
    assert "robin" not in "".join(span.to_json() for span in spans)
