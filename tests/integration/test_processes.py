"""Any number of processes of a service: they share the work, come and go, and nobody notices.

All the while customers go on complaining. In the end every message that was accepted has its case,
once, with everything that follows from it, once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import httpx2
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner
from pymongo import MongoClient
from servers import Server

from rapport.common.bus.kafka.topics import NEEDED
from rapport.common.events.topics import CASES, DEAD_LETTERS
from rapport.common.runtime import kafka_servers
from rapport.common.settings import Settings
from rapport.standalone import cli
from rapport.standalone.processes import Processes, consumers
from rapport.standalone.system import SERVICES

from .clients import Json, Rapport, eventually
from .conftest import Installation

CUSTOMERS: Final = 4
BREATH_SECONDS: Final = 0.2
"""What a customer pauses between two messages, for the sake of the test's small database."""

PER_CONVERSATION: Final = 2

NEWER: Final = """
from rapport.common.serving import main
from rapport.routing.domain.case import Case
from rapport.routing.service import SERVICE

Case.SCHEMA += 1
main(SERVICE)
"""
"""Routing as a later release has it: what it stores is not for older code."""


class Customers:
    """Customers who complain one after the other, and keep what they are answered.

    What was refused they send again as it is: it may have come in all the same, when nobody could
    say so any more.
    """

    def __init__(self, rapport: Rapport) -> None:
        self.rapport = rapport
        self._numbers = count()
        self._satisfied = False
        self.accepted: dict[str, Json] = {}
        self.refused: list[Json] = []
        self.answers: Counter[int] = Counter()

    @asynccontextmanager
    async def complaining(self) -> AsyncIterator[None]:
        """Complain without a pause while the block runs."""
        self._satisfied = False
        async with asyncio.TaskGroup() as group:
            for _ in range(CUSTOMERS):
                group.create_task(self._keep_complaining())
            try:
                yield
            finally:
                self._satisfied = True

    async def more(self, number: int) -> None:
        """Wait until so many more messages have been accepted."""
        enough = len(self.accepted) + number
        await eventually(lambda: len(self.accepted) >= enough, "nothing is accepted any more")

    async def complain(self) -> httpx2.Response:
        """Send what was refused, or else something new; return the answer."""
        item = self.refused.pop() if self.refused else self._complaint()
        answer = await self.rapport.call("POST", "/intake/v1/feedback", as_="web-shop", json=item)
        self.answers[answer.status_code] += 1
        if answer.status_code == 202:
            self.accepted[item["source_ref"]] = item | answer.json()
        else:
            self.refused.append(item)
        return answer

    async def insist(self) -> None:
        """Send what was refused until it is accepted."""

        async def again() -> list[Json]:
            if self.refused:
                await self.complain()
            return self.refused

        await self.rapport.until(again, lambda refused: not refused, "it is still refused")

    def _complaint(self) -> Json:
        number = next(self._numbers)
        return {
            "kind": "complaint",
            "channel": "web",
            "source": "shop",
            "source_ref": f"m{number}",
            "thread_ref": f"t{number // PER_CONVERSATION}",
            "text": "The kettle broke after two days. I want my money back.",
            "product": "kettle",
        }

    async def _keep_complaining(self) -> None:
        while not self._satisfied:
            await self.complain()
            await asyncio.sleep(BREATH_SECONDS)


async def left_over(up: Processes) -> int:
    """Return how much nobody has read or published yet, also of what the dead have left behind."""
    settings = Settings.load(**up.settings)
    unread = 0
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers(settings))
    await admin.start()
    try:
        for group, topics in consumers().items():
            ends = await up.bus.ends(topics)
            done = await admin.list_consumer_group_offsets(group)
            unread += sum(end - done[TopicPartition(*place)].offset for place, end in ends.items())
    finally:
        await admin.close()
    with MongoClient[Json](settings.store) as store:
        waiting = [
            store[database][collection].count_documents({"waiting_since": {"$exists": True}})
            for database in store.list_database_names()
            if database.startswith("rapport_")
            for collection in store[database].list_collection_names()
        ]
    return unread + sum(waiting)


async def check(installation: Installation, customers: Customers) -> None:
    """Everything that was sent is accepted at last, and has had its effects, each once."""
    await customers.insist()
    rapport, up = installation.client, installation.processes
    await rapport.until(lambda: left_over(up), lambda left: not left, "something is left over")
    await rapport.settled()
    assert await rapport.figure("feedback") == len(customers.accepted)
    messages = Counter(item["thread_ref"] for item in customers.accepted.values())
    cases = await rapport.all("/routing/v1/cases")
    assert Counter(case["message_count"] for case in cases) == Counter(messages.values())
    assert await rapport.figure("cases_opened") == len(cases)
    for listed in cases[::10]:
        history = await rapport.all(f"/routing/v1/cases/{listed['id']}/history")
        happened = Counter(entry["type"] for entry in history)
        assert happened["rapport.case.opened.v1"] == happened["rapport.clock.started.v1"] == 1
        assert happened["rapport.feedback.classified.v1"] == listed["message_count"]
    for item in list(customers.accepted.values())[::10]:
        assert (await rapport.status(item))["state"] == "routed"
    assert sum((await installation.up.bus.ends([DEAD_LETTERS.name])).values()) == 0


async def test_replicas_share_the_work_and_each_event_has_one_effect(
    distributed: Installation,
) -> None:
    rapport, up = distributed.client, distributed.processes
    started = await up.start("routing", "routing", "analytics")
    assert len({process.url for process in started}) == 3
    customers = Customers(rapport)
    async with customers.complaining():
        await customers.more(300)
    await check(distributed, customers)
    for service in ("routing", "analytics"):
        handled = [
            await rapport.metric_at(url, "rapport_events_handled_total", service=service)
            for url in up.replicas[service]
        ]
        assert all(handled), f"one of the {service} replicas has had nothing to do: {handled}"


async def test_a_replica_joins_leaves_and_dies_under_load(distributed: Installation) -> None:
    up, customers = distributed.processes, Customers(distributed.client)
    async with customers.complaining():
        await customers.more(50)
        [joined] = await up.start("routing")
        await customers.more(50)
        await joined.stop()
        await customers.more(50)
        [doomed] = await up.start("routing")
        await customers.more(50)
        doomed.kill()
        assert await doomed.ended() < 0
        await customers.more(50)
    await check(distributed, customers)


async def test_a_rolling_restart_of_everything_under_load_is_not_noticed(
    distributed: Installation,
) -> None:
    up, customers = distributed.processes, Customers(distributed.client)
    async with customers.complaining():
        for service in SERVICES:
            old = next(item for item in up.running if item.service == service)
            await up.start(service)
            await customers.more(20)
            await old.stop()
            assert await old.ended() == 0
            await customers.more(20)
    assert customers.answers.keys() == {202}
    await check(distributed, customers)


async def test_operators_say_how_long_records_are_kept_and_all_goes_on(
    distributed: Installation,
) -> None:
    bus = distributed.processes.settings["bus"]
    week = NEEDED | {"retention.ms": "604800000"}
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.removeprefix("kafka://"))
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, CASES.name, week)])
    await admin.close()

    customers = Customers(await distributed.restart())
    async with customers.complaining():
        await customers.more(20)
    await check(distributed, customers)
    for command, words in (("apply", ", and keeps it"), ("check", "")):
        line = await asyncio.to_thread(
            CliRunner().invoke, cli.rapport, ["topics", command], env={"RAPPORT_BUS": bus}
        )
        assert line.exit_code == 0
        assert f"{CASES} has retention.ms 604800000, not 2592000000{words}\n" in line.output


async def test_what_newer_code_has_stored_waits_for_newer_code(distributed: Installation) -> None:
    rapport, up = distributed.client, distributed.processes
    [older] = [item for item in up.running if item.service == "routing"]
    message = {"kind": "complaint", "channel": "web", "text": "It broke.", "thread_ref": "t"}

    [newer] = await up.start("routing", python=("-c", NEWER))
    await older.stop()
    case = await rapport.case_of(await rapport.send({**message, "source_ref": "1"}))
    path = f"/routing/v1/cases/{case['id']}"

    await older.start()
    await older.ready(up.http)
    await newer.stop()
    unread = await rapport.call("GET", path)
    assert unread.status_code == 503, unread.text
    assert int(unread.headers["retry-after"]) > 0
    await rapport.send({**message, "source_ref": "2"})
    await rapport.until(
        lambda: rapport.metric("rapport_batches_retried_total", service="routing"), bool, "no wait"
    )

    await newer.start()
    await newer.ready(up.http)
    await older.stop()
    found = await rapport.until(
        lambda: rapport.get(path), lambda case: case["message_count"] == 2, "it was not taken up"
    )
    assert found["id"] == case["id"]
    assert sum((await up.bus.ends([DEAD_LETTERS.name])).values()) == 0


async def test_while_kafka_is_away_intake_says_so_and_then_everything_catches_up(
    distributed: Installation, kafka: Server
) -> None:
    customers = Customers(distributed.client)
    async with customers.complaining():
        await customers.more(50)
    await asyncio.to_thread(kafka.kill)

    refused = await customers.complain()
    assert refused.status_code == 503, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0

    await asyncio.to_thread(kafka.start)
    async with customers.complaining():
        await customers.more(50)
    await check(distributed, customers)


async def test_while_the_store_is_away_messages_are_taken_in_and_then_handled(
    distributed: Installation, store: Server
) -> None:
    rapport, customers = distributed.client, Customers(distributed.client)
    async with customers.complaining():
        await customers.more(50)
    await asyncio.to_thread(store.kill)
    async with customers.complaining():
        await customers.more(50)

    unread = await rapport.call("GET", "/routing/v1/cases")
    assert unread.status_code == 503, unread.text
    assert int(unread.headers["retry-after"]) > 0
    async with httpx2.AsyncClient(trust_env=False) as http:
        unready = await http.get(f"{distributed.up.urls['routing']}/readyz")
    assert unready.status_code == 503
    assert "routing" in str(unready.json()["missing"])

    await asyncio.to_thread(store.start)
    async with customers.complaining():
        await customers.more(50)
    await check(distributed, customers)
