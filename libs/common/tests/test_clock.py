"""Clocks that are moved by hand."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rapport.common.clock import FollowingClock, JumpingClock, LeadingClock, ManualClock

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


async def test_sleepers_wake_when_their_time_has_passed() -> None:
    clock = ManualClock(START)
    sleeping = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0)
    clock.move(timedelta(minutes=59))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not sleeping.done()
    clock.move(timedelta(minutes=1))
    await sleeping
    assert clock.now() == START + timedelta(hours=1)


def test_a_clock_never_goes_back() -> None:
    clock = ManualClock(START)
    clock.move_to(START - timedelta(days=1))
    assert clock.now() == START


async def test_a_jump_wakes_sleepers_and_time_goes_on() -> None:
    clock = JumpingClock(START)
    sleeping = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0)
    clock.move(timedelta(hours=2))
    await sleeping
    assert clock.now() >= START + timedelta(hours=2)


async def test_other_processes_follow_a_leading_clock(tmp_path: Path) -> None:
    leader = LeadingClock(START, tmp_path / "clock")
    follower = FollowingClock(tmp_path / "clock")
    sleeping = asyncio.create_task(follower.sleep(3600))
    await asyncio.sleep(0)
    assert abs(follower.now() - leader.now()) < timedelta(minutes=1)
    leader.move(timedelta(hours=2))
    await sleeping
    assert follower.now() >= START + timedelta(hours=2)
