"""Requests that come at the same time go to the bus together, and each hears of its own."""

import asyncio
from collections.abc import Sequence

import pytest

from rapport.common.bus.port import Bus
from rapport.common.clock import ManualClock
from rapport.common.errors import TemporaryError
from rapport.common.events import Message
from rapport.common.testing import MORNING, RecordingBus
from rapport.intake.api.publishing import Publisher


class SlowBus(RecordingBus):
    """A bus whose calls take until they are let through, or are told to fail."""

    def __init__(self) -> None:
        super().__init__(ManualClock(MORNING))
        self.calls: list[list[str | None]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        """Wait for the call's answer, then keep the messages."""
        self.calls.append([message.key for message in messages])
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]
        await super().publish(messages)


def message(key: str) -> Message:
    return Message("rapport.feedback", key, b"{}", ())


async def turns() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def bus() -> SlowBus:
    return SlowBus()


@pytest.fixture
def publisher(bus: Bus) -> Publisher:
    return Publisher(bus)


async def test_what_comes_in_the_same_turn_goes_in_one_call(
    bus: SlowBus, publisher: Publisher
) -> None:
    first, second = publisher.publish([message("a")]), publisher.publish([message("b")])
    await turns()
    assert bus.calls == [["a", "b"]]
    bus.answers[0].set_result(None)
    await asyncio.gather(first, second)
    assert [record.key for record in bus.records] == ["a", "b"]


async def test_the_next_does_not_wait_for_the_call_before(
    bus: SlowBus, publisher: Publisher
) -> None:
    first = publisher.publish([message("a")])
    await turns()
    second = publisher.publish([message("b")])
    await turns()
    assert bus.calls == [["a"], ["b"]]
    bus.answers[1].set_result(None)
    await second
    assert not first.done()
    bus.answers[0].set_result(None)
    await first


async def test_trouble_is_told_to_those_it_concerns_only(
    bus: SlowBus, publisher: Publisher
) -> None:
    first, second = publisher.publish([message("a")]), publisher.publish([message("b")])
    await turns()
    third = publisher.publish([message("c")])
    await turns()
    bus.answers[0].set_exception(TemporaryError("the disk is full"))
    for failed in (first, second):
        with pytest.raises(TemporaryError, match="the disk is full"):
            await failed
    bus.answers[1].set_result(None)
    await third
    assert [record.key for record in bus.records] == ["c"]


async def test_who_gives_up_waiting_leaves_the_others_alone(
    bus: SlowBus, publisher: Publisher
) -> None:
    first, second = publisher.publish([message("a")]), publisher.publish([message("b")])
    await turns()
    first.cancel()
    bus.answers[0].set_result(None)
    await second
    assert bus.calls == [["a", "b"]]


async def test_after_a_pause_the_next_goes_at_once(bus: SlowBus, publisher: Publisher) -> None:
    for number, key in enumerate("ab"):
        published = publisher.publish([message(key)])
        await turns()
        bus.answers[number].set_result(None)
        await published
        await turns()
    assert bus.calls == [["a"], ["b"]]
