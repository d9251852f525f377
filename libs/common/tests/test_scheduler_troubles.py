"""What stands in the way of the scan: it rests for a while, and the others are carried out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from rapport.common.aggregate import Aggregate, Due
from rapport.common.clock import ManualClock
from rapport.common.engine import Engine
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.envelope import Instant
from rapport.common.handling import DueHandler, due
from rapport.common.scheduler import BATCH, HOLD_LIMIT, RETRY_AFTER_FAILURE, Scheduler
from rapport.common.store.outbox import Relay
from rapport.common.store.port import Change
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING, RecordingBus

MINUTE = timedelta(minutes=1)


class Lamp(Aggregate):
    """Goes on at its time; a broken one spoils what is prepared for it."""

    COLLECTION: ClassVar[str] = "lamps"

    on_at: Instant | None = None
    lit: bool = False
    broken: bool = False

    def due(self) -> Iterable[Due]:
        if self.on_at is not None and not self.lit:
            yield Due("light", self.on_at)


class Bell(Lamp):
    """Rings at its time."""

    COLLECTION: ClassVar[str] = "bells"


async def current(lamps: Sequence[Lamp], _: object) -> bool:
    if any(lamp.broken for lamp in lamps):
        raise PermanentError("a short circuit")
    return True


def light(lamp: Any, item: Due, *_: object) -> Any:
    lamp.lit = True
    return lamp


def leave_it(lamp: Lamp, item: Due) -> Lamp | None:
    return light(lamp, item) if lamp.broken else None


class House:
    """A scheduler over a real store in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock(MORNING)
        self.store = SqliteStore(None, [Lamp, Bell])
        relay = Relay(RecordingBus(self.clock), self.store, [], self.clock)
        self.engine = Engine("house", self.store, relay, self.clock)

    def scheduler(self, *handlers: DueHandler[Any]) -> Scheduler:
        return Scheduler(self.engine, self.clock, handlers, None, self.lag_seconds)

    async def put(self, *lamps: Lamp) -> None:
        assert all(await self.store.save_many([Change(lamp) for lamp in lamps]))

    async def lit(self, kind: type[Lamp], *ids: str) -> list[str]:
        found = await self.store.get_many(kind, ids)
        return sorted(id for id, lamp in found.items() if lamp.lit)

    async def lag_seconds(self) -> float:
        raise TemporaryError("the bus is away")


def lateness() -> float | None:
    """Return what a scrape shows of how late the house's due items are."""
    return REGISTRY.get_sample_value("rapport_due_items_late_seconds", {"service": "house"})


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.store.start()
    yield house
    await house.store.stop()


async def test_what_cannot_be_prepared_rests_and_holds_up_nobody(house: House) -> None:
    names = [str(number) for number in range(5)]
    await house.put(*(Lamp(id=id, on_at=MORNING, broken=id == "2") for id in names))
    await house.put(Bell(id="b", on_at=MORNING))
    scheduler = house.scheduler(due(Lamp, prepare=current)(light), due(Bell)(light))
    with capture_logs() as logs:
        assert await scheduler.fire(MORNING) == 5

    assert await house.lit(Lamp, *names) == ["0", "1", "3", "4"]
    assert await house.lit(Bell, "b") == ["b"]
    assert [entry["aggregate"] for entry in logs] == ["2"]
    assert await scheduler.fire(MORNING) == 0


async def test_trouble_with_one_collection_does_not_stop_the_clocks_of_another(
    house: House,
) -> None:
    async def away(lamps: Sequence[Lamp], _: object) -> None:
        raise TemporaryError("the store is away")

    await house.put(Lamp(id="a", on_at=MORNING))
    await house.put(Bell(id="b", on_at=MORNING))
    scheduler = house.scheduler(due(Lamp, prepare=away)(light), due(Bell)(light))
    with capture_logs() as logs:
        assert await scheduler.fire(MORNING) == 1

    assert await house.lit(Bell, "b") == ["b"]
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("scan.failed", "the store is away")
    ]


async def test_what_trouble_leaves_undone_is_seen_to_be_late(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> NoReturn:
        raise TemporaryError("the store is away")

    await house.put(Lamp(id="a", on_at=MORNING), Bell(id="b", on_at=MORNING + 4 * MINUTE))
    scheduler = house.scheduler(due(Lamp)(light), due(Bell)(light))
    monkeypatch.setattr(house.store, "get_many", away)
    monkeypatch.setattr(house.store, "save_many", away)
    await scheduler.fire(MORNING + 5 * MINUTE)
    assert lateness() == 5 * 60

    monkeypatch.setattr(house.store, "due", away)
    monkeypatch.setattr(house.store, "next_due", away)
    await scheduler.fire(MORNING + 7 * MINUTE)
    await scheduler.fire(MORNING + 8 * MINUTE)
    assert lateness() == 8 * 60

    monkeypatch.undo()
    assert await scheduler.fire(MORNING + 9 * MINUTE) == 2
    assert lateness() == 9 * 60
    assert await scheduler.fire(MORNING + 9 * MINUTE) == 0
    assert lateness() == 0


async def test_the_time_counts_while_the_scan_holds_and_nobody_knows_what_is_due(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> NoReturn:
        raise TemporaryError("the store is away")

    monkeypatch.setattr(house.store, "next_due", away)
    scheduler = house.scheduler(due(Lamp)(light))
    scheduler.start()
    for _ in range(2):
        for _ in range(20):
            await asyncio.sleep(0)
        house.clock.move(MINUTE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert lateness() == 2 * 60
    await scheduler.stop()


async def test_what_stays_due_does_not_hide_what_is_due_behind_it(house: House) -> None:
    await house.put(*(Lamp(id=f"{number:04}", on_at=MORNING) for number in range(2 * BATCH)))
    await house.put(Lamp(id="last", on_at=MORNING + MINUTE, broken=True))
    scheduler = house.scheduler(due(Lamp)(leave_it))
    house.clock.move(MINUTE)
    await scheduler.fire(house.clock.now())

    assert await house.lit(Lamp, "last") == ["last"]


async def test_what_is_due_no_more_by_today_s_rules_does_not_stop_the_scan(house: House) -> None:
    """Its time was stored by code that knew another rule."""
    await house.put(Lamp(id="old", on_at=MORNING), Lamp(id="new", on_at=MORNING))
    read_due = house.store.due

    async def by_other_rules(*arguments, **named):  # type: ignore[no-untyped-def]
        found = await read_due(*arguments, **named)
        return [lamp.model_copy(update={"lit": lamp.id == "old"}) for lamp in found]

    house.store.due = by_other_rules  # type: ignore[method-assign]
    scheduler = house.scheduler(due(Lamp)(light))
    assert await scheduler.fire(MORNING) == 1
    assert await house.lit(Lamp, "old", "new") == ["new"]
    assert await scheduler.fire(MORNING) == 0

    house.store.due = read_due  # type: ignore[method-assign]
    assert await scheduler.fire(MORNING + RETRY_AFTER_FAILURE) == 1


async def test_clocks_run_on_when_nobody_can_tell_how_far_events_are_behind(house: House) -> None:
    await house.put(Lamp(id="a", on_at=MORNING))
    scheduler = house.scheduler(due(Lamp)(light))
    scheduler.start()
    for _ in range(20):
        await asyncio.sleep(0)
    assert await house.lit(Lamp, "a") == []

    house.clock.move(HOLD_LIMIT)
    for _ in range(20):
        await asyncio.sleep(0)
    assert await house.lit(Lamp, "a") == ["a"]
    await scheduler.stop()
