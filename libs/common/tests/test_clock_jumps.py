"""The machine's clock is put an hour forward or back: nothing waits for it or happens twice."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from rapport.common import clock as clocks
from rapport.common import scheduler as scheduling
from rapport.common.aggregate import Aggregate, Due
from rapport.common.clock import FollowingClock, JumpingClock, LeadingClock, ManualClock
from rapport.common.engine import Engine
from rapport.common.errors import PermanentError
from rapport.common.events.envelope import Instant
from rapport.common.handling import due
from rapport.common.scheduler import CONCURRENT_EFFECTS, HOLD_LIMIT, MOST_EFFECTS, Scheduler
from rapport.common.store import outbox
from rapport.common.store.outbox import Relay
from rapport.common.store.port import Change
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING, RecordingBus

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Unsteady(ManualClock):
    """A clock that can be put back, too."""

    def put(self, delta: timedelta) -> None:
        """Put it forward, or back."""
        self._now += delta


class Parcel(Aggregate):
    """Handed over to a courier, for an hour; then somebody else may."""

    COLLECTION: ClassVar[str] = "parcels"

    at: Instant
    tries: int = 0
    lost: bool = False

    def due(self) -> Iterable[Due]:
        yield Due("courier", self.at)


class Office:
    """A scheduler over a real store in memory; couriers are away until they may come back."""

    def __init__(self) -> None:
        self.clock = Unsteady(MORNING)
        self.store = SqliteStore(None, [Parcel])
        relay = Relay(RecordingBus(self.clock), self.store, [Parcel], self.clock)
        self.back = asyncio.Event()
        self.left: list[str] = []
        self.lag = 0.0
        engine = Engine("office", self.store, relay, self.clock)
        handler = due(Parcel, then=self._courier)(self._hand_over)
        self.scheduler = Scheduler(engine, self.clock, [handler], None, self._lag_seconds)

    async def lay(self, *parcels: Parcel) -> None:
        """Store parcels."""
        assert all(await self.store.save_many([Change(parcel) for parcel in parcels]))

    async def scanned(self) -> None:
        """Let the scan that runs by itself come to rest."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def fire(self) -> int:
        """Carry out what is due now."""
        return await self.scheduler.fire(self.clock.now())

    def _hand_over(self, parcel: Parcel, item: Due) -> Parcel:
        if parcel.lost:
            raise PermanentError("it is not there")
        parcel.tries += 1
        parcel.at += HOUR
        return parcel

    async def _courier(self, parcel: Parcel, _: object) -> None:
        self.left.append(parcel.id)
        await self.back.wait()

    async def _lag_seconds(self) -> float:
        return self.lag


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    await office.store.start()
    yield office
    await office.scheduler.stop(drain=0)
    await office.store.stop()


async def test_the_scan_goes_on_a_second_later_though_the_clock_was_put_back(
    office: Office,
) -> None:
    scanned = office.clock.now()
    office.clock.put(-HOUR)
    waiting = asyncio.create_task(office.scheduler._wait(scanned))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    office.clock.move(timedelta(seconds=1))
    await waiting


async def test_what_was_to_be_done_at_once_does_not_wait_for_a_clock_that_was_put_back(
    office: Office,
) -> None:
    office.scheduler.start()
    await office.scanned()
    await office.lay(Parcel(id="a", at=MORNING), Parcel(id="b", at=MORNING + MINUTE))
    office.clock.put(-HOUR)
    office.clock.move(timedelta(seconds=1))
    office.scheduler._awake.set()
    await office.scanned()
    assert office.left == ["a"]


async def test_what_rests_after_a_failure_does_not_rest_for_an_hour(office: Office) -> None:
    await office.lay(Parcel(id="a", at=MORNING - 2 * HOUR, lost=True))
    with capture_logs() as logs:
        await office.fire()
        await office.fire()
        assert len(logs) == 1
        office.clock.put(-HOUR)
        await office.fire()
    assert len(logs) == 2


async def test_a_scan_that_is_held_is_held_no_longer(office: Office) -> None:
    await office.lay(Parcel(id="a", at=MORNING - 2 * HOUR))
    office.lag = 3600.0
    assert await office.scheduler._hold(office.clock.now())
    office.clock.put(-HOUR)
    assert await office.scheduler._hold(office.clock.now())
    office.clock.move(HOLD_LIMIT)
    with capture_logs():
        assert not await office.scheduler._hold(office.clock.now())


async def test_what_is_under_way_is_not_begun_again_when_its_lease_seems_to_be_over(
    office: Office,
) -> None:
    await office.lay(Parcel(id="a", at=MORNING), Parcel(id="b", at=MORNING + HOUR))
    await office.fire()
    office.clock.put(HOUR)
    await office.fire()
    await asyncio.sleep(0)
    assert sorted(office.left) == ["a", "b"]

    office.back.set()
    await office.scheduler.settle_effects()
    await office.fire()
    await office.scheduler.settle_effects()
    assert sorted(office.left) == ["a", "a", "b"]


async def test_work_outside_that_is_slow_makes_room_for_others_within_a_bound(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(scheduling, "monotonic", lambda: now)
    await office.lay(*(Parcel(id=f"{n:03}", at=MORNING) for n in range(MOST_EFFECTS + 10)))
    for under_way in range(CONCURRENT_EFFECTS, MOST_EFFECTS + 1, CONCURRENT_EFFECTS):
        assert await office.fire() == CONCURRENT_EFFECTS
        assert await office.fire() == 0, "these may still be quick"
        assert len(office.scheduler._effects) == under_way
        now += scheduling.SLOW_SECONDS
    assert await office.fire() == 0


@pytest.mark.parametrize("kind", ["following", "jumping"])
async def test_sleepers_wait_no_longer_than_they_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    class Machine(datetime):
        back = timedelta()

        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return datetime.now(tz) - cls.back

    monkeypatch.setattr(clocks, "datetime", Machine)
    leader = LeadingClock(MORNING, tmp_path / "clock")
    clock = FollowingClock(tmp_path / "clock") if kind == "following" else JumpingClock(MORNING)
    sleeping = asyncio.create_task(clock.sleep(0.2))
    await asyncio.sleep(0)
    Machine.back = HOUR
    assert clock.now() < leader.now() + MINUTE
    await asyncio.wait_for(sleeping, 60)


def test_what_counts_as_an_old_outbox_never_gets_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine(datetime):
        present = MORNING

        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return cls.present

    monkeypatch.setattr(outbox, "datetime", Machine)
    relay = Relay(
        RecordingBus(ManualClock(MORNING)), SqliteStore(None, []), [], ManualClock(MORNING)
    )
    before = relay._old()
    Machine.present = MORNING - HOUR
    assert relay._old() == before
    Machine.present = MORNING + HOUR
    assert relay._old() == before + HOUR
