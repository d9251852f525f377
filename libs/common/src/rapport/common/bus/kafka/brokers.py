"""The brokers, as all parts of this adapter reach them: in bounded time, and with our error words.

Questions about offsets have a client of their own: on the connection of one that fetches, an answer
waits until a fetch that finds nothing has waited for something, a tenth of a second each time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerResponseError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    IncompatibleBrokerVersion,
    KafkaError,
    NotCoordinatorForGroupError,
    UnsupportedVersionError,
    for_code,
)
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from rapport.common.errors import PermanentError, TemporaryError

REQUEST_SECONDS: Final = 10.0
ASK_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 15.0
PAUSE_SECONDS: Final = 0.1
REQUEST_MS: Final = int(REQUEST_SECONDS * 1000)

OLDEST: Final = "2.4"
"""The oldest version of Kafka that is supported: the one with all of `NEEDED`."""

NEEDED: Final = {
    "Produce": (0, 8),
    "Fetch": (1, 11),
    "JoinGroup": (11, 5),
    "InitProducerId": (22, 0),
}
"""Requests that a broker must know, each by its number and version."""

log = structlog.get_logger(__name__)

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
"""Without brokers it says so many times a second; what matters of that is told by us."""

_MOVES: Final = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
"""What is said of a group whose coordinator is not there yet, or is another by now."""

T = TypeVar("T")
Versions = Mapping[int, tuple[int, int]]


class Client(Protocol):
    """What consumers and producers have in common."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


Some = TypeVar("Some", bound=Client)


class Brokers:
    """The brokers at `servers`, spoken to with the options of `client`."""

    def __init__(self, servers: str, client: Mapping[str, Any]) -> None:
        self.servers = servers
        self._options = {
            "bootstrap_servers": servers,
            "client_id": "rapport",
            "request_timeout_ms": REQUEST_MS,
            **client,
        }
        self._asking: AIOKafkaConsumer | None = None
        self._coordinating: AIOKafkaClient | None = None
        self._opening_asking = asyncio.Lock()
        self._opening_coordinating = asyncio.Lock()

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Turn what goes wrong with the brokers into a TemporaryError, or a PermanentError."""
        try:
            yield
        except (IncompatibleBrokerVersion, UnsupportedVersionError, NotImplementedError):
            raise PermanentError(
                f"the brokers at {self.servers} are of a version that is not supported"
            ) from None
        except (KafkaError, OSError, TimeoutError) as error:
            raise TemporaryError(
                f"the brokers at {self.servers} cannot be used: {type(error).__name__}"
            ) from error

    async def require_version(self) -> None:
        """Raise PermanentError where a broker is older than `OLDEST`."""
        client = AIOKafkaClient(**self._options)
        try:
            with self.trouble():
                async with asyncio.timeout(REQUEST_SECONDS):
                    await client.bootstrap()
                    node = client.get_random_node()
                    answer = await client.send(node, ApiVersionRequest())
        finally:
            await client.close()
        versions = {key: (least, most) for key, least, most in answer.api_versions}
        if lacking := missing_requests(versions):
            raise PermanentError(
                f"the brokers at {self.servers} are older than Kafka {OLDEST}: they lack "
                f"{', '.join(lacking)}"
            )

    async def consumer(self, **settings: Any) -> AIOKafkaConsumer:
        """Return a consumer that has been started; the caller closes it."""
        settings = {"enable_auto_commit": False, "isolation_level": "read_committed", **settings}
        return await self._opened(AIOKafkaConsumer(**self._options, **settings))

    async def producer(self, **settings: Any) -> AIOKafkaProducer:
        """Return a producer that has been started; the caller closes it."""
        return await self._opened(AIOKafkaProducer(**self._options, **settings))

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Return an admin client while the block runs."""
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await admin.start()
            yield admin
        finally:
            await admin.close()

    async def starts(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record that is kept, else its end."""
        return await self._offsets("beginning_offsets", places)

    async def ends(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset that the next record of each partition will get."""
        return await self._offsets("end_offsets", places)

    async def committed(self, group: str, patience: float = 0.0) -> dict[TopicPartition, int]:
        """Return what a group's members have committed, on all partitions that they have read.

        That a partition is not among them means that nothing was committed on it. Raises
        TemporaryError where its coordinator does not say so, even when asked for `patience` seconds
        more.
        """
        until = monotonic() + patience
        while True:
            try:
                return await self._told(group)
            except TemporaryError as error:
                passes = getattr(error.__cause__, "retriable", True)
                if monotonic() >= until or not passes:
                    raise
                log.info("bus.offsets_wait", group=group, reason=error.reason)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _told(self, group: str) -> dict[TopicPartition, int]:
        client = await self._coordinated()
        try:
            with self.trouble():
                async with asyncio.timeout(ASK_SECONDS):
                    return await _committed(client, group)
        except TemporaryError as error:
            if self._coordinating is client and not isinstance(
                error.__cause__, BrokerResponseError
            ):
                self._coordinating = None
                await _ended(client)
            raise

    async def close(self) -> None:
        """Close the clients that ask for offsets; the next question opens others."""
        asking, self._asking = self._asking, None
        coordinating, self._coordinating = self._coordinating, None
        if asking is not None:
            await closed(asking)
        if coordinating is not None:
            await _ended(coordinating)

    async def _opened(self, client: Some) -> Some:
        await self._begun(client.start(), partial(closed, client))
        return client

    async def _begun(self, beginning: Awaitable[None], end: Callable[[], Awaitable[None]]) -> None:
        """Let a client connect, in bounded time; where it does not, it is ended."""
        try:
            with self.trouble():
                async with asyncio.timeout(REQUEST_SECONDS):
                    await beginning
        except BaseException:
            await end()
            raise

    async def _offsets(
        self, question: str, places: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Ask about all topics at once: the first question about one costs a tenth of a second."""
        by_topic: dict[str, list[TopicPartition]] = {}
        for place in places:
            by_topic.setdefault(place.topic, []).append(place)
        asking = await self._asked()
        try:
            with self.trouble():
                async with asyncio.timeout(ASK_SECONDS):
                    answers = await together(
                        getattr(asking, question)(some) for some in by_topic.values()
                    )
        except TemporaryError:
            await self._stop_asking(asking)
            raise
        return {place: offset for answer in answers for place, offset in answer.items()}

    async def _asked(self) -> AIOKafkaConsumer:
        async with self._opening_asking:
            if self._asking is None:
                self._asking = await self.consumer()
            return self._asking

    async def _stop_asking(self, asking: Client) -> None:
        if self._asking is asking:
            self._asking = None
            await closed(asking)

    async def _coordinated(self) -> AIOKafkaClient:
        async with self._opening_coordinating:
            if self._coordinating is None:
                client = AIOKafkaClient(**self._options)
                await self._begun(client.bootstrap(), partial(_ended, client))
                self._coordinating = client
            return self._coordinating


async def _committed(client: AIOKafkaClient, group: str) -> dict[TopicPartition, int]:
    """Ask a group's coordinator, and again where that is not there yet.

    The client's own questions overlook an error that concerns the whole group: they would tell that
    nothing was committed.
    """
    while True:
        try:
            where = await client.send(client.get_random_node(), FindCoordinatorRequest(group, 0))
            _refuse(where.error_code)
            answer = await client.send(where.coordinator_id, OffsetFetchRequest(group, None))
            return _offsets_in(answer)
        except _MOVES:
            await asyncio.sleep(PAUSE_SECONDS)


def _offsets_in(answer: Any) -> dict[TopicPartition, int]:
    """Return the offsets that an answer names; raises KafkaError for one that is no answer."""
    _refuse(answer.error_code)
    found: dict[TopicPartition, int] = {}
    for topic, partitions in answer.topics:
        for partition, offset, _, code in partitions:
            _refuse(code)
            if offset >= 0:
                found[TopicPartition(topic, partition)] = offset
    return found


def _refuse(code: int) -> None:
    if code:
        raise for_code(code)()


async def together(work: Iterator[Awaitable[T]]) -> list[T]:
    """Return the results of all; where one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _ended(client: AIOKafkaClient) -> None:
    """Close a client's connections, in bounded time and whatever state it is in."""
    with suppress(Exception):
        async with asyncio.timeout(ASK_SECONDS):
            await client.close()


async def closed(client: Client) -> None:
    """Close a client, whatever state it is in; where that fails or takes long, its connections.

    It has a task of its own, for it can end as if it had been cancelled (aiokafka cancels its
    fetches and awaits them).
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=CLOSE_SECONDS)
        if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
            return
    finally:
        stopping.cancel()
    fetching: asyncio.Task[None] | None = getattr(vars(client).get("_fetcher"), "_fetch_task", None)
    if fetching is not None:  # it would connect again, and fetch for nobody
        fetching.cancel()
    await _ended(vars(client).get("client") or vars(client)["_client"])


def missing_requests(versions: Versions) -> list[str]:
    """Return the names of what is needed and a broker of these versions does not know."""
    return [
        name for name, (key, version) in NEEDED.items() if versions.get(key, (0, -1))[1] < version
    ]
