"""Other systems publish to Kafka with clients of their own, as the README shows it."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from servers import Server

from rapport.common.events.topics import INBOUND
from rapport.intake.domain import feedback_id_of_event

from .clients import Rapport
from .conftest import Installation

README: Final = Path(__file__).parents[2] / "README.md"
BROKER: Final = "127.0.0.1:9092"
"""Where the README's producer finds Kafka."""

STRUCTURED: Final = ("content-type", b"application/cloudevents+json")
EVENT: Final = (
    b'{"specversion": "1.0", "type": "rapport.feedback.submitted.v1", "source": "/shop", '
    b'"id": "%s", "data": {"kind": "question", "channel": "chat", "text": "Open?"}}'
)


def the_readmes_producer(broker: str) -> str:
    """Return the README's ten lines, which publish to this broker."""
    section = README.read_text("utf-8").partition("## Publish from other systems")[2]
    lines: str
    [lines] = re.findall(r"```python\n(.+?)```", section.partition("\n## ")[0], re.S)
    assert lines.count(BROKER) == 1
    return lines.replace(BROKER, broker)


async def run(program: str) -> None:
    """Run a program of somebody else's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()


async def has_a_case(rapport: Rapport, id: str) -> str:
    """Wait until a message of the source `/shop` has its case; return the case's id."""
    path = f"/intake/v1/feedback/{feedback_id_of_event('/shop', id)}"

    async def ask() -> str | None:
        answer = await rapport.call("GET", path)
        case: str | None = answer.json().get("case_id")
        return case

    return str(await rapport.until(ask, lambda case: case, f"{id} got no case"))


async def test_the_readmes_ten_lines_make_a_case_and_once_more_they_make_no_other(
    distributed: Installation, kafka: Server
) -> None:
    rapport = distributed.client
    program = the_readmes_producer(kafka.address)
    assert len([line for line in program.splitlines() if line]) <= 10
    await run(program)
    await run(program)
    case = await has_a_case(rapport, "1")
    await rapport.settled()
    [listed] = await rapport.all("/routing/v1/cases")
    assert (listed["id"], listed["message_count"]) == (case, 1)


async def test_what_a_stock_client_gets_wrong_is_put_aside_and_the_next_record_is_read(
    distributed: Installation, kafka: Server
) -> None:
    rapport = distributed.client
    before = await rapport.metric("rapport_events_dead_lettered_total", service="intake")
    odd: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"k", None, []),
        (b"k", None, [STRUCTURED]),
        (b"\xff\xfe", b"\x00\x01", []),
        (b"k", b"{}", [("ce_id", None), ("ce_type", b"\xff")]),
        (b"k", b'"' + b"x" * 1_040_000 + b'"', [STRUCTURED]),
        (b"k", EVENT % b"odd" + b"}", [STRUCTURED]),
    ]
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.address, acks="all", max_request_size=2_000_000
    ) as producer:
        for key, value, headers in odd:
            await producer.send_and_wait(INBOUND.name, value, key=key, headers=headers, partition=0)
        await producer.send_and_wait(
            INBOUND.name, EVENT % b"good", headers=[STRUCTURED], partition=0
        )
    await has_a_case(rapport, "good")
    after = await rapport.metric("rapport_events_dead_lettered_total", service="intake")
    assert after == before + len(odd)
