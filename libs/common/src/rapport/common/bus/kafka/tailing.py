"""Reading without a group: from given offsets, by a consumer of one's own, until the bus stops.

Trouble with the brokers is waited out here, with a new consumer at the offsets that were reached.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from rapport.common.bus.kafka.brokers import Brokers, Client, closed
from rapport.common.bus.kafka.fetching import SETTINGS, Fetching
from rapport.common.bus.port import Expired, Position
from rapport.common.clock import Clock
from rapport.common.errors import TemporaryError, pause_after, reason_of
from rapport.common.events.codec import Record

log = structlog.get_logger(__name__)

Positions = dict[TopicPartition, int]


async def tail(
    brokers: Brokers,
    clock: Clock,
    positions: Positions,
    stopped: asyncio.Event,
    stall: float,
    until: Mapping[Position, int] | None = None,
) -> AsyncGenerator[Sequence[Record], None]:
    """Yield what comes from `positions` on, each item of one partition; see the port."""
    tries = 0
    while not stopped.is_set():
        try:
            async with aclosing(_read(brokers, positions, stopped, stall, until)) as items:
                async for records in items:
                    tries = 0
                    last = records[-1]
                    positions[TopicPartition(last.topic, last.partition)] = last.offset + 1
                    yield records
            return
        except TemporaryError as error:
            tries += 1
            log.warning("bus.tails_again", reason=reason_of(error))
            await _until(stopped, clock, pause_after(error, tries))


async def _read(
    brokers: Brokers,
    positions: Mapping[TopicPartition, int],
    stopped: asyncio.Event,
    stall: float,
    until: Mapping[Position, int] | None,
) -> AsyncGenerator[Sequence[Record], None]:
    """Read with one consumer, until the bus stops; raises TemporaryError where it fails."""
    await _require(brokers, positions)
    consumer = await brokers.consumer(**SETTINGS)
    closing = asyncio.create_task(_close_at_end(consumer, stopped))
    try:
        consumer.assign(list(positions))
        for place, position in positions.items():
            consumer.seek(place, position)
        fetching = Fetching(consumer, brokers)
        fetching.positions |= positions
        moved = monotonic()
        while not stopped.is_set() and not await _is_past(consumer, until):
            fetched = await fetching.some()
            for records in fetched.values():
                yield records
            if fetched:
                moved = monotonic()
            elif monotonic() - moved > stall:
                await _require_progress(brokers, fetching.positions)
                moved = monotonic()
    except OffsetOutOfRangeError:
        await _require(brokers, positions)
        raise TemporaryError("an offset was out of range") from None
    except TemporaryError:
        if not stopped.is_set():
            raise
    except KafkaError as error:
        if not stopped.is_set():
            raise TemporaryError(f"reading failed: {type(error).__name__}") from error
    finally:
        if not stopped.is_set():
            closing.cancel()
            await closed(consumer)
        await asyncio.gather(closing, return_exceptions=True)


async def _is_past(consumer: AIOKafkaConsumer, until: Mapping[Position, int] | None) -> bool:
    """Tell whether a reading has come to its end, past the marks of transactions, too."""
    if until is None:
        return False
    for place, end in until.items():
        if await consumer.position(TopicPartition(*place)) < end:
            return False
    return True


async def _require(brokers: Brokers, positions: Mapping[TopicPartition, int]) -> None:
    """Raise Expired where what comes next has left the log, or the log ends before it."""
    starts, ends = await brokers.starts(positions), await brokers.ends(positions)
    for place, position in positions.items():
        if position < starts[place]:
            raise Expired(f"{place.topic}/{place.partition} starts after offset {position}")
        if position > ends[place]:
            raise Expired(f"{place.topic}/{place.partition} ends before offset {position}")


async def _require_progress(brokers: Brokers, positions: Mapping[TopicPartition, int]) -> None:
    ends = await brokers.ends(positions)
    if any(position < ends[place] for place, position in positions.items()):
        raise TemporaryError("the consumer stands still")


async def _close_at_end(consumer: Client, stopped: asyncio.Event) -> None:
    await stopped.wait()
    await closed(consumer)


async def _until(stopped: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Wait `seconds`, or until the bus stops."""
    waits = [asyncio.create_task(clock.sleep(seconds)), asyncio.create_task(stopped.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
