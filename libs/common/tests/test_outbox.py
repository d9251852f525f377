"""The relay: what was saved is published, in order and at least once, and only then cleared."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rapport.common.aggregate import Aggregate
from rapport.common.bus.port import Handler, Position, Subscription
from rapport.common.clock import ManualClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.store import Change
from rapport.common.store.outbox import BATCH, ROOM, Relay
from rapport.common.store.sqlite import SqliteStore

MORNING = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
DEFINITELY_ENOUGH = timedelta(minutes=10)
PASSING = TemporaryError("the bus is away")


class Letter(Aggregate):
    COLLECTION = "letter"


class Parcel(Aggregate):
    COLLECTION = "parcel"


class Bus:
    """Keeps what is published; fails when told to, after some of a call's messages went out.

    What is `leaderless` goes nowhere, and fails the call that it is part of.
    """

    def __init__(self) -> None:
        self.published: list[str] = []
        self.calls: list[int] = []
        self.troubles: list[tuple[int, Exception]] = []
        self.refused: set[str] = set()
        self.leaderless: set[str] = set()
        self.open = asyncio.Event()
        self.open.set()

    async def publish(self, messages: Sequence[Message]) -> None:
        await self.open.wait()
        if any(message.key in self.refused for message in messages):
            raise PermanentError("the bus will never take this")
        some, trouble = self.troubles.pop(0) if self.troubles else (len(messages), None)
        written = [message for message in messages[:some] if message.key not in self.leaderless]
        self.published += map(_text, written)
        self.calls.append(len(messages))
        if trouble is not None:
            raise trouble
        if len(written) < len(messages):
            raise PASSING

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> Subscription:
        raise NotImplementedError

    def tail(
        self, topics: Sequence[str], after: Any = None, *, until: Any = None
    ) -> AsyncGenerator[Sequence[Record], None]:
        raise NotImplementedError

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        raise NotImplementedError

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        raise NotImplementedError


def _text(message: Message) -> str:
    return (message.value or b"").decode()


def change(aggregate: Aggregate, *texts: str) -> Change:
    return Change(
        aggregate,
        [(text, Message("letters", aggregate.id, text.encode(), ())) for text in texts],
    )


async def drained(relay: Relay, clock: ManualClock) -> None:
    """Wait until the relay is idle, letting its pauses pass."""
    idle = asyncio.ensure_future(relay.idle())
    while not idle.done():
        clock.move(DEFINITELY_ENOUGH)
        await asyncio.wait({idle}, timeout=0.001)
    await idle


async def tried_again(clock: ManualClock) -> None:
    """Let the relay try again a few times, and come to rest."""
    for step in range(200):
        if step < 100:
            clock.move(DEFINITELY_ENOUGH)
        await asyncio.sleep(0)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MORNING)


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    store = SqliteStore(None, [Letter, Parcel])
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def relay(bus: Bus, store: SqliteStore, clock: ManualClock) -> AsyncIterator[Relay]:
    relay = Relay(bus, store, [Letter, Parcel], clock, sweep_age=timedelta(0))
    await relay.start()
    yield relay
    await relay.stop(drain=0)


async def test_what_is_nudged_is_published_in_order_and_cleared(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    letter = Letter(id="a")
    await store.save_many([change(letter, "a1", "a2")])
    await store.save_many([change(letter, "a3")])
    relay.nudge(Letter, ["a", "absent"])
    await relay.idle()
    assert bus.published == ["a1", "a2", "a3"]
    assert await store.outboxes(Letter, ["a"]) == {}
    assert await store.get(Letter, "a") == letter


async def test_all_that_waits_goes_out_in_one_call(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    letters = [Letter(id=str(number)) for number in range(300)]
    await store.save_many([change(letter, f"{letter.id}-1") for letter in letters])
    await store.save_many([change(Parcel(id="p"), "p1", "p2")])
    relay.nudge(Letter, [letter.id for letter in letters])
    relay.nudge(Parcel, ["p", "p"])
    assert relay.behind == 301
    await relay.idle()
    assert bus.calls == [302]
    assert relay.is_idle


async def test_what_was_not_nudged_is_left_alone(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    await store.save_many([change(Letter(id="a"), "a1"), change(Letter(id="b"), "b1")])
    relay.nudge(Letter, ["a"])
    await relay.idle()
    assert bus.published == ["a1"]
    assert list(await store.outboxes(Letter, ["a", "b"])) == ["b"]


async def test_a_nudge_for_what_is_not_there_does_nothing(
    relay: Relay, bus: Bus, clock: ManualClock, store: SqliteStore
) -> None:
    await store.save_many([change(Letter(id="empty")), change(Letter(id="b"), "b1")])
    relay.nudge(Letter, ["nobody", "empty", "b"])
    await drained(relay, clock)
    assert bus.published == ["b1"]


async def test_a_nudge_while_publishing_is_not_lost(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    letter = Letter(id="a")
    await store.save_many([change(letter, "a1")])
    bus.open.clear()
    relay.nudge(Letter, ["a"])
    await store.get(Letter, "a")
    await store.save_many([change(letter, "a2")])
    relay.nudge(Letter, ["a"])
    assert relay.behind >= 1
    bus.open.set()
    await relay.idle()
    assert sorted(set(bus.published)) == ["a1", "a2"]
    assert await store.outboxes(Letter, ["a"]) == {}


@pytest.mark.parametrize("trouble", [PASSING, RuntimeError("a bug")])
async def test_trouble_keeps_everything_for_another_try(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock, trouble: Exception
) -> None:
    await store.save_many([change(Letter(id="a"), "a1", "a2", "a3")])
    bus.troubles = [(1, trouble), (0, trouble)]
    relay.nudge(Letter, ["a"])
    await drained(relay, clock)
    assert bus.published == ["a1", "a1", "a2", "a3"]
    assert await store.outboxes(Letter, ["a"]) == {}


async def test_pauses_grow_and_are_of_the_clock(relay: Relay, bus: Bus, store: SqliteStore) -> None:
    waits: list[float] = []

    class Recorder(ManualClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

    await relay.stop(drain=0)
    bus.troubles = [(0, TemporaryError("away", delay=0.5)) for _ in range(8)]
    await store.save_many([change(Letter(id="a"), "a1")])
    patient = Relay(bus, store, [], Recorder(MORNING))
    patient.nudge(Letter, ["a"])
    await patient.start()
    await patient.idle()
    await patient.stop(drain=0)
    assert [wait for wait in waits if wait != 10] == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_what_the_bus_refuses_for_good_holds_up_nobody_else(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    await store.save_many([change(Letter(id=id), f"{id}1", f"{id}2") for id in "abc"])
    bus.refused = {"b"}
    relay.nudge(Letter, ["a", "b", "c"])
    await relay.idle()
    assert bus.published == ["a1", "a2", "c1", "c2"]
    assert list(await store.outboxes(Letter, ["a", "b", "c"])) == ["b"]

    bus.refused = set()
    clock.move(timedelta(seconds=10))
    while await store.outboxes(Letter, ["b"]):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert bus.published[4:] == ["b1", "b2"]
    await relay.idle()
    assert relay.age == 0


async def test_a_partition_that_cannot_be_written_holds_up_no_other(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    await store.save_many([change(Letter(id=id), f"{id}1", f"{id}2") for id in "abc"])
    bus.leaderless = {"b"}
    relay.nudge(Letter, ["a", "b", "c"])
    await tried_again(clock)
    assert list(await store.outboxes(Letter, ["a", "b", "c"])) == ["b"]
    assert bus.published == ["a1", "a2", "c1", "c2"] * 2
    assert relay.behind == 1

    await store.save_many([change(Letter(id="d"), "d1")])
    relay.nudge(Letter, ["b", "d"])
    await tried_again(clock)
    assert bus.published[8:] == ["d1"]
    assert relay.trouble == "the bus is away"

    bus.leaderless = set()
    await drained(relay, clock)
    assert bus.published[9:] == ["b1", "b2"]
    assert await store.outboxes(Letter, ["a", "b", "c", "d"]) == {}
    assert relay.trouble is None


async def test_what_has_failed_waits_behind_what_has_not_and_is_not_forgotten(
    relay: Relay,
    bus: Bus,
    store: SqliteStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("rapport.common.store.outbox.monotonic", lambda: now)
    lost = [f"lost {number}" for number in range(BATCH)]
    await store.save_many([change(Letter(id=id), id) for id in [*lost, "fine"]])
    bus.leaderless = set(lost)
    relay.nudge(Letter, lost)
    await tried_again(clock)
    now = 60.0
    relay.nudge(Letter, ["fine"])
    await tried_again(clock)
    assert bus.published == ["fine"]
    assert (relay.behind, relay.age) == (BATCH, 60.0)


async def test_the_pipeline_reads_on_as_soon_as_enough_of_the_rest_is_told(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    names = [str(number) for number in range(ROOM)]
    await store.save_many([change(Letter(id=id), id) for id in [*names, "lost"]])
    bus.leaderless = {"lost"}
    relay.nudge(Letter, ["lost", *names])
    waiting = asyncio.ensure_future(relay.room())
    await tried_again(clock)
    assert waiting.done()
    assert relay.behind == 1


async def test_the_pipeline_waits_while_the_relay_is_far_behind(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    bus.open.clear()
    await store.save_many([change(Letter(id="0"), "0-1")])
    relay.nudge(Letter, [str(number) for number in range(2_000)])
    await relay.room()
    relay.nudge(Parcel, ["one more"])
    waiting = asyncio.ensure_future(relay.room())
    await store.get(Letter, "0")
    assert not waiting.done()
    bus.open.set()
    await waiting
    assert relay.behind <= 2_000


async def test_a_start_publishes_what_an_earlier_process_left_behind(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    await relay.stop()
    await store.save_many([change(Letter(id="a"), "a1"), change(Parcel(id="p"), "p1")])
    fresh = Relay(bus, store, [Letter, Parcel], clock)
    await fresh.start()
    await fresh.idle()
    assert sorted(bus.published) == ["a1", "p1"]
    await fresh.stop()


async def test_the_sweeper_finds_what_nobody_nudged(
    relay: Relay, bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    await store.save_many([change(Letter(id="a"), "a1")])
    clock.move(timedelta(seconds=9))
    await store.get(Letter, "a")
    assert bus.published == []
    clock.move(timedelta(seconds=1))
    while await store.outboxes(Letter, ["a"]):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert bus.published == ["a1"]


async def test_the_sweeper_leaves_young_outboxes_to_their_savers(
    bus: Bus, store: SqliteStore, clock: ManualClock
) -> None:
    relay = Relay(bus, store, [Letter], clock)
    await relay.start()
    await store.save_many([change(Letter(id="a"), "a1")])
    clock.move(timedelta(hours=1))
    for _ in range(3):
        await store.get(Letter, "a")
    assert relay.is_idle
    assert bus.published == []
    await relay.stop()


async def test_stopping_publishes_what_was_nudged(
    relay: Relay, bus: Bus, store: SqliteStore
) -> None:
    await store.save_many([change(Letter(id="a"), "a1")])
    relay.nudge(Letter, ["a"])
    await relay.stop()
    assert bus.published == ["a1"]


async def test_stopping_does_not_wait_for_ever(relay: Relay, bus: Bus, store: SqliteStore) -> None:
    await store.save_many([change(Letter(id="a"), "a1")])
    bus.open.clear()
    relay.nudge(Letter, ["a"])
    await relay.stop(drain=0)
    assert list(await store.outboxes(Letter, ["a"])) == ["a"]


class AnyWeather(RuleBasedStateMachine):
    """Saves, nudges, troubles at any point, crashes: what was saved arrives, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock(MORNING)
        self.store = SqliteStore(None, [Letter, Parcel])
        self.aggregates: dict[tuple[type[Aggregate], str], Aggregate] = {}
        self.saved: dict[str, list[str]] = defaultdict(list)
        self.runner.run(self.begin())

    async def begin(self) -> None:
        self.bus = Bus()
        await self.store.start()
        self.relay = self.new_relay()
        await self.relay.start()

    def new_relay(self) -> Relay:
        kinds = [Letter, Parcel]
        return Relay(self.bus, self.store, kinds, self.clock, sweep_age=timedelta(0))

    @rule(
        kind=st.sampled_from([Letter, Parcel]),
        id=st.sampled_from("abc"),
        count=st.integers(1, 3),
        nudged=st.booleans(),
    )
    def save(self, kind: type[Aggregate], id: str, count: int, nudged: bool) -> None:
        aggregate = self.aggregates.setdefault((kind, id), kind(id=id))
        texts = [f"{kind.COLLECTION}-{id}-{aggregate.version:03}-{n}" for n in range(count)]

        async def save() -> None:
            assert await self.store.save_many([change(aggregate, *texts)]) == [True]
            self.saved[f"{kind.COLLECTION}-{id}"] += texts
            if nudged:
                self.relay.nudge(kind, [id])

        self.runner.run(save())

    @rule(some=st.integers(0, 6), trouble=st.just(PASSING))
    def bring_trouble(self, some: int, trouble: Exception) -> None:
        self.bus.troubles.append((some, trouble))

    @rule(refused=st.sets(st.sampled_from("abc")))
    def refuse(self, refused: set[str]) -> None:
        self.bus.refused = refused

    @rule(leaderless=st.sets(st.sampled_from("abc")))
    def lose_leaders(self, leaderless: set[str]) -> None:
        self.bus.leaderless = leaderless

    @rule(steps=st.integers(1, 12))
    def work(self, steps: int) -> None:
        async def work() -> None:
            for _ in range(steps):
                await self.store.get(Letter, "a")

        self.runner.run(work())

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.clock.move(timedelta(seconds=seconds))
        self.work(2)

    @rule()
    def crash(self) -> None:
        async def crash() -> None:
            await self.relay.stop(drain=0)
            self.relay = self.new_relay()
            await self.relay.start()

        self.runner.run(crash())

    @invariant()
    def nothing_is_cleared_before_it_is_published(self) -> None:
        held = self.runner.run(self.waiting())
        assert self.all_saved() <= {*held, *self.bus.published}

    def all_saved(self) -> set[str]:
        return {text for texts in self.saved.values() for text in texts}

    async def waiting(self) -> list[str]:
        found = [await self.store.outboxes(kind, list("abc")) for kind in (Letter, Parcel)]
        return [event for outboxes in found for outbox in outboxes.values() for event, _ in outbox]

    @invariant()
    def each_aggregate_is_published_in_order(self) -> None:
        arrived: dict[str, list[str]] = defaultdict(list)
        for text in dict.fromkeys(self.bus.published):
            arrived[text.rsplit("-", 2)[0]].append(text)
        for name, texts in arrived.items():
            assert texts == self.saved[name][: len(texts)]

    def teardown(self) -> None:
        try:
            self.bus.troubles, self.bus.refused, self.bus.leaderless = [], set(), set()
            self.runner.run(self.finish())
        finally:
            self.runner.close()

    async def finish(self) -> None:
        await drained(self.relay, self.clock)
        await self.relay.stop(drain=0)
        self.relay = self.new_relay()
        await self.relay.start()
        await drained(self.relay, self.clock)
        assert await self.waiting() == []
        assert {*self.bus.published} == self.all_saved()
        for (kind, id), aggregate in self.aggregates.items():
            stored = await self.store.get(kind, id)
            assert stored == aggregate
        await self.relay.stop()
        await self.store.stop()


TestAnyWeather = AnyWeather.TestCase
TestAnyWeather.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
