"""The Kafka bus against what its client and a framework do by themselves, on the same broker.

The line, as every service has it but without a store: a group reads feedback from the start, and
its pipeline decodes each event, derives the id of what follows from it, encodes that and publishes
it, with acks=all, before the offset is committed. The baselines are a loop over aiokafka with the
same settings, which sends a batch and then waits for all of it, and a FastStream subscriber that
awaits each publish. Intake is measured as over the embedded bus, each message confirmed before the
answer. All run as a service's process does: on uvloop, and with what is loaded out of the garbage
collector's way.

The broker is the one that RAPPORT_TEST_KAFKA names, else one of our own for the time.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from fastapi import FastAPI
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks import real_servers
from benchmarks.bus import _messages
from benchmarks.following import following, pipeline
from benchmarks.harness import Row, compare_async, print_table
from benchmarks.intake import (
    ANSWER,
    CONNECTIONS,
    PATH,
    PLAIN,
    Plain,
    PlainReceipt,
    compared,
    intake_over,
    message_of,
)
from rapport.common.bus.kafka import KafkaBus, apply
from rapport.common.events.codec import Message, Record
from rapport.common.events.ids import random_id
from rapport.common.events.topics import TOPICS, Topic
from rapport.common.serving import run_on_loop

STORED: Final = 20_000
FEW: Final = 2_000
BATCH: Final = 500
ROUNDS: Final = 7
BROKER: Final = "RAPPORT_BENCH_KAFKA"
"""Where the servers of intake, which are processes of their own, find the broker."""


class Run:
    """The topics of one run: what is read, a smaller part of it, and what is published."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        name = f"bench.{random_id()}"
        self.many = Topic(f"{name}.many", writer="bench")
        self.few = Topic(f"{name}.few", writer="bench")
        self.out = Topic(f"{name}.out", writer="bench")
        self.topics = {topic.name: topic for topic in (self.many, self.few, self.out)}
        self.bus = KafkaBus(servers, topics=self.topics)

    async def fill(self) -> None:
        """Create the topics and publish what is to be read."""
        await apply(self.servers, {}, self.topics, {})
        await self.bus.start()
        messages = _messages(STORED)
        for topic, count in ((self.many, STORED), (self.few, FEW)):
            for first in range(0, count, BATCH):
                some = messages[first : min(first + BATCH, count)]
                await self.bus.publish([item._replace(topic=topic.name) for item in some])

    def follow(self, record: Record) -> Message:
        """Return what follows from a record."""
        return following(record, self.out.name)

    async def ours(self, topic: Topic, count: int) -> float:
        """Read `count` records and publish what follows; return how many per second."""
        watch = Watch(count)
        line = pipeline(self.bus, topic.name, self.follow)

        async def handle(records: Sequence[Record]) -> None:
            watch.begin()
            await line.handle(records)
            watch.done(len(records))

        reader = await self.bus.subscribe(random_id(), [topic.name], handle, max_batch=BATCH)
        rate = await watch.rate()
        await reader.stop()
        return rate

    async def bare(self, topic: Topic, count: int) -> float:
        """Do the same with aiokafka alone."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=131_072,
        )
        consumer = AIOKafkaConsumer(
            topic.name,
            bootstrap_servers=self.servers,
            group_id=random_id(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=256 * 1024,
        )
        await producer.start()
        await consumer.start()
        watch = Watch(count)
        while watch.left:
            fetched = await consumer.getmany(timeout_ms=500)
            if fetched:
                watch.begin()
            for found in fetched.values():
                sent = []
                for one in found:
                    key = None if one.key is None else one.key.decode()
                    message = self.follow(
                        Record(
                            one.topic,
                            one.partition,
                            one.offset,
                            one.timestamp,
                            key,
                            one.value,
                            one.headers,
                        )
                    )
                    sent.append(
                        await producer.send(
                            message.topic,
                            message.value,
                            message.key.encode() if message.key else None,
                            headers=list(message.headers),
                        )
                    )
                await asyncio.gather(*sent)
                watch.done(len(found))
            await consumer.commit({place: found[-1].offset + 1 for place, found in fetched.items()})
        await consumer.stop()
        await producer.stop()
        return await watch.rate()

    async def faststream(self, topic: Topic, count: int) -> float:
        """Do the same with FastStream, each publish confirmed, each message acknowledged after."""
        broker = KafkaBroker(
            self.servers, acks="all", enable_idempotence=True, logger=None, log_level=logging.ERROR
        )
        watch = Watch(count)

        @broker.subscriber(
            topic.name,
            group_id=random_id(),
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def handle(body: object, found: KafkaMessage) -> None:
            watch.begin()
            one = found.raw_message
            assert not isinstance(one, tuple)
            message = self.follow(
                Record(
                    one.topic,
                    one.partition,
                    one.offset,
                    one.timestamp,
                    one.key.decode(),
                    one.value,
                    one.headers,
                )
            )
            await broker.publish(
                message.value,
                message.topic,
                key=message.key.encode() if message.key else None,
                headers={name: value.decode() for name, value in message.headers},
            )
            watch.done(1)

        async with broker:
            await broker.start()
            return await watch.rate()


class Watch:
    """Measures from the first record to the last, without the joining of the group."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._count = count
        self._began = 0.0
        self._ended = asyncio.Event()
        self._seconds = 0.0

    def begin(self) -> None:
        """Note that the work begins, the first time."""
        self._began = self._began or perf_counter()

    def done(self, count: int) -> None:
        """Note that so many records more are done."""
        self.left -= count
        if self.left <= 0:
            self._seconds = perf_counter() - self._began
            self._ended.set()

    async def rate(self) -> float:
        """Wait until all are done; return how many that were per second."""
        await self._ended.wait()
        return self._count / self._seconds


@asynccontextmanager
async def intake(folder: Path) -> AsyncIterator[ASGIApp]:
    """Rapport's intake over the Kafka bus."""
    async with intake_over(KafkaBus(os.environ[BROKER]), folder) as app:
        yield app


@asynccontextmanager
async def confirmed() -> AsyncIterator[Callable[[Message], Awaitable[None]]]:
    """A producer of aiokafka's, and a function that sends a message with it and waits."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ[BROKER], acks="all", enable_idempotence=True
    )
    await producer.start()

    async def send(message: Message) -> None:
        await producer.send_and_wait(
            message.topic,
            message.value,
            (message.key or "").encode(),
            headers=list(message.headers),
        )

    yield send
    await producer.stop()


@asynccontextmanager
async def bare_starlette(folder: Path) -> AsyncIterator[ASGIApp]:
    """A route of Starlette with a pydantic TypeAdapter, and aiokafka."""
    async with confirmed() as send:

        async def submit(request: Request) -> Response:
            id = uuid4().hex
            await send(message_of(PLAIN.validate_json(await request.body()), id))
            answer = ANSWER % (id.encode(), id.encode())
            return Response(answer, 202, media_type="application/json")

        yield Starlette(routes=[Route(PATH, submit, methods=["POST"])])


@asynccontextmanager
async def stock_fastapi(folder: Path) -> AsyncIterator[ASGIApp]:
    """A handler of FastAPI with its model as the body, and aiokafka."""
    app = FastAPI()
    async with confirmed() as send:

        @app.post(PATH, status_code=202)
        async def submit(body: Plain) -> PlainReceipt:
            id = uuid4().hex
            await send(message_of(body, id))
            return PlainReceipt(id=id, reference="R-0000-0000-0000", status_url=f"{PATH}/{id}")

        yield app


async def lines(servers: str) -> list[Row]:
    """Measure the line against both baselines."""
    run = Run(servers)
    await run.fill()
    rows = [
        await compare_async(
            "Kafka: pipeline, consume to produce, no store",
            name,
            partial(run.ours, topic, count),
            partial(theirs, topic, count),
            rounds=ROUNDS,
            at_least=at_least,
        )
        for name, theirs, topic, count, at_least in (
            ("loop over aiokafka, same codec", run.bare, run.many, STORED, 0.85),
            ("FastStream, each publish confirmed", run.faststream, run.few, FEW, 8.0),
        )
    ]
    await run.bus.stop()
    return rows


async def _run(servers: str) -> list[Row]:
    rows = await lines(servers)
    await apply(servers, {}, TOPICS, {})
    os.environ[BROKER] = servers
    what = f"Kafka: POST {PATH}, {CONNECTIONS} connections"
    return rows + await compared(what, intake, bare_starlette, stock_fastapi)


def run() -> list[Row]:
    """Return the rows of the report; none where there is no broker."""
    with real_servers.kafka() as servers:
        return run_on_loop(_run(servers)) if servers else []


if __name__ == "__main__":
    print_table(run())
