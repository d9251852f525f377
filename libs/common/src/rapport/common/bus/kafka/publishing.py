"""Publishing: what comes for a partition while its last batch is on the way is the next batch.

So a message that comes alone leaves at once, and under load batches grow by themselves; nothing
lingers. A partition has one batch on the way, and a call's messages wait here in their order until
they are part of one. What fails, or is not confirmed in time, fails for all who wait behind it, and
the producer with it: it is not known what became of its batches, its numbering of them is broken,
and left alone it would go on trying behind the back of those who were told that it failed.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from rapport.common.bus.kafka.brokers import CLOSE_SECONDS, Brokers, closed
from rapport.common.bus.port import HEADERS_LIMIT, MESSAGE_LIMIT
from rapport.common.errors import PermanentError, RapportError, TemporaryError
from rapport.common.events.codec import Headers, Message
from rapport.common.events.topics import Topic

BATCH_BYTES: Final = 131_072

log = structlog.get_logger(__name__)


class Call:
    """One call of `publish`: how many of its messages are not durable yet."""

    __slots__ = ("done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def confirm(self) -> None:
        """Note that one message more is durable."""
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RapportError) -> None:
        """Note that this is not to be."""
        if not self.done.done():
            self.done.set_exception(error)


class Part(NamedTuple):
    """A message on its way to its partition."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    call: Call


class Queue:
    """What waits for one partition, and the task that sends it while there is any."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.waiting: deque[Part] = deque()
        self.task: asyncio.Task[None] | None = None

    def fill(self, batch: BatchBuilder) -> list[Call]:
        """Move what fits into a batch; what its caller has given up is left out."""
        calls = []
        while self.waiting:
            part = self.waiting.popleft()
            if part.call.done.done():
                continue
            if not batch.append(
                timestamp=None, key=part.key, value=part.value, headers=part.headers
            ):
                self.waiting.appendleft(part)
                break
            calls.append(part.call)
        return calls

    def fail(self, calls: Iterable[Call], error: RapportError) -> None:
        """Fail these calls and all that wait: nothing may overtake what is lost."""
        for call in calls:
            call.fail(error)
        while self.waiting:
            self.waiting.popleft().call.fail(error)


class Publisher:
    """Makes messages durable; `seconds` is how long a call may take."""

    def __init__(self, brokers: Brokers, topics: Mapping[str, Topic], seconds: float) -> None:
        self._brokers = brokers
        self._topics = topics
        self._seconds = seconds
        self._queues: dict[tuple[str, int], Queue] = {}
        self._producer: AIOKafkaProducer | None = None
        self._opening: asyncio.Task[AIOKafkaProducer] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open a producer; raises TemporaryError where no broker answers."""
        await self._ready()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when all are durable; raises as the port says."""
        call = Call(len(messages))
        parts = [(self._queue(message), _part(message, call)) for message in messages]
        for queue, part in parts:
            queue.waiting.append(part)
            if queue.task is None:
                queue.task = asyncio.create_task(self._send(queue))
        try:
            async with asyncio.timeout(self._seconds):
                await call.done
        except TimeoutError:
            raise TemporaryError(
                f"the brokers at {self._brokers.servers} did not confirm it in time"
            ) from None
        finally:
            call.done.cancel()

    async def stop(self) -> None:
        """Wait for what is on its way, then close the producer."""
        while sending := [queue.task for queue in self._queues.values() if queue.task]:
            await asyncio.wait(sending)
        producer, self._producer = self._producer, None
        if producer is not None:
            await closed(producer)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _queue(self, message: Message) -> Queue:
        topic = self._topics.get(message.topic)
        if topic is None:
            raise PermanentError(f"{message.topic} is not a declared topic")
        place = (topic.name, partition_of(message.key, topic.partitions))
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = Queue(TopicPartition(*place))
        return queue

    async def _send(self, queue: Queue) -> None:
        try:
            while queue.waiting:
                await self._send_batch(queue)
        finally:
            queue.task = None

    async def _send_batch(self, queue: Queue) -> None:
        """Send one batch; raises nothing, for those who wait are told."""
        calls: list[Call] = []
        producer = None
        try:
            with self._brokers.trouble():
                async with asyncio.timeout(self._seconds):
                    producer = await self._ready()
                    batch = producer.create_batch()
                    calls = queue.fill(batch)
                    if calls:
                        topic, partition = queue.place
                        await (await producer.send_batch(batch, topic, partition=partition))
        except RapportError as error:
            log.warning("bus.publish_failed", reason=error.reason)
            self._leave(producer)
            queue.fail(calls, error)
        except Exception as error:
            reason = f"publishing failed: {type(error).__name__}"
            log.error("bus.publish_failed", reason=reason)
            self._leave(producer)
            queue.fail(calls, TemporaryError(reason))
        else:
            for call in calls:
                call.confirm()

    async def _ready(self) -> AIOKafkaProducer:
        """Return the producer; where there is none all who ask wait for the same one to open."""
        if self._producer is not None:
            return self._producer
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> AIOKafkaProducer:
        try:
            self._producer = await self._brokers.producer(
                acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES
            )
            return self._producer
        finally:
            self._opening = None

    def _leave(self, producer: AIOKafkaProducer | None) -> None:
        """Go on with another producer."""
        if producer is not None and producer is self._producer:
            self._producer = None
            leaving = asyncio.create_task(_abandon(producer))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer that has failed; its own `stop` would wait for its batches for ever."""
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer._sender.close()
    with suppress(Exception):
        await producer.client.close()
    producer._closed = True


def partition_of(key: str | None, partitions: int) -> int:
    """Return the partition that every Kafka client gives a key; without one it is any."""
    if key is None:
        return random.randrange(partitions)
    return _hash(key) % partitions


@lru_cache(maxsize=65_536)
def _hash(key: str) -> int:
    hashed: int = murmur2(key.encode())
    return hashed & 0x7FFFFFFF


def _part(message: Message, call: Call) -> Part:
    topic, key, value, headers = message
    name = None if key is None else key.encode()
    if len(name or b"") + len(value or b"") > MESSAGE_LIMIT:
        raise PermanentError(f"a message for {topic} has over {MESSAGE_LIMIT} bytes")
    headers = list(headers)
    if _size(headers) > HEADERS_LIMIT:
        raise PermanentError(f"a message for {topic} has over {HEADERS_LIMIT} bytes of headers")
    return Part(name, value, headers, call)


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value) for name, value in headers)
