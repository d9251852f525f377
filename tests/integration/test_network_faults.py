"""Lines that go bad between a service and its servers: whoever waits is told, and nothing is lost.

The service at fault is behind proxies of its own; all others have their servers as always.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Final

import pytest
import servers
from aiokafka.admin import AIOKafkaAdminClient
from servers import Server

from chaos.proxy import HOST, Proxy, listeners
from rapport.common.bus.kafka import KafkaBus, apply
from rapport.common.bus.kafka.reading import Timing
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Message
from rapport.common.events.topics import DEAD_LETTERS, FEEDBACK, TOPICS
from rapport.common.runtime import kafka_servers
from rapport.common.settings import Settings
from rapport.standalone.processes import Process, Processes

from .clients import PATIENCE, Json, Rapport
from .conftest import Installation
from .test_processes import Customers, check

COMPLAINT: Final[Json] = {
    "kind": "complaint",
    "channel": "web",
    "source": "shop",
    "source_ref": "unanswered",
    "thread_ref": "unanswered",
    "text": "The kettle broke.",
}

SOON_MISSED: Final = """
from dataclasses import replace
from functools import partial

from rapport.common.bus.kafka import bus
from rapport.common.bus.kafka.reading import Timing
from rapport.common.serving import main
from rapport.routing.service import SERVICE

bus.Timing = partial(Timing, session=3.0, heartbeat=1.0)
main(SERVICE)
"""
"""Routing as a member of its group that is missed after three seconds of silence."""


@dataclass(frozen=True)
class Lines:
    """The lines of one service."""

    kafka: Proxy
    store: Proxy

    async def of(self, installation: Installation, service: str) -> Process:
        """Replace the process of a service by one that has these lines."""
        up = installation.processes
        [old] = [item for item in up.running if item.service == service]
        await old.stop()
        up.running.remove(old)
        reached = {
            "bus": f"kafka://{HOST}:{self.kafka.port}",
            "store": f"mongodb://{HOST}:{self.store.port}/rapport?directConnection=true",
        }
        [process] = await replace(up, settings={**up.settings, **reached}).start(service)
        return process


@pytest.fixture
async def kafka_line() -> AsyncIterator[Proxy]:
    """The line to a broker that is yet to be."""
    line = Proxy(servers.free_port())
    yield line
    await line.stop()


@pytest.fixture
def kafka_settings(kafka_line: Proxy) -> str:
    """Let the broker be at the end of the line."""
    return listeners({"line": kafka_line})


@pytest.fixture
async def lines(kafka: Server, kafka_line: Proxy, store: Server) -> AsyncIterator[Lines]:
    """Lines to both servers."""
    lines = Lines(kafka_line, Proxy(store.port))
    await lines.kafka.start()
    await lines.store.start()
    yield lines
    await lines.store.stop()


async def test_connections_that_are_lost_without_a_word_are_given_up_and_replaced(
    distributed: Installation, lines: Lines
) -> None:
    await lines.of(distributed, "routing")
    customers = Customers(distributed.client)
    async with customers.complaining():
        await customers.more(20)
        lines.kafka.lose()
        lines.store.lose()
        await customers.more(20)
    await check(distributed, customers)


async def test_while_kafka_is_silent_intake_says_so_and_what_is_sent_again_counts_once(
    distributed: Installation, lines: Lines
) -> None:
    await lines.of(distributed, "intake")
    bus, customers = distributed.processes.bus, Customers(distributed.client)
    async with customers.complaining():
        await customers.more(20)

    lines.kafka.hang()
    refused = await customers.complain()
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["retry-after"]) > 0

    lines.kafka.open()
    await customers.insist()
    assert sum((await bus.ends([FEEDBACK.name])).values()) > len(customers.accepted)
    async with customers.complaining():
        await customers.more(20)
    await check(distributed, customers)


async def test_who_publishes_into_silence_is_told_and_publishes_when_it_is_over(
    kafka: Server, lines: Lines
) -> None:
    address = f"{HOST}:{lines.kafka.port}"
    await apply(address, {}, TOPICS, {})
    bus = KafkaBus(address, timing=Timing(publish=1.0))
    await bus.start()
    message = Message(DEAD_LETTERS.name, "a", b"{}", ())
    lines.kafka.hang()
    with pytest.raises(TemporaryError, match="did not confirm it in time"):
        await bus.publish([message])
    lines.kafka.open()
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(TemporaryError):
                await bus.publish([message])
                break
        await bus.stop()


async def test_while_the_store_is_silent_what_is_asked_is_answered_in_time(
    distributed: Installation, lines: Lines
) -> None:
    await lines.of(distributed, "routing")
    rapport, customers = distributed.client, Customers(distributed.client)
    async with customers.complaining():
        await customers.more(20)
    await rapport.settled()

    lines.store.hang()
    unread = await rapport.call("GET", "/routing/v1/cases")
    assert unread.status_code == 503, unread.text
    assert int(unread.headers["retry-after"]) > 0
    async with customers.complaining():
        await customers.more(20)

    lines.store.open()
    await check(distributed, customers)


async def test_a_member_that_stood_still_for_too_long_does_nothing_twice(
    distributed: Installation,
) -> None:
    up, customers = distributed.processes, Customers(distributed.client)
    [old] = [item for item in up.running if item.service == "routing"]
    await old.stop()
    first, second = await up.start("routing", "routing", python=("-c", SOON_MISSED))
    async with customers.complaining():
        await customers.more(30)
        first.freeze()
        await distributed.client.until(
            partial(members, up), lambda members: members == 1, "it is not missed"
        )
        await customers.more(30)
        first.thaw()
        await customers.more(30)
        second.freeze()
        await customers.more(10)
        second.thaw()
    await distributed.client.until(
        partial(members, up), lambda members: members == 2, "it does not come back"
    )
    await check(distributed, customers)


async def members(up: Processes) -> int:
    """Return how many members routing's group has."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers(Settings.load(**up.settings)))
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups(["routing"])
    finally:
        await admin.close()
    [group] = answer.groups
    return len(group[5])


async def test_what_was_published_comes_again_in_any_order_and_changes_nothing(
    installation: Installation,
) -> None:
    rapport, customers = installation.client, Customers(installation.client)
    async with customers.complaining():
        await customers.more(20)
    for number in range(5):
        name = f"named{number}"
        by = {"source_ref": name, "thread_ref": name, "contact": {"email": f"{name}@example.org"}}
        case = await rapport.case_of(await rapport.send(COMPLAINT | by))
        path = f"/routing/v1/cases/{case['id']}/replies"
        await rapport.post(path, {"text": "We send you another one."}, as_="lin")
    await rapport.settled()
    before = await told(rapport)

    again = [message async for message in published(installation)]
    Random(1).shuffle(again)
    await installation.up.bus.publish(again)
    await rapport.settled()
    assert await told(rapport) == before
    assert sum((await installation.up.bus.ends([DEAD_LETTERS.name])).values()) == 0


async def told(rapport: Rapport) -> Json:
    """Return what people are told of all there is."""
    lists = {
        path: await rapport.all(path, as_="lin")
        for path in ("/routing/v1/cases", "/notification/v1/notifications")
    }
    histories = {
        case["id"]: await rapport.all(f"/routing/v1/cases/{case['id']}/history")
        for case in lists["/routing/v1/cases"]
    }
    figures = await rapport.get("/analytics/v1/kpis")
    counts = [(kpi["name"], kpi["value"]) for kpi in figures["items"][0]["kpis"]]
    return {**lists, "histories": histories, "figures": counts}


async def published(installation: Installation) -> AsyncIterator[Message]:
    """Yield all that has been published, but for dead letters."""
    bus = installation.up.bus
    names = [name for name in TOPICS if name != DEAD_LETTERS.name]
    starts, ends = await bus.starts(names), await bus.ends(names)
    after = {place: start - 1 for place, start in starts.items()}
    until = {place: end for place, end in ends.items() if end > starts[place]}
    async with aclosing(bus.tail(names, after, until=until)) as reading:
        async for records in reading:
            for record in records:
                yield Message(record.topic, record.key, record.value, record.headers)
