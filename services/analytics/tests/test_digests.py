"""Digests: what support heard, told to PR at a period's end; and the targets that it missed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rapport.analytics.domain.periods import DELAY
from rapport.analytics.service import SERVICE
from rapport.common.errors import Invalid
from rapport.common.events.analytics import DigestCompiled, KpiTargetMissed
from rapport.common.testing import MORNING, Harness, harness

from . import happenings as told
from .happenings import HOUR

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def analytics() -> AsyncIterator[Harness]:
    """Analytics just after digests were due: so many days later they are due again."""
    async with harness(SERVICE, now=MORNING + DELAY) as under_test:
        yield under_test


def digests_yaml(folder: Path, text: str) -> Path:
    file = folder / "analytics" / "digests.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return folder


async def listed(analytics: Harness, **query: str) -> list[dict[str, Any]]:
    response = await analytics.call("GET", "/analytics/v1/digests", params=query)
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def test_a_day_is_told_by_topic_product_and_region(analytics: Harness) -> None:
    await analytics.given(
        *(told.heard(f"yesterday {number}") for number in range(4)),
    )
    await analytics.advance(days=1)
    await analytics.given(
        *(told.heard(f"north {number}") for number in range(3)),
        told.heard("dangerous", severity="critical", sentiment="neutral"),
        told.heard("south", region="south", complaint_type="service_attitude"),
        told.praise(case_id="glad"),
        told.heard("rehearsed"),
    )
    await analytics.given(told.heard("drill"), exercise="drill")
    await analytics.advance(days=1)

    first, second = (event.data for event in analytics.all(DigestCompiled))

    assert first.total == 4
    assert (second.start, second.end) == (MORNING + DAY, MORNING + 2 * DAY)
    assert second.total == 7
    assert second.by_kind == {"complaint": 6, "praise": 1}
    quality, attitude, praise = second.lines
    assert (quality.topic, quality.product, quality.region) == (
        "product_quality",
        "kettle",
        "north",
    )
    assert (quality.count, quality.negative, quality.change) == (5, 5, 0.25)
    assert quality.samples[0] == "dangerous"
    assert len(quality.samples) == 3
    assert (attitude.topic, attitude.count, attitude.change) == ("service_attitude", 1, None)
    assert attitude.samples == ("south",)
    assert (praise.topic, praise.negative) == ("none", 0)


async def test_a_digest_is_listed_newest_first(analytics: Harness) -> None:
    await analytics.given(told.heard())
    await analytics.advance(days=1)
    await analytics.given(told.heard(), told.heard())
    await analytics.advance(days=1)

    newest, oldest = await listed(analytics, digest="pr-daily")

    assert (newest["total"], oldest["total"]) == (2, 1)
    assert newest["from"] == "2026-03-03T08:00:00Z"
    assert newest["lines"][0]["change"] == 1.0
    assert await listed(analytics, digest="pr-hourly") == []


async def test_the_first_silence_is_told_and_no_silence_after_it(analytics: Harness) -> None:
    await analytics.given(told.heard())
    await analytics.advance(days=6)

    totals = [event.data.total for event in analytics.all(DigestCompiled)]

    assert totals == [1, 0]


async def test_a_week_has_its_own_digest(analytics: Harness) -> None:
    await analytics.given(told.heard())
    await analytics.advance(days=7)

    weekly = [
        event.data for event in analytics.all(DigestCompiled) if event.data.digest == "pr-weekly"
    ]

    assert [(digest.start, digest.total) for digest in weekly] == [(MORNING, 1)]


async def test_only_the_fifty_worst_lines_are_told(analytics: Harness) -> None:
    await analytics.given(*(told.heard(product=f"product {n}") for n in range(60)))
    await analytics.given(*(told.heard(product="product 59") for _ in range(3)))
    await analytics.advance(days=1)

    digest = analytics.published(DigestCompiled).data

    assert (digest.total, len(digest.lines)) == (63, 50)
    assert (digest.lines[0].product, digest.lines[0].negative) == ("product 59", 4)


async def test_a_digest_comes_at_its_local_time_when_the_clocks_change(tmp_path: Path) -> None:
    """In Berlin the clocks go forward on 29 March: eight o'clock is an hour earlier in UTC."""
    folder = digests_yaml(
        tmp_path, 'morning: {every: daily, at: "08:00", time_zone: Europe/Berlin}\n'
    )
    saturday = datetime(2026, 3, 28, 12, tzinfo=UTC)
    async with harness(SERVICE, now=saturday, policy_dir=folder) as analytics:
        for _ in range(3):
            await analytics.given(told.heard())
            await analytics.advance(days=1)

        ends = [event.data.end for event in analytics.all(DigestCompiled)]

    assert ends == [
        datetime(2026, 3, 29, 6, tzinfo=UTC),
        datetime(2026, 3, 30, 6, tzinfo=UTC),
        datetime(2026, 3, 31, 6, tzinfo=UTC),
    ]
    assert analytics.all(DigestCompiled)[0].data.start == datetime(2026, 3, 28, 7, tzinfo=UTC)


async def test_what_was_missed_while_nothing_ran_is_made_up_for(analytics: Harness) -> None:
    await analytics.given(
        *(analytics.event(told.heard(), time=MORNING + n * DAY + HOUR) for n in range(3))
    )
    analytics.clock.move(3 * DAY)
    await analytics.settle()

    told_of = [event.data for event in analytics.all(DigestCompiled)]

    assert [digest.total for digest in told_of] == [1, 1, 1]
    assert [event.time for event in analytics.all(DigestCompiled)] == [
        digest.end + DELAY for digest in told_of
    ]


async def test_what_is_stored_just_after_the_end_is_told_in_the_period_it_came_in(
    analytics: Harness,
) -> None:
    end = MORNING + DAY
    await analytics.advance(hours=23, minutes=59)
    assert analytics.clock.now() == end

    await analytics.given(
        analytics.event(told.heard("last"), time=end - SECOND),
        analytics.event(told.heard("first"), time=end),
    )
    await analytics.advance(minutes=1)
    first = analytics.published(DigestCompiled).data
    await analytics.advance(days=1)
    second = analytics.all(DigestCompiled)[1].data

    assert (first.start, first.end, second.end) == (MORNING, end, end + DAY)
    assert [digest.lines[0].samples for digest in (first, second)] == [("last",), ("first",)]


async def test_a_digest_that_the_policy_dropped_ends(analytics: Harness) -> None:
    kept = analytics.running.resources.digests.rules.root
    kept.pop("pr-daily")

    await analytics.given(told.heard())
    await analytics.advance(days=3)

    assert analytics.types() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Morning: {every: daily}", "digests.yaml:1: Morning"),
        ("morning: {every: often}", "digests.yaml:1: morning.every"),
        ("morning:\n  every: daily\n  at: 10:00", "digests.yaml:3: morning.at"),
        ("morning:\n  every: daily\n  time_zone: Mars", "digests.yaml:3: morning.time_zone"),
    ],
)
async def test_a_mistake_stops_the_start_with_file_and_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(Invalid, match=problem):
        async with harness(SERVICE, policy_dir=digests_yaml(tmp_path, text)):
            pass


async def test_a_missed_target_is_told_once_when_the_week_is_over(analytics: Harness) -> None:
    await analytics.given(
        told.met("a", MORNING, after=HOUR),
        told.breached("b", MORNING),
        told.opened("b"),
        *(told.praise(rating=1.0) for _ in range(3)),
    )
    await analytics.advance(days=21)

    missed = analytics.published(KpiTargetMissed).data

    assert missed.kpi == "first_response_on_time"
    assert (missed.value, missed.target, missed.n) == (0.5, 0.98, 2)
    assert missed.start == datetime(2026, 3, 2, tzinfo=UTC)
    assert missed.end == datetime(2026, 3, 9, tzinfo=UTC)


async def test_a_target_missed_in_the_last_moment_of_the_week_is_told(analytics: Harness) -> None:
    end = datetime(2026, 3, 9, tzinfo=UTC)
    await analytics.advance(days=6, hours=15, minutes=59)
    assert analytics.clock.now() == end

    await analytics.given(told.breached("a", end - 4 * HOUR - SECOND, within=4 * HOUR))
    await analytics.advance(minutes=1)

    missed = analytics.published(KpiTargetMissed).data
    assert (missed.kpi, missed.end, missed.n) == ("first_response_on_time", end, 1)
