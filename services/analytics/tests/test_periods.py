"""Periods where clocks change, where hours begin at half past, where Saturday begins the week."""

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rapport.analytics.domain.periods import DELAY, Every, Period, Periodic, Rhythm
from rapport.common.local_time import Weekday

ZONES = ("UTC", "Europe/Berlin", "Asia/Tehran", "America/New_York", "Australia/Lord_Howe")
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def rhythm(every: str, zone: str = "UTC", **more: str) -> Rhythm:
    return Rhythm.model_validate({"every": every, "time_zone": zone} | more)


rhythms = st.builds(
    Rhythm,
    every=st.sampled_from(Every),
    at=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    day=st.sampled_from(Weekday),
    time_zone=st.sampled_from(ZONES),
)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))


@given(rhythms, moments)
def test_every_moment_lies_in_one_period(rhythm: Rhythm, moment: datetime) -> None:
    start, end = rhythm.start_of(moment), rhythm.end_of(moment)

    assert start <= moment < end
    assert end - start <= timedelta(days=31, hours=1)


@given(rhythms, moments)
def test_periods_lie_end_to_end(rhythm: Rhythm, moment: datetime) -> None:
    until = moment + timedelta(days=40)
    periods = list(rhythm.split(moment, until))[:100]

    assert periods[0].start == moment
    assert all(earlier.end == later.start for earlier, later in pairwise(periods))
    assert all(start < end <= until for start, end in periods)


@given(rhythms.filter(lambda rhythm: rhythm.every is not Every.HOURLY), moments)
def test_the_period_before_ends_where_this_begins(rhythm: Rhythm, moment: datetime) -> None:
    before = rhythm.before(rhythm.start_of(moment))

    assert before.end == rhythm.start_of(moment)
    assert rhythm.end_of(before.start) == before.end


def test_a_day_in_which_the_clocks_go_forward_has_23_hours() -> None:
    daily = rhythm("daily", "Europe/Berlin")

    [day] = daily.split(at("2026-03-29T00:00+01:00"), at("2026-03-30T00:00+02:00"))

    assert day.end - day.start == 23 * HOUR


def test_a_day_in_which_the_clocks_go_back_has_25_hours() -> None:
    daily = rhythm("daily", "Europe/Berlin")

    [day] = daily.split(at("2026-10-25T00:00+02:00"), at("2026-10-26T00:00+01:00"))

    assert day.end - day.start == 25 * HOUR
    assert len(list(rhythm("hourly", "Europe/Berlin").split(*day))) == 25


def test_a_time_that_the_clocks_skip_comes_an_hour_later() -> None:
    daily = rhythm("daily", "Europe/Berlin", at="02:30")

    assert daily.end_of(at("2026-03-28T12:00Z")) == at("2026-03-29T03:30+02:00")


def test_a_time_that_comes_twice_is_its_first_coming() -> None:
    daily = rhythm("daily", "Europe/Berlin", at="02:30")

    assert daily.end_of(at("2026-10-24T12:00Z")) == at("2026-10-25T02:30+02:00")


def test_hours_begin_where_the_clock_on_the_wall_says_so() -> None:
    hourly = rhythm("hourly", "Asia/Tehran")

    assert hourly.start_of(at("2026-03-02T08:10Z")) == at("2026-03-02T07:30Z")
    assert hourly.end_of(at("2026-03-02T08:30Z")) == at("2026-03-02T09:30Z")


def test_a_week_begins_on_its_day() -> None:
    weekly = rhythm("weekly", "Asia/Tehran", day="saturday", at="08:00")

    assert weekly.start_of(at("2026-03-04T12:00Z")) == at("2026-02-28T08:00+03:30")
    assert weekly.end_of(at("2026-03-04T12:00Z")) == at("2026-03-07T08:00+03:30")


def test_months_have_their_lengths() -> None:
    year = rhythm("monthly").split(at("2028-01-01T00:00Z"), at("2029-01-01T00:00Z"))

    days = [(end - start).days for start, end in year]
    assert days == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"every": "yearly"}, "hourly"),
        ({"every": "daily", "at": 600}, "write the time in quotes, like '10:00'"),
        ({"every": "daily", "time_zone": "Mars/Olympus"}, "no time zone of the IANA database"),
        ({"every": "daily", "time_zone": "../etc/passwd"}, "no time zone of the IANA database"),
        ({"every": "weekly", "day": "someday"}, "monday"),
        ({"every": "daily", "when": "noon"}, "not permitted"),
    ],
)
def test_a_rhythm_that_is_none_is_refused(wrong: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Rhythm.model_validate(wrong)


class Watering(Periodic):
    """Something periodic."""

    COLLECTION = "watering"


class TestPeriodic:
    NOON = at("2026-03-02T12:00Z")

    def test_it_begins_with_the_whole_period_that_runs(self) -> None:
        watering = Watering.begin("roses", rhythm("daily", at="08:00"), self.NOON)

        assert (watering.start, watering.end) == (at("2026-03-02T08:00Z"), at("2026-03-03T08:00Z"))
        assert watering.end is not None
        assert watering.next_due == watering.end + DELAY

    def test_it_turns_to_the_period_after(self) -> None:
        daily = rhythm("daily", at="08:00")
        watering = Watering.begin("roses", daily, self.NOON)

        watering.turn(daily)

        assert Period(watering.start, at("2026-03-04T08:00Z")) == (watering.start, watering.end)

    def test_a_changed_rhythm_ends_the_period_that_runs(self) -> None:
        watering = Watering.begin("roses", rhythm("weekly"), self.NOON)

        assert watering.follow(rhythm("daily"), self.NOON)
        assert watering.end == at("2026-03-03T00:00Z")
        assert not watering.follow(rhythm("daily"), self.NOON)

    def test_what_is_due_already_comes_before_a_changed_rhythm(self) -> None:
        watering = Watering.begin("roses", rhythm("daily"), self.NOON)
        much_later = self.NOON + timedelta(days=3)

        assert not watering.follow(rhythm("weekly"), much_later)
        assert watering.end == at("2026-03-03T00:00Z")

    def test_a_period_that_is_over_does_not_come_again_with_a_clock_that_is_behind(self) -> None:
        watering = Watering.begin("roses", rhythm("daily"), self.NOON)
        watering.turn(rhythm("daily"))
        begun = watering.model_copy()

        assert not watering.follow(rhythm("daily"), at("2026-03-02T23:59Z"))
        assert watering == begun

    def test_what_was_stopped_can_begin_again(self) -> None:
        watering = Watering.begin("roses", rhythm("daily"), self.NOON)
        watering.stop()

        assert watering.next_due is None
        assert watering.follow(rhythm("daily"), self.NOON + timedelta(days=9))
        assert watering.start == at("2026-03-11T00:00Z")

    def test_midnight_is_where_days_begin_unless_told(self) -> None:
        assert rhythm("daily").at == time(0)
