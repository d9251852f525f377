"""Signals: a burst is told once, with its reason and its samples, and again when it is over."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.analytics import repository
from rapport.analytics.domain.burst import BIN, BurstPolicy, Detector
from rapport.analytics.domain.burst.bins import number_of
from rapport.analytics.domain.facts import Heard
from rapport.analytics.domain.watch import HOUR, BrandWatch, Hour, Watch, learned
from rapport.analytics.service import SERVICE
from rapport.common.events import Event
from rapport.common.events.analytics import Series, SignalCleared, SignalDetected
from rapport.common.store.sqlite import SqliteStore, queries
from rapport.common.store.sqlite.table import Table
from rapport.common.testing import MORNING, Harness, harness

from . import happenings as told

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
QUALITY = "product_quality"


@pytest.fixture
async def listening() -> AsyncIterator[Harness]:
    """Analytics that has listened to silence for two days."""
    async with harness(SERVICE) as analytics:
        await analytics.advance(days=2)
        yield analytics


async def complain(analytics: Harness, *minutes: float, **changes: Any) -> list[str]:
    """One complaint so many minutes from now each, on a clock that goes with them; their cases."""
    start = analytics.clock.now()
    exercise = changes.pop("exercise", None)
    cases = []
    for minute in minutes:
        await analytics.advance(seconds=(start + minute * MINUTE - analytics.clock.now()).seconds)
        complaint = told.heard(**changes)
        cases.append(complaint.case_id)
        await analytics.given(complaint, exercise=exercise)
    return cases


def import_of(analytics: Harness, *times: datetime, **changes: Any) -> list[Event[Any]]:
    return [
        analytics.event(told.heard(occurred_at=time, **changes), historical=True) for time in times
    ]


def trickle(until: datetime) -> list[datetime]:
    """Two complaints a day for ten days, at changing hours."""
    return [until - (day * 24 + 5 * hour) / 24 * DAY for day in range(1, 11) for hour in (0, 2)]


async def signals(analytics: Harness, **query: str) -> list[dict[str, Any]]:
    response = await analytics.call("GET", "/analytics/v1/signals", params=query)
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def test_a_burst_after_a_trickle_is_a_signal_until_it_is_calm(analytics: Harness) -> None:
    await analytics.given(*import_of(analytics, *trickle(MORNING)))

    cases = await complain(analytics, 1, 3, 6, 7, 8, 11, 12, 14)
    await analytics.advance(minutes=1)

    signal = analytics.published(SignalDetected).data
    assert signal.series == Series(product="kettle", complaint_type=QUALITY)
    assert signal.at == MORNING + 15 * MINUTE
    assert signal.since == signal.at - 60 * MINUTE
    assert (signal.path, signal.window, signal.observed) == ("cusum", 3600, 8)
    assert signal.samples == tuple(reversed(cases[-5:]))
    assert set(signal.reason) == {"en", "zh", "fa"}
    assert signal.reason["en"].startswith("8 negative items in an hour")

    await analytics.advance(minutes=59)
    assert not analytics.all(SignalCleared)
    await analytics.advance(minutes=1)

    cleared = analytics.published(SignalCleared)
    assert cleared.data.signal_id == signal.signal_id
    assert cleared.correlationid == analytics.published(SignalDetected).correlationid


async def test_signals_are_listed_newest_first_open_or_cleared(listening: Harness) -> None:
    await complain(listening, *range(6), product="kettle")
    await listening.advance(hours=3)
    await complain(listening, *range(6), product="toaster")
    await listening.advance(minutes=10)

    newest, oldest = await signals(listening)
    assert newest["series"]["product"] == "toaster"
    assert (newest["state"], newest["cleared_at"]) == ("open", None)
    assert oldest["state"] == "cleared"
    assert oldest["reason"]["zh"]
    assert len(oldest["samples"]) == 5
    assert [item["id"] for item in await signals(listening, state="open")] == [newest["id"]]
    assert [item["id"] for item in await signals(listening, state="cleared")] == [oldest["id"]]


async def test_the_past_alone_raises_nothing(analytics: Harness) -> None:
    burst = [MORNING - 3 * DAY + minute * MINUTE for minute in range(60)]
    await analytics.given(*import_of(analytics, *trickle(MORNING - 3 * DAY), *burst))
    await analytics.advance(days=1)

    assert analytics.types() == []
    assert await signals(analytics) == []


async def test_what_was_imported_is_usual(listening: Harness) -> None:
    """Eight complaints between eight and nine are no news where there were as many every day."""
    now = listening.clock.now()
    every_day = [
        now - day * DAY + 7 * number * MINUTE for day in range(1, 13) for number in range(8)
    ]
    await listening.given(*import_of(listening, *every_day))

    await complain(listening, *(7 * number for number in range(8)))
    await listening.advance(hours=1)

    assert await signals(listening) == []


async def test_an_import_counts_though_its_watch_was_there_before(analytics: Harness) -> None:
    await complain(analytics, 0)
    await analytics.advance(hours=3)
    await analytics.given(*import_of(analytics, *trickle(MORNING)))

    await complain(analytics, *range(8))
    await analytics.advance(minutes=5)

    assert analytics.published(SignalDetected).data.series.product == "kettle"


async def test_the_first_day_of_listening_raises_nothing(analytics: Harness) -> None:
    await complain(analytics, *range(20))
    await analytics.advance(hours=2)

    assert await signals(analytics) == []


async def test_a_drill_is_watched_apart(listening: Harness) -> None:
    await complain(listening, 0, 2, 4, exercise="drill")
    await complain(listening, 0, 2, 4)
    await listening.advance(hours=1)
    assert await signals(listening) == [], "three and three are not six"

    await complain(listening, *range(8), exercise="drill")
    await listening.advance(minutes=5)

    assert listening.published(SignalDetected).exercise == "drill"
    assert await signals(listening) == []
    assert [item["exercise"] for item in await signals(listening, exercise="drill")] == ["drill"]


async def test_one_products_burst_is_not_told_twice(listening: Harness) -> None:
    await complain(listening, 0, 1, 2, 3, 4, 6, product="kettle")
    await complain(listening, 1, 2, product=None, kind="mention")
    await listening.advance(minutes=10)

    assert listening.published(SignalDetected).data.series.product == "kettle"


async def test_what_spreads_over_products_is_the_brands(listening: Harness) -> None:
    for product in ("kettle", "toaster", "iron", None):
        await complain(listening, 0, 1, product=product)
    await listening.advance(minutes=10)

    series = listening.published(SignalDetected).data.series
    assert series == Series(brand="Homely", complaint_type=QUALITY)


async def test_who_names_nothing_is_heard_too(listening: Harness) -> None:
    await complain(listening, *range(8), product=None, brand=None)
    await listening.advance(minutes=10)

    assert listening.published(SignalDetected).data.series == Series(complaint_type=QUALITY)


async def test_what_is_not_negative_is_no_burst(listening: Harness) -> None:
    calm = {"kind": "question", "sentiment": "neutral"}
    await complain(listening, *range(20), **calm)
    await listening.advance(hours=1)

    assert await signals(listening) == []


async def test_a_burst_that_goes_on_is_one_signal(listening: Harness) -> None:
    await complain(listening, *range(0, 300, 4))

    assert len(listening.all(SignalDetected)) == 1
    assert not listening.all(SignalCleared)


async def test_two_alarms_keep_their_distance_though_it_slept_in_between(
    listening: Harness,
) -> None:
    await complain(listening, *range(6))
    await listening.advance(minutes=75)
    assert listening.published(SignalCleared)
    assert await listening.running.store.next_due([Watch]) is None

    await complain(listening, *range(6))
    await listening.advance(minutes=15)
    assert len(listening.all(SignalDetected)) == 1

    await listening.advance(minutes=25)
    await complain(listening, *range(6))
    await listening.advance(minutes=5)
    assert len(listening.all(SignalDetected)) == 2


async def test_repeats_do_not_make_a_burst(listening: Harness) -> None:
    complaints = [listening.event(told.heard()) for _ in range(4)]
    for _ in range(5):
        await listening.given(*complaints)
        await listening.advance(minutes=2)
    await listening.advance(hours=1)

    assert await signals(listening) == []


async def test_an_item_that_comes_late_counts_in_the_next_bin(listening: Harness) -> None:
    await complain(listening, 1, 2, 3, 4)
    said_at = listening.clock.now() + 0.9 * MINUTE
    await listening.advance(minutes=2)

    await listening.given(listening.event(told.heard(), time=said_at))
    await listening.advance(minutes=5)

    assert listening.published(SignalDetected).data.observed == 5


async def test_one_message_of_tomorrow_deafens_no_watch(listening: Harness) -> None:
    now = listening.clock.now()
    await listening.given(listening.event(told.heard(), time=now + DAY))

    await complain(listening, *range(1, 9))
    await listening.advance(minutes=2)

    signal = listening.published(SignalDetected).data
    assert (signal.at, signal.observed) == (now + 10 * MINUTE, 8)


async def test_a_clock_half_an_hour_ahead_delays_no_signal_and_loses_none(
    listening: Harness,
) -> None:
    now = listening.clock.now()
    ahead = [now + minute * MINUTE for minute in range(30, 35)]
    await listening.given(
        listening.event(told.heard(product="kettle"), time=ahead[0]),
        *(listening.event(told.heard(product="toaster"), time=time) for time in ahead),
    )

    await complain(listening, *range(1, 9), product="kettle")
    await listening.advance(minutes=2)
    assert listening.published(SignalDetected).data.series.product == "kettle"

    await listening.advance(minutes=25)
    newest, _ = await signals(listening)
    assert newest["series"]["product"] == "toaster"


async def test_a_watch_that_was_deaf_until_tomorrow_listens_and_knows_what_is_usual(
    listening: Harness,
) -> None:
    now, tomorrow = listening.clock.now(), listening.clock.now() + DAY
    deaf = Watch.over(Series(product="kettle", complaint_type=QUALITY), None, tomorrow)
    deaf.wake(tomorrow, learned({}, now - 2 * DAY, tomorrow, BurstPolicy()))
    deaf.hear(tomorrow)
    await listening.running.engine.change(Watch, deaf.id, lambda _: deaf, cause="a fast clock")

    await complain(listening, *range(1, 9))
    await listening.advance(minutes=2)

    assert listening.published(SignalDetected).data.series.product == "kettle"


def test_a_signal_that_a_fast_clock_left_open_is_cleared_once_it_is_calm() -> None:
    policy, tomorrow = BurstPolicy(), MORNING + DAY
    watch = Watch.over(Series(product="kettle", complaint_type=QUALITY), None, tomorrow)
    watch.detector = Detector(alarmed=number_of(tomorrow), open=True)
    watch.signal = "signal"

    watch.set_right(MORNING)
    watch.wake(MORNING, learned({}, MORNING - 2 * DAY, MORNING, policy))
    watch.hear(MORNING)
    while watch.is_awake:
        watch.close(Hour(), policy)

    [cleared] = watch.emitted
    assert isinstance(cleared, SignalCleared)
    assert cleared.at == MORNING + HOUR + BIN


async def test_how_much_is_a_burst_is_policy(tmp_path: Path) -> None:
    file = tmp_path / "analytics" / "bursts.yaml"
    file.parent.mkdir()
    file.write_text("hour_items: 30\nfast_items: 30\n")
    async with harness(SERVICE, policy_dir=tmp_path) as analytics:
        await analytics.advance(days=2)
        await complain(analytics, *range(20))
        await analytics.advance(hours=1)

        assert await signals(analytics) == []


async def test_a_silent_watch_sleeps(listening: Harness) -> None:
    await complain(listening, 0, 1)
    awake = await listening.running.store.tally(Watch)
    assert awake[0].count == 1
    assert await listening.running.store.next_due([Watch, BrandWatch]) is not None

    await listening.advance(hours=2)

    assert await listening.running.store.next_due([Watch, BrandWatch]) is None


async def test_what_came_while_nobody_worked_is_counted_in_its_bins(listening: Harness) -> None:
    """A backlog is a burst only where it was one when it came in."""
    start = listening.clock.now()
    spread = [listening.event(told.heard(), time=start + 40 * n * MINUTE) for n in range(12)]
    listening.clock.move(timedelta(hours=9))

    await listening.given(*spread)
    await listening.advance(hours=1)

    assert await signals(listening) == []


@given(
    st.lists(st.tuples(st.floats(0, 120), st.floats(0, 50)), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_every_item_counts_once_however_late(items: list[tuple[float, float]]) -> None:
    """An item that comes in at a minute and is stored up to 50 minutes later."""
    watch = Watch.over(Series(product="kettle", complaint_type=QUALITY), None, MORNING)
    watch.wake(MORNING, learned({}, MORNING - DAY, MORNING, BurstPolicy()))
    stored = sorted((at + late, at) for at, late in items)
    policy = BurstPolicy()
    for _ in range(120):
        end = watch.closed_to + BIN
        known: dict[datetime, int] = {}
        for minute, at in stored:
            if MORNING + minute * MINUTE < end:
                bin = MORNING + int(at // 5) * BIN
                watch.hear(MORNING + at * MINUTE)
                known[bin] = known.get(bin, 0) + 1
        hour = {bin: count for bin, count in known.items() if end - timedelta(hours=1) <= bin < end}
        watch.close(Hour(hour), policy)

    counted = sum(sum(day) for day in watch.detector.baseline.daily.values())
    assert counted == len(items)


class TestLearning:
    POLICY = BurstPolicy()

    def test_silence_since_listening_began_is_known(self) -> None:
        detector = learned({}, MORNING - 2 * DAY, MORNING, self.POLICY)

        assert detector.baseline.age(number_of(MORNING)) >= 2 * DAY // BIN

    def test_before_listening_only_the_import_is_known(self) -> None:
        imported = {MORNING - 5 * DAY: 1}
        detector = learned(imported, MORNING, MORNING, self.POLICY)

        assert detector.baseline.age(number_of(MORNING)) == 5 * DAY // BIN

    def test_it_knows_what_a_detector_that_listened_all_along_knows(self) -> None:
        items = {MORNING - n * 37 * BIN: 1 + n % 3 for n in range(1, 60)}
        listened = Detector.listening_since(MORNING - 10 * DAY)
        for start, count in sorted(items.items()):
            listened.advance(start, count, self.POLICY)
        listened.advance(MORNING, 0, self.POLICY)

        found = learned(items, MORNING - 10 * DAY, MORNING, self.POLICY)
        found.advance(MORNING, 0, self.POLICY)

        number = found.next_bin
        assert number is not None
        assert found.baseline.usual(number, self.POLICY).rate == pytest.approx(
            listened.baseline.usual(number, self.POLICY).rate
        )


@pytest.mark.parametrize("kind", [Watch, BrandWatch])
async def test_bins_are_counted_from_an_index_alone_and_nothing_is_sorted(
    kind: type[Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour at 60 items a second took 13 MiB to sort, every five minutes."""
    asked: list[queries.Query] = []
    tally = queries.tally

    def noted(*about: Any) -> queries.Query:
        asked.append(tally(*about))
        return asked[-1]

    monkeypatch.setattr(queries, "tally", noted)
    store = SqliteStore(None, [Heard])
    await store.start()
    await repository.hours(store, kind, {"a series": MORNING}, 1)
    await store.stop()

    [query] = asked
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        Table(Heard).prepare(connection)
        steps = connection.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.parameters)
        plan = [step for *_, step in steps]
    assert f"SEARCH heard USING COVERING INDEX heard({kind.FIELD}," in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan)
