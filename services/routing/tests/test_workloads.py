"""How busy people are is counted now and then, not for every message."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rapport.common.clock import ManualClock
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING
from rapport.routing.domain.case import Case
from rapport.routing.repository import Workloads

HALF_A_MINUTE = timedelta(seconds=30)


class Watched(SqliteStore):
    """A store that knows how often it was asked to count."""

    counts = 0

    async def tally(self, *given: Any, **named: Any) -> Any:
        self.counts += 1
        return await super().tally(*given, **named)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Watched]:
    store = Watched(tmp_path / "routing.db", [Case])
    await store.start()
    yield store
    await store.stop()


async def test_many_who_ask_at_once_share_one_count(store: Watched) -> None:
    workloads = Workloads(store, ManualClock(MORNING), HALF_A_MINUTE)
    first, *others = await asyncio.gather(*(workloads.current() for _ in range(12)))
    assert store.counts == 1
    assert all(other is first for other in others)


async def test_what_was_assigned_counts_until_all_is_counted_again(store: Watched) -> None:
    clock = ManualClock(MORNING)
    workloads = Workloads(store, clock, HALF_A_MINUTE)
    (await workloads.current())["ana"] += 1
    clock.move(HALF_A_MINUTE - timedelta(seconds=1))
    assert (await workloads.current())["ana"] == 1
    clock.move(timedelta(seconds=1))
    assert (await workloads.current())["ana"] == 0
    assert store.counts == 2
