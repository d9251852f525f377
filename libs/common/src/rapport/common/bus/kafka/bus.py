"""The bus on Kafka: the port's promises on brokers that all services share.

Publishing, reading as a group and reading without one are told in modules of their own; this one
opens them, knows the topics, and closes everything in bounded time. Topics are created at deploy
time (`rapport topics apply`) and only checked here.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final

from aiokafka import TopicPartition

from rapport.common.bus.kafka.brokers import Brokers
from rapport.common.bus.kafka.publishing import Publisher
from rapport.common.bus.kafka.reading import GroupReader, Timing
from rapport.common.bus.kafka.tailing import tail
from rapport.common.bus.kafka.topics import require, require_offsets
from rapport.common.bus.port import Handler, Position
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.events.topics import OTHERS, TOPICS, Topic

NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


class KafkaBus:
    """The bus over the brokers at `servers` (HOST:PORT, with commas between several).

    `client` has the options of `client_options`. The clock is what pauses between attempts go by;
    how old a record is, the brokers' time says. It is started and stopped once.
    """

    def __init__(
        self,
        servers: str,
        *,
        topics: Mapping[str, Topic] = TOPICS,
        clock: Clock | None = None,
        client: Mapping[str, Any] = NO_OPTIONS,
        timing: Timing | None = None,
    ) -> None:
        self._topics = topics
        self._clock = clock or SystemClock()
        self._timing = timing or Timing()
        self._brokers = Brokers(servers, client)
        self._publisher = Publisher(self._brokers, topics, self._timing.publish)
        self._readers: list[GroupReader] = []
        self._opened = False
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Connect; raises TemporaryError where no broker answers within some seconds.

        Raises PermanentError where the brokers are too old, or a topic is missing or is not as
        services need it.
        """
        await self._brokers.require_version()
        await require(self._brokers, self._topics)
        await self._publisher.start()
        self._opened = True

    async def stop(self) -> None:
        """Stop those who still read, finish what is being published, disconnect."""
        if not self._opened:
            return
        self._opened = False
        self._stopped.set()
        await asyncio.gather(*(reader.stop() for reader in self._readers))
        await self._publisher.stop()
        await self._brokers.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make `messages` durable, in eight seconds or not at all as far as it is known."""
        self._require_open()
        if messages:
            await self._publisher.publish(messages)

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> GroupReader:
        """Read `topics` for `group`, with all others who do so.

        Raises PermanentError where the group has no offset to begin at and the log has lost its
        beginning, so that nobody can say whether something would be left out.
        """
        self._require_open()
        places = self._places(topics)
        await require_offsets(self._brokers, group, places)
        judged = {name for name in topics if self._topics[name].writer != OTHERS}
        reader = GroupReader(
            self._brokers, self._clock, self._timing, group, places, judged, handler, max_batch
        )
        await reader.start()
        self._readers.append(reader)
        return reader

    async def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read without a group until the bus stops; see the port."""
        self._require_open()
        places, given = self._places(topics), after or {}
        positions = {place: given[place] + 1 for place in places if place in given}
        rest = [place for place in places if place not in positions]
        if rest:
            positions |= await self._brokers.ends(rest)
        async with aclosing(
            tail(self._brokers, self._clock, positions, self._stopped, self._timing.stall, until)
        ) as items:
            async for records in items:
                yield records

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset of the oldest record that is kept; else its end."""
        self._require_open()
        return dict(await self._brokers.starts(self._places(topics)))

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset that the next record will get."""
        self._require_open()
        return dict(await self._brokers.ends(self._places(topics)))

    def _require_open(self) -> None:
        if not self._opened:
            raise TemporaryError("the bus is not open")

    def _places(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [
            TopicPartition(topic.name, number)
            for topic in map(self._declared, topics)
            for number in range(topic.partitions)
        ]

    def _declared(self, name: str) -> Topic:
        if name not in self._topics:
            raise PermanentError(f"{name} is not a declared topic")
        return self._topics[name]
