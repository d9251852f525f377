"""Publishing: what comes for a partition while its last batch is on the way is the next batch.

So a message that comes alone leaves at once, and under load batches grow by themselves; nothing
lingers. A partition has one batch on the way, and a call's messages wait here in their order until
they are part of one. When a batch fails, or a call is not confirmed in time, all that is on the way
fails and the producer is replaced: it is not known what became of its batches, its numbering of
them is broken, and left alone it would go on trying behind the back of those who were told.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from rapport.common.bus.kafka.brokers import ASK_SECONDS, Brokers, closed
from rapport.common.bus.port import HEADERS_LIMIT, MESSAGE_LIMIT
from rapport.common.errors import PermanentError, RapportError, TemporaryError
from rapport.common.events.codec import Headers, Message, PackedHeaders
from rapport.common.events.topics import Topic

BATCH_BYTES: Final = 131_072

log = structlog.get_logger(__name__)


class Call:
    """One call of `publish`: how many of its messages are not durable yet."""

    __slots__ = ("done", "left")

    def __init__(self, left: int, done: asyncio.Future[None]) -> None:
        self.left = left
        self.done = done

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
    """What waits for one partition, and the calls whose messages are on the way to it."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.waiting: deque[Part] = deque()
        self.calls: list[Call] = []
        self.sent: asyncio.Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether anything is on the way."""
        return bool(self.calls)

    def fill(self, batch: BatchBuilder) -> bool:
        """Move what fits into a batch, without what its caller has given up; tell whether any."""
        while self.waiting:
            part = self.waiting.popleft()
            if part.call.done.done():
                continue
            if not batch.append(
                timestamp=None, key=part.key, value=part.value, headers=part.headers
            ):
                self.waiting.appendleft(part)
                break
            self.calls.append(part.call)
        return self.busy

    def confirm(self) -> None:
        """Note that what was on the way has arrived."""
        for call in self._clear():
            call.confirm()

    def fail(self, error: RapportError) -> None:
        """Fail what is on the way and all behind it: nothing may overtake what is lost."""
        for call in self._clear():
            call.fail(error)
        while self.waiting:
            self.waiting.popleft().call.fail(error)

    def _clear(self) -> list[Call]:
        calls, self.calls, self.sent = self.calls, [], None
        return calls


class Publisher:
    """Makes messages durable; `seconds` is how long a call may take."""

    def __init__(self, brokers: Brokers, topics: Mapping[str, Topic], seconds: float) -> None:
        self._brokers = brokers
        self._topics = topics
        self._seconds = seconds
        self._queues: dict[tuple[str, int], Queue] = {}
        self._ready: list[Queue] = []
        self._sending: asyncio.Task[None] | None = None
        self._open: set[asyncio.Future[None]] = set()
        self._producer: AIOKafkaProducer | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open a producer; raises TemporaryError where no broker answers."""
        await self._open_producer()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when all are durable; raises as the port says."""
        loop = asyncio.get_running_loop()
        call = Call(len(messages), loop.create_future())
        parts = [(self._queue(message), _part(message, call)) for message in messages]
        for queue, part in parts:
            if not queue.busy and not queue.waiting:
                self._ready.append(queue)
            queue.waiting.append(part)
        self._send_soon()
        timer = loop.call_later(self._seconds, self._give_up, call)
        self._open.add(call.done)
        try:
            await call.done
        finally:
            self._open.remove(call.done)
            timer.cancel()
            call.done.cancel()

    async def stop(self) -> None:
        """Wait for what is on its way, then close the producer."""
        while self._open:
            await asyncio.wait(self._open)
        if self._sending is not None:
            await self._sending
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

    def _send_soon(self) -> None:
        if self._sending is None and self._ready:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send a batch to each partition that something waits for and nothing is on the way to."""
        try:
            with self._brokers.trouble():
                while self._ready:
                    producer = self._producer or await self._open_producer()
                    await self._send_batch(producer, self._ready.pop())
        except RapportError as error:
            self._fail(error)
        except Exception as error:
            self._fail(TemporaryError(f"publishing failed: {type(error).__name__}"))
        self._sending = None
        self._send_soon()

    async def _send_batch(self, producer: AIOKafkaProducer, queue: Queue) -> None:
        batch = producer.create_batch()
        if queue.fill(batch):
            topic, partition = queue.place
            sent = await producer.send_batch(batch, topic, partition=partition)
            if producer is self._producer:
                queue.sent = sent
                sent.add_done_callback(partial(self._arrived, queue))

    def _arrived(self, queue: Queue, sent: asyncio.Future[Any]) -> None:
        """Confirm a batch and send the next; one of a producer that was left is of no interest."""
        failure = None if sent.cancelled() else sent.exception()
        if sent is not queue.sent:
            return
        if failure is not None:
            self._fail(TemporaryError(f"publishing failed: {type(failure).__name__}"))
            return
        queue.confirm()
        if queue.waiting:
            self._ready.append(queue)
            self._send_soon()

    def _give_up(self, call: Call) -> None:
        """Fail a call that takes too long, and the producer that does not get on."""
        if not call.done.done():
            servers = self._brokers.servers
            error = TemporaryError(f"the brokers at {servers} did not confirm it in time")
            call.fail(error)
            self._fail(error)

    def _fail(self, error: RapportError) -> None:
        """Go on with another producer; all that waited for this one is told."""
        log.warning("bus.publish_failed", reason=error.reason)
        for queue in self._queues.values():
            queue.fail(error)
        self._ready.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            leaving = asyncio.create_task(_abandon(producer))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _open_producer(self) -> AIOKafkaProducer:
        self._producer = await self._brokers.producer(
            acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES
        )
        return self._producer


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer that has failed; its own `stop` would wait for its batches for ever."""
    with suppress(Exception):
        async with asyncio.timeout(ASK_SECONDS):
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
    if not _surely_fit(headers) and _size(headers) > HEADERS_LIMIT:
        raise PermanentError(f"a message for {topic} has over {HEADERS_LIMIT} bytes of headers")
    return Part(name, value, list(headers), call)


def _surely_fit(headers: Headers) -> bool:
    """Tell whether headers are packed and small, which those of our own events are."""
    return (
        isinstance(headers, PackedHeaders)
        and len(headers.names) + len(headers.values) <= HEADERS_LIMIT
    )


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value) for name, value in headers)
