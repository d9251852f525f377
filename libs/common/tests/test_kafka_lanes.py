"""The end of a Kafka group's lanes: who is at work may finish, who rests is not waited for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import pytest
from aiokafka import TopicPartition

from rapport.common.bus.kafka.lanes import Lane, finish
from rapport.common.bus.port import Handler
from rapport.common.bus.rests import rest
from rapport.common.errors import TemporaryError
from rapport.common.events import encode
from rapport.common.events.codec import Record
from rapport.common.testing import Harness, harness

from .shop import SHOP, ItemSold

LONG: Final = 60.0
AT_ONCE: Final = 5.0


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(SHOP) as under_test:
        yield under_test


def at_work(handler: Handler, *records: Record) -> Lane:
    lane = Lane("shop", TopicPartition("letters", 0), handler, 10, lambda lane: None)
    lane.begin(0)
    lane.add(records or [Record("letters", 0, 0, 0, None, b"", ())])
    return lane


async def finished(lane: Lane, drain: float = LONG) -> int | None:
    async with asyncio.timeout(AT_ONCE):
        await finish([lane], drain)
    assert lane.failure is None
    return lane.position


def going_on(go_on: asyncio.Event, then: Callable[[], Awaitable[object]] | None = None) -> Handler:
    async def handle(records: Sequence[Record]) -> None:
        await go_on.wait()
        if then is not None:
            await then()

    return handle


async def for_ever() -> None:
    with rest():
        await asyncio.Event().wait()


async def test_a_handler_at_work_is_let_finish() -> None:
    go_on = asyncio.Event()
    lane = at_work(going_on(go_on))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    assert await finished(lane) == 1


async def test_a_handler_that_goes_on_for_too_long_is_cancelled() -> None:
    lane = at_work(going_on(asyncio.Event()))
    await asyncio.sleep(0)
    assert await finished(lane, drain=0.01) == 0


async def test_a_handler_that_rests_is_not_waited_for() -> None:
    go_on = asyncio.Event()
    go_on.set()
    lane = at_work(going_on(go_on, for_ever))
    await asyncio.sleep(0)
    assert await finished(lane) == 0


async def test_a_handler_that_comes_to_rest_meanwhile_is_not_waited_for() -> None:
    go_on = asyncio.Event()
    lane = at_work(going_on(go_on, for_ever))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    assert await finished(lane) == 0


async def test_a_handler_that_has_rested_is_at_work_again() -> None:
    go_on, rested = asyncio.Event(), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        with rest():
            await asyncio.sleep(0)
        rested.set()
        await go_on.wait()

    lane = at_work(handle)
    await rested.wait()
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    assert await finished(lane) == 1


async def test_a_pause_between_two_tries_is_a_rest(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing = asyncio.Event()

    async def nap(seconds: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(shop.running.clock, "sleep", nap)
    shop.running.resources.failures = [TemporaryError("the store is away")]
    sold = encode(shop.event(ItemSold(till="t1", item="tea")), "letters")
    record = Record(sold.topic, 0, 0, 0, sold.key, sold.value, sold.headers)
    lane = at_work(shop.running.pipeline.handle, record)
    await pausing.wait()
    assert await finished(lane) == 0


async def test_waiting_for_the_relay_is_a_rest(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.running.relay, "room", asyncio.Event().wait)
    lane = at_work(shop.running.pipeline.handle)
    await asyncio.sleep(0)
    assert await finished(lane) == 0
