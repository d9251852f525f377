"""Publishing: what comes for a broker while a request is on the way to it is the next request.

So a message that comes alone leaves at once, and under load batches grow by themselves; nothing
lingers. The client has one request under way for each broker, so a batch that was closed earlier
would leave no sooner, only smaller. A partition has one batch on the way, and a call's messages
wait here in their order until they are part of one. When a batch fails, or a call is not confirmed
in time, all that is on the way fails and the producer is replaced: it is not known what became of
its batches, its numbering of them is broken, and left alone it would go on trying behind the back
of those who were told.
"""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from rapport.common.bus.kafka.brokers import ASK_SECONDS, Brokers, closed
from rapport.common.bus.port import HEADERS_LIMIT, MESSAGE_LIMIT, headers_size
from rapport.common.errors import PermanentError, RapportError, TemporaryError
from rapport.common.events.codec import Headers, Message, PackedHeaders
from rapport.common.events.topics import Topic

BATCH_BYTES: Final = 131_072
REQUEST_SECONDS: Final = 0.5
"""For how long what comes for a broker waits for the answer to the request before."""

_NOBODY: Final = (None, -1)
"""In place of a broker: the client does not know the topic yet, or nobody leads the partition."""

log = structlog.get_logger(__name__)


class Call:
    """One call of `publish`: how many of its messages are not durable yet, and until when.

    `until` is by the loop's clock.
    """

    __slots__ = ("done", "left", "until")

    def __init__(self, left: int, done: asyncio.Future[None], until: float) -> None:
        self.left = left
        self.done = done
        self.until = until

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
        self.leader: int | None = None
        self.waiting: deque[Part] = deque()
        self.calls: list[Call] = []
        self.sent: asyncio.Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether anything is on the way."""
        return bool(self.calls)

    def led_as(self, producer: AIOKafkaProducer | None) -> None:
        """Note which broker leads the partition; None where the producer does not know it."""
        known = producer.client.cluster if producer is not None else None
        self.leader = known.leader_for_partition(self.place) if known is not None else None

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

    def clear(self) -> list[Call]:
        """Have nothing on the way any more; returns whose messages were."""
        calls, self.calls, self.sent = self.calls, [], None
        return calls

    def fail(self, error: RapportError) -> None:
        """Fail what is on the way and all behind it: nothing may overtake what is lost."""
        for call in self.clear():
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
        self._ready: defaultdict[int | None, list[Queue]] = defaultdict(list)
        self._under_way: dict[int | None, asyncio.TimerHandle] = {}
        self._sending: asyncio.Task[None] | None = None
        self._open: dict[Call, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._producer: AIOKafkaProducer | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open a producer; raises TemporaryError where no broker answers."""
        await self._open_producer()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when all are durable; raises as the port says."""
        loop = asyncio.get_running_loop()
        call = Call(len(messages), loop.create_future(), loop.time() + self._seconds)
        parts = [(self._queue(message), _part(message, call)) for message in messages]
        for queue, part in parts:
            if not queue.busy and not queue.waiting:
                self._let_send(queue)
            queue.waiting.append(part)
        self._send_soon()
        if self._timer is None:
            self._timer = loop.call_at(call.until, self._look_for_late)
        self._open[call] = None
        try:
            await call.done
        finally:
            del self._open[call]

    async def stop(self) -> None:
        """Wait for what is on its way, then close the producer."""
        while self._open:
            await asyncio.wait([call.done for call in self._open])
        if self._timer is not None:
            self._timer.cancel()
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

    def _let_send(self, queue: Queue) -> None:
        """Have a queue sent with the next request to the broker that leads its partition."""
        queue.led_as(self._producer)
        self._ready[queue.leader].append(queue)

    def _send_soon(self) -> None:
        if self._sending is None and self._ready.keys() - self._under_way.keys():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send what waits for brokers that nothing is on the way to, and what waits for its leader.

        It is a task, so that what else comes in this turn of the loop goes along.
        """
        with self._telling():
            while leaders := self._ready.keys() - self._under_way.keys():
                for queue in self._ready.pop(leaders.pop()):
                    producer = self._producer or await self._open_producer()
                    if queue.leader is None:
                        await self._learn(producer, queue)
                    if producer is self._producer:  # else all that waited has been told
                        self._send_batch(producer, queue)
        self._sending = None
        self._send_soon()

    async def _learn(self, producer: AIOKafkaProducer, queue: Queue) -> None:
        """Have a producer know a topic; one that is left meanwhile would wait for ever."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await producer.partitions_for(queue.place.topic)
            queue.led_as(producer)
        except Exception:
            if producer is self._producer:
                raise

    def _send_batch(self, producer: AIOKafkaProducer, queue: Queue) -> None:
        batch = producer.create_batch()
        if not queue.busy and queue.fill(batch):
            self._note_under_way(queue.leader)
            queue.sent = _submit(producer, batch, queue.place)
            queue.sent.add_done_callback(partial(self._arrived, queue))

    def _note_under_way(self, leader: int | None) -> None:
        """Let what comes for a broker wait for an answer, but not for one that does not come."""
        if leader not in _NOBODY and leader not in self._under_way:
            later = asyncio.get_running_loop().call_later
            self._under_way[leader] = later(REQUEST_SECONDS, self._let_go, leader)

    def _free(self, leader: int | None) -> None:
        timer = self._under_way.pop(leader, None)
        if timer is not None:
            timer.cancel()

    def _let_go(self, leader: int | None) -> None:
        self._free(leader)
        self._send_soon()

    def _arrived(self, queue: Queue, sent: asyncio.Future[Any]) -> None:
        """Send what waits, confirm a batch; one of a producer that was left is of no interest.

        The first of a request's batches says that it was answered, whatever the client still tries
        again of it. The client looks for its next request right after this, so that is seen to
        first, and before those who were waiting go on.
        """
        failure = None if sent.cancelled() else sent.exception()
        if sent is not queue.sent or self._producer is None:
            return
        if failure is not None:
            self._fail(TemporaryError(f"publishing failed: {type(failure).__name__}"))
            return
        calls = queue.clear()
        self._free(queue.leader)
        with self._telling():
            if queue.waiting:
                self._let_send(queue)
            for leader in self._ready.keys() - self._under_way.keys() - {None}:
                for each in self._ready.pop(leader):
                    self._send_batch(self._producer, each)
        self._send_soon()
        for call in calls:
            call.confirm()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell all who wait what goes wrong."""
        try:
            with self._brokers.trouble():
                yield
        except RapportError as error:
            self._fail(error)
        except Exception as error:
            self._fail(TemporaryError(f"publishing failed: {type(error).__name__}"))

    def _look_for_late(self) -> None:
        """Fail the oldest call if it takes too long, and the producer that does not get on."""
        self._timer = None
        loop = asyncio.get_running_loop()
        oldest = next((call for call in self._open if not call.done.done()), None)
        if oldest is None:
            return
        if oldest.until > loop.time():
            self._timer = loop.call_at(oldest.until, self._look_for_late)
            return
        error = TemporaryError(f"the brokers at {self._brokers.servers} did not confirm it in time")
        oldest.fail(error)
        self._fail(error)

    def _fail(self, error: RapportError) -> None:
        """Go on with another producer; all that waited for this one is told."""
        log.warning("bus.publish_failed", reason=error.reason)
        for queue in self._queues.values():
            queue.fail(error)
        self._ready.clear()
        for leader in list(self._under_way):
            self._free(leader)
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


def _submit(
    producer: AIOKafkaProducer, batch: BatchBuilder, place: TopicPartition
) -> asyncio.Future[Any]:
    """Let the client send a batch; raises TemporaryError where it cannot take it at once.

    It knows the topic by now and has nothing else for the partition, so it has nothing to wait for:
    it is done in its first step.
    """
    sending = producer.send_batch(batch, place.topic, partition=place.partition)
    try:
        sending.send(None)
    except StopIteration as taken:
        sent: asyncio.Future[Any] = taken.value
        return sent
    sending.close()
    raise TemporaryError("the client does not take any more")


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
    if not _surely_fit(headers) and headers_size(headers) > HEADERS_LIMIT:
        raise PermanentError(f"a message for {topic} has over {HEADERS_LIMIT} bytes of headers")
    return Part(name, value, list(headers), call)


def _surely_fit(headers: Headers) -> bool:
    """Tell whether headers are packed and small, which those of our own events are."""
    return (
        isinstance(headers, PackedHeaders)
        and len(headers.names) + len(headers.values) <= HEADERS_LIMIT
    )
