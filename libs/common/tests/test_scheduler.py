"""What falls due is carried out, told with a kitchen full of eggs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from prometheus_client import REGISTRY
from pydantic import Field
from structlog.testing import capture_logs

from rapport.common.aggregate import Aggregate, Cause, Due
from rapport.common.clock import ManualClock
from rapport.common.engine import Engine, Step
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.envelope import Instant
from rapport.common.handling import DueHandler, due
from rapport.common.scheduler import (
    BATCH,
    CONCURRENT_EFFECTS,
    HOLD_LIMIT,
    MOST_EFFECTS,
    RETRY_AFTER_FAILURE,
    Scheduler,
)
from rapport.common.store.outbox import Relay
from rapport.common.store.port import Change
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING, RecordingBus

MINUTE = timedelta(minutes=1)
LATE = 61.0


class Egg(Aggregate):
    """Turned and taken out at its times; `rotten` ones make the decision fail."""

    COLLECTION: ClassVar[str] = "eggs"

    times: dict[str, Instant] = Field(default_factory=dict)
    done: list[str] = Field(default_factory=list)
    rotten: bool = False

    def due(self) -> Iterable[Due]:
        for name, at in self.times.items():
            if name not in self.done:
                yield Due(name, at)


@dataclass
class Cook:
    """What the kitchen's handler works with."""

    prepared: list[list[str]] = field(default_factory=list)
    decided: list[tuple[str, str, datetime]] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    may_serve: asyncio.Event = field(default_factory=asyncio.Event)
    burnt: bool = False


async def salt(eggs: Sequence[Egg], cook: Cook) -> Cook:
    cook.prepared.append([egg.id for egg in eggs])
    return cook


async def serve(egg: Egg, cook: Cook) -> None:
    await cook.may_serve.wait()
    if cook.burnt:
        raise OSError("the plate fell")
    cook.served.append(egg.id)


def attend(egg: Egg, item: Due, cook: Cook) -> Egg:
    if egg.rotten:
        raise PermanentError("it smells")
    cook.decided.append((egg.id, item.name, item.at))
    egg.done.append(item.name)
    return egg


AND_SERVE = due(Egg, prepare=salt, then=serve)(attend)
NO_MORE = due(Egg, prepare=salt)(attend)


class Kitchen:
    """A scheduler over a real store in memory, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(MORNING)
        self.store = SqliteStore(None, [Egg])
        relay = Relay(RecordingBus(self.clock), self.store, [Egg], self.clock)
        self.engine = Engine("kitchen", self.store, relay, self.clock)
        self.cook = Cook()
        self.cook.may_serve.set()
        self.lag = 0.0
        self.scheduler = self.hire(AND_SERVE)

    def hire(self, handler: DueHandler[Egg]) -> Scheduler:
        """Return a scheduler with this handler."""
        return Scheduler(self.engine, self.clock, [handler], self.cook, self._lag_seconds)

    async def lay(self, *eggs: Egg) -> None:
        """Store eggs."""
        assert all(await self.store.save_many([Change(egg) for egg in eggs]))

    async def fire(self) -> int:
        """Carry out what is due now."""
        return await self.scheduler.fire(self.clock.now())

    def meanwhile(self, id: str, change: Callable[[Egg], object]) -> None:
        """Let somebody else change an egg just before the scan's next save."""
        save_many = self.store.save_many

        def changed(egg: Egg) -> Egg:
            change(egg)
            return egg

        async def somebody_is_faster(changes: Sequence[Change]) -> list[bool]:
            self.store.save_many = save_many  # type: ignore[method-assign]
            step = Step(Cause(id="meanwhile", time=MORNING), changed)
            await self.engine.apply(Egg, {id: [step]})
            return await save_many(changes)

        self.store.save_many = somebody_is_faster  # type: ignore[method-assign]

    async def scanned(self) -> None:
        """Let the scan that runs by itself come to rest, the clock standing still."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def _lag_seconds(self) -> float:
        return self.lag


def egg(id: str, *, rotten: bool = False, **minutes: float) -> Egg:
    """Return an egg whose items fall due so many minutes after the morning began."""
    times = {name: MORNING + after * MINUTE for name, after in minutes.items()}
    return Egg(id=id, times=times, rotten=rotten)


@pytest.fixture
async def kitchen() -> AsyncIterator[Kitchen]:
    kitchen = Kitchen()
    await kitchen.store.start()
    yield kitchen
    await kitchen.scheduler.stop(drain=0)
    await kitchen.store.stop()


async def test_what_is_due_happens_in_order_each_once_with_its_due_time(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", turn=1, take_out=3), egg("b", take_out=2), egg("c", take_out=30))
    kitchen.clock.move(5 * MINUTE)

    assert await kitchen.fire() == 3
    assert await kitchen.fire() == 0
    assert kitchen.cook.decided == [
        ("a", "turn", MORNING + MINUTE),
        ("a", "take_out", MORNING + 3 * MINUTE),
        ("b", "take_out", MORNING + 2 * MINUTE),
    ]
    assert kitchen.cook.prepared == [["a", "b"]]
    assert await kitchen.scheduler.next_due() == MORNING + 30 * MINUTE


async def test_several_items_of_one_aggregate_are_one_save_and_one_effect(
    kitchen: Kitchen,
) -> None:
    await kitchen.lay(egg("a", turn=1, take_out=2))
    kitchen.clock.move(5 * MINUTE)
    await kitchen.fire()
    await kitchen.scheduler.settle_effects()

    stored = await kitchen.store.get(Egg, "a")
    assert stored is not None
    assert (stored.version, stored.done) == (2, ["turn", "take_out"])
    assert kitchen.cook.served == ["a"]


async def test_more_than_a_batch_is_worked_through(kitchen: Kitchen) -> None:
    await kitchen.lay(*(egg(f"{number:04}", boil=1) for number in range(2 * BATCH + 1)))
    kitchen.clock.move(MINUTE)

    assert await kitchen.hire(NO_MORE).fire(kitchen.clock.now()) == 2 * BATCH + 1
    assert [len(batch) for batch in kitchen.cook.prepared] == [BATCH, BATCH, 1]


async def test_no_more_is_begun_than_can_be_acted_on_at_once(kitchen: Kitchen) -> None:
    names = [f"{number:04}" for number in range(CONCURRENT_EFFECTS + 1)]
    await kitchen.lay(*(egg(name, boil=0) for name in names))
    kitchen.cook.may_serve.clear()
    kitchen.scheduler.start()
    await kitchen.scanned()
    assert len(kitchen.cook.decided) == CONCURRENT_EFFECTS

    kitchen.cook.may_serve.set()
    await kitchen.scanned()
    assert sorted(kitchen.cook.served) == names


async def test_what_there_is_no_room_for_is_seen_to_be_late(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    kitchen.cook.may_serve.clear()
    for number in range(MOST_EFFECTS):
        kitchen.scheduler.begin(serve, egg(f"{number}"))
    kitchen.clock.move(5 * MINUTE)

    assert await kitchen.fire() == 0
    late = REGISTRY.get_sample_value("rapport_due_items_late_seconds", {"service": "kitchen"})
    assert late == 5 * 60


async def test_what_was_settled_since_the_scan_read_it_does_not_happen(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=1))
    kitchen.clock.move(MINUTE)
    kitchen.meanwhile("a", lambda egg: egg.done.append("boil"))

    assert await kitchen.fire() == 0
    await kitchen.scheduler.settle_effects()
    assert kitchen.cook.served == []


async def test_what_was_put_off_since_the_scan_read_it_does_not_rest(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=1))
    kitchen.clock.move(MINUTE)
    later = kitchen.clock.now() + timedelta(seconds=1)
    kitchen.meanwhile("a", lambda egg: egg.times.update(boil=later))

    assert await kitchen.fire() == 0
    kitchen.clock.move_to(later)
    assert await kitchen.fire() == 1
    assert kitchen.cook.decided[-1] == ("a", "boil", later)


async def test_what_was_saved_is_acted_on_though_others_of_its_batch_meet_trouble(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> dict[str, Egg]:
        raise TemporaryError("the store is away")

    await kitchen.lay(egg("a", boil=0), egg("b", boil=0))
    kitchen.meanwhile("b", lambda _: monkeypatch.setattr(kitchen.store, "get_many", away))
    await kitchen.fire()
    await kitchen.scheduler.settle_effects()
    assert kitchen.cook.served == ["a"]

    monkeypatch.undo()
    assert await kitchen.fire() == 1
    await kitchen.scheduler.settle_effects()
    assert kitchen.cook.served == ["a", "b"]


async def test_a_decision_that_fails_rests_for_a_minute_and_holds_up_nobody(
    kitchen: Kitchen,
) -> None:
    bad = [egg(f"bad {number}", rotten=True, boil=0) for number in range(CONCURRENT_EFFECTS)]
    await kitchen.lay(*bad, egg("good", boil=1), egg("later", boil=1.5))
    kitchen.clock.move(MINUTE)
    with capture_logs() as logs:
        await kitchen.fire()
    assert {entry["event"] for entry in logs} == {"due.failed"}
    kitchen.clock.move(MINUTE / 2)
    await kitchen.fire()
    assert {id for id, _, _ in kitchen.cook.decided} == {"good", "later"}
    tried = sum(map(len, kitchen.cook.prepared))

    kitchen.clock.move(RETRY_AFTER_FAILURE)
    with capture_logs():
        await kitchen.fire()
    assert sum(map(len, kitchen.cook.prepared)) == tried + CONCURRENT_EFFECTS


async def test_an_effect_that_fails_leaves_the_decision_and_the_others_alone(
    kitchen: Kitchen,
) -> None:
    await kitchen.lay(egg("a", boil=1), egg("b", boil=2))
    kitchen.cook.burnt = True
    kitchen.clock.move(MINUTE)
    with capture_logs() as logs:
        assert await kitchen.fire() == 1
        await kitchen.scheduler.settle_effects()
    assert [entry["event"] for entry in logs] == ["effect.failed"]

    kitchen.cook.burnt = False
    kitchen.clock.move(MINUTE)
    assert await kitchen.fire() == 1
    await kitchen.scheduler.settle_effects()
    assert kitchen.cook.served == ["b"]


async def test_what_is_leased_by_the_save_itself_has_a_quarter_of_the_room(
    kitchen: Kitchen,
) -> None:
    scheduler = kitchen.scheduler
    scheduler.start()
    assert scheduler.room(Egg) == 0  # nobody knows yet how far the events are behind
    await kitchen.scanned()
    assert scheduler.room(Egg) == CONCURRENT_EFFECTS // 4

    kitchen.cook.may_serve.clear()
    for number in range(CONCURRENT_EFFECTS - 3):
        scheduler.begin(serve, egg(f"{number}"))
    assert scheduler.room(Egg) == 0


async def test_nothing_is_leased_by_a_save_while_the_scan_holds(kitchen: Kitchen) -> None:
    kitchen.lag = LATE
    kitchen.scheduler.start()
    await kitchen.scanned()
    assert kitchen.scheduler.room(Egg) == 0


async def test_what_is_under_way_is_not_begun_again(kitchen: Kitchen) -> None:
    kitchen.cook.may_serve.clear()
    for _ in range(2):
        kitchen.scheduler.begin(serve, egg("a"))
    kitchen.cook.may_serve.set()
    await kitchen.scheduler.settle_effects()
    assert kitchen.cook.served == ["a"]


async def test_the_scan_begins_at_once_and_goes_on_by_the_clock(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=-1), egg("b", boil=1))
    kitchen.scheduler.start()
    await kitchen.scanned()
    assert kitchen.cook.served == ["a"]

    kitchen.clock.move(MINUTE)
    await kitchen.scanned()
    assert kitchen.cook.served == ["a", "b"]


async def test_what_is_saved_when_it_is_due_already_does_not_wait_for_the_clock(
    kitchen: Kitchen,
) -> None:
    kitchen.scheduler.start()
    await kitchen.scanned()
    ready, not_yet = egg("ready", boil=0), egg("not yet", boil=1)
    await kitchen.lay(ready, not_yet)
    kitchen.scheduler.saved([not_yet])
    await kitchen.scanned()
    assert kitchen.cook.served == []

    kitchen.scheduler.saved([ready])
    await kitchen.scanned()
    assert kitchen.cook.served == ["ready"]


async def test_the_scan_holds_while_events_wait_but_not_for_ever(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    kitchen.lag = LATE
    kitchen.scheduler.start()
    await kitchen.scanned()
    kitchen.clock.move(HOLD_LIMIT - timedelta(seconds=1))
    await kitchen.scanned()
    assert kitchen.cook.served == []

    kitchen.clock.move(timedelta(seconds=1))
    await kitchen.scanned()
    assert kitchen.cook.served == ["a"]


async def test_the_scan_goes_on_as_soon_as_the_events_are_done(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    kitchen.lag = LATE
    kitchen.scheduler.start()
    await kitchen.scanned()
    kitchen.lag = 60.0
    kitchen.clock.move(timedelta(seconds=1))
    await kitchen.scanned()
    assert kitchen.cook.served == ["a"]


async def test_trouble_with_the_store_is_survived(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    read = kitchen.store.due

    async def away(*_: object, **__: object) -> list[Egg]:
        raise TemporaryError("the store is away")

    kitchen.store.due = away  # type: ignore[assignment,method-assign]
    kitchen.scheduler.start()
    await kitchen.scanned()
    assert kitchen.cook.served == []

    kitchen.store.due = read  # type: ignore[method-assign]
    kitchen.clock.move(timedelta(seconds=1))
    await kitchen.scanned()
    assert kitchen.cook.served == ["a"]


async def test_a_stop_lets_work_outside_finish(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    kitchen.cook.may_serve.clear()
    await kitchen.fire()
    assert kitchen.scheduler.busy

    stopping = asyncio.create_task(kitchen.scheduler.stop())
    await kitchen.scanned()
    assert not stopping.done()
    kitchen.cook.may_serve.set()
    await stopping
    assert kitchen.cook.served == ["a"]
    assert not kitchen.scheduler.busy


async def test_a_stop_gives_up_on_work_outside_that_never_ends(kitchen: Kitchen) -> None:
    await kitchen.lay(egg("a", boil=0))
    kitchen.cook.may_serve.clear()
    await kitchen.fire()
    await kitchen.scheduler.stop(drain=0)

    assert kitchen.cook.served == []
    assert not kitchen.scheduler.busy
