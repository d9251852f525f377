"""Working time: against an oracle that counts quarters of an hour one by one."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.errors import Invalid
from rapport.common.local_time import Weekday
from rapport.common.policy import parse_yaml
from rapport.routing.domain.calendars import AROUND_THE_CLOCK, Calendar, Calendars, due_at

QUARTER: Final = timedelta(minutes=15)
WORKDAYS: Final = list(Weekday)[:5]

ZONES: Final = (
    "UTC",
    "Africa/Cairo",  # changes its clocks at midnight
    "America/New_York",
    "America/Santiago",  # at midnight, too
    "Asia/Shanghai",
    "Asia/Tehran",  # changed its clocks until 2022, at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Europe/London",
    "Pacific/Apia",  # had no 30 December 2011
)

OFFICE: Final = Calendar(
    time_zone="Europe/London",
    hours={day: ("09:00-17:00",) for day in list(Weekday)[:5]},
    holidays=(date(2026, 5, 4),),
    also_open={date(2026, 5, 9): ("10:00-12:00",)},
)


def london(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/London"))


@st.composite
def hours(draw: st.DrawFn) -> tuple[str, ...]:
    """A day's hours; none begin or end where clocks change, except at midnight."""
    ends = draw(st.lists(st.integers(5 * 4, 22 * 4), unique=True, max_size=4).map(sorted))
    ends = ends[: len(ends) // 2 * 2]
    texts = [f"{q // 4:02}:{q % 4 * 15:02}" for q in ends]
    openings = [f"{opens}-{closes}" for opens, closes in zip(texts[::2], texts[1::2], strict=True)]
    return draw(st.sampled_from([tuple(openings), ("00:00-24:00",)]))


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    week = st.none() | st.dictionaries(st.sampled_from(Weekday), hours(), min_size=1).filter(
        lambda week: any(week.values())
    )
    days = st.dates(date(2011, 12, 20), date(2012, 1, 10)) | st.dates(
        date(2026, 3, 20), date(2026, 4, 10)
    )
    return Calendar(
        time_zone=draw(st.sampled_from(ZONES)),
        hours=draw(week),
        holidays=tuple(draw(st.sets(days, max_size=5))),
        also_open=draw(st.dictionaries(days, hours(), max_size=3)),
    )


starts = st.builds(
    lambda day, quarters: datetime.combine(day, time(), UTC) + quarters * QUARTER,
    st.dates(date(2011, 12, 25), date(2012, 1, 2))
    | st.dates(date(2026, 3, 1), date(2026, 4, 30))
    | st.dates(date(2026, 9, 1), date(2026, 11, 5))
    | st.dates(date(2022, 3, 15), date(2022, 3, 30))
    | st.dates(date(2022, 9, 15), date(2022, 9, 30)),
    st.integers(0, 95),
)
durations = st.integers(1, 300).map(lambda quarters: quarters * QUARTER)


def is_open(calendar: Calendar, moment: datetime) -> bool:
    """Tell whether it is open in the quarter of an hour that begins at `moment`."""
    local = moment.astimezone(ZoneInfo(calendar.time_zone))
    if local.date() in calendar.also_open:
        today = calendar.also_open[local.date()]
    elif local.date() in calendar.holidays:
        today = ()
    elif calendar.hours is None:
        return True
    else:
        today = calendar.hours.get(list(Weekday)[local.weekday()], ())
    now = f"{local:%H:%M}"
    return any(opens <= now < closes for opens, closes in (text.split("-") for text in today))


@settings(max_examples=150, deadline=None)
@given(calendars(), starts, durations)
def test_exactly_the_working_time_passes_until_it_is_due(
    calendar: Calendar, start: datetime, length: timedelta
) -> None:
    due = due_at(start, length, calendar)
    worked = timedelta()
    moment = start
    while worked < length:
        worked += QUARTER * is_open(calendar, moment)
        moment += QUARTER
    assert due == moment


@given(calendars(), starts, durations, durations)
def test_working_time_adds_up(
    calendar: Calendar, start: datetime, first: timedelta, second: timedelta
) -> None:
    due = due_at(start, first, calendar)
    assert due_at(due, second, calendar) == due_at(start, first + second, calendar)


@given(calendars(), starts, starts, durations, durations)
def test_what_starts_later_or_takes_longer_is_not_due_sooner(
    calendar: Calendar, one: datetime, other: datetime, short: timedelta, long: timedelta
) -> None:
    earlier, later = sorted((one, other))
    short, long = sorted((short, long))
    assert due_at(earlier, short, calendar) <= due_at(later, short, calendar)
    assert due_at(earlier, short, calendar) <= due_at(earlier, long, calendar)


def test_a_clock_without_a_calendar_runs_day_and_night() -> None:
    start = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
    assert due_at(start, timedelta(hours=4), AROUND_THE_CLOCK) == start + timedelta(hours=4)


def test_nights_weekends_and_holidays_do_not_count() -> None:
    friday_afternoon = london("2026-05-01 16:00")
    tuesday_morning = london("2026-05-05 10:00")  # Monday is a holiday
    assert due_at(friday_afternoon, timedelta(hours=2), OFFICE) == tuesday_morning


def test_a_saturday_may_be_open_against_the_rule() -> None:
    assert due_at(london("2026-05-08 16:30"), timedelta(hours=1), OFFICE) == london(
        "2026-05-09 10:30"
    )


def test_an_opening_in_which_clocks_are_put_forward_is_an_hour_shorter() -> None:
    night = Calendar(time_zone="Europe/London", hours={Weekday.SUNDAY: ("00:00-08:00",)})
    start = london("2026-03-29 00:00")
    assert due_at(start, timedelta(hours=7), night) == london("2026-03-29 08:00")
    assert due_at(start, timedelta(hours=8), night) == london("2026-04-05 01:00")


def local(zone: str, text: str, fold: int = 0) -> datetime:
    """Return a local time; one that comes twice is meant at its second coming with `fold` 1."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


@pytest.mark.parametrize(
    ("zone", "hours", "start", "length", "due"),
    [
        # the clocks are put forward in the night, at the weekend: nobody is at work
        ("Europe/Berlin", "09:00-17:00", "2026-03-27 16:00", 2, "2026-03-30 10:00"),
        ("America/New_York", "09:00-17:00", "2026-03-06 16:00", 2, "2026-03-09 10:00"),
        # and back
        ("Europe/Berlin", "09:00-17:00", "2026-10-23 16:00", 2, "2026-10-26 10:00"),
        ("America/New_York", "09:00-17:00", "2026-10-30 16:00", 2, "2026-11-02 10:00"),
        # Tehran changed in the middle of its week, at midnight, and since 2022 no more
        ("Asia/Tehran", "09:00-17:00", "2022-03-21 16:00", 2, "2022-03-22 10:00"),
        ("Asia/Tehran", "09:00-17:00", "2022-09-21 16:00", 2, "2022-09-22 10:00"),
        ("Asia/Tehran", "09:00-17:00", "2026-03-23 16:00", 2, "2026-03-24 10:00"),
    ],
)
def test_a_night_of_another_length_does_not_move_what_is_due_by_day(
    zone: str, hours: str, start: str, length: int, due: str
) -> None:
    every_day = Calendar(time_zone=zone, hours={day: (hours,) for day in WORKDAYS})
    assert due_at(local(zone, start), timedelta(hours=length), every_day) == local(zone, due)


@pytest.mark.parametrize(
    ("zone", "start", "length", "due"),
    [
        # forward: 01:00-05:00 has three hours
        ("Europe/Berlin", "2026-03-29 01:00", 3, local("Europe/Berlin", "2026-03-29 05:00")),
        ("Europe/Berlin", "2026-03-29 01:00", 4, local("Europe/Berlin", "2026-03-30 02:00")),
        ("America/New_York", "2026-03-08 01:00", 2, local("America/New_York", "2026-03-08 04:00")),
        # back: 01:00-05:00 has five hours, and 02:30 comes twice
        ("Europe/Berlin", "2026-10-25 01:00", 1.5, local("Europe/Berlin", "2026-10-25 02:30")),
        ("Europe/Berlin", "2026-10-25 01:00", 2.5, local("Europe/Berlin", "2026-10-25 02:30", 1)),
        ("Europe/Berlin", "2026-10-25 01:00", 5, local("Europe/Berlin", "2026-10-25 05:00")),
        (
            "America/New_York",
            "2026-11-01 01:30",
            1,
            local("America/New_York", "2026-11-01 01:30", 1),
        ),
        # a start that the clocks skip is read by the offset before the change: 02:30 is 03:30
        ("Europe/Berlin", "2026-03-29 02:30", 1, local("Europe/Berlin", "2026-03-29 04:30")),
    ],
)
def test_a_night_shift_lasts_as_long_as_its_night(
    zone: str, start: str, length: float, due: datetime
) -> None:
    nights = Calendar(time_zone=zone, hours={day: ("01:00-05:00",) for day in Weekday})
    assert due_at(local(zone, start), timedelta(hours=length), nights).timestamp() == (
        due.timestamp()
    )


def worked(calendar: Calendar, start: datetime, end: datetime) -> timedelta:
    """Return the working time between two moments, opening by opening."""
    total = timedelta()
    for opens, closes in calendar.openings(start):
        if opens >= end:
            return total
        total += min(closes, end) - opens
    raise AssertionError("a calendar has no last opening")


@settings(max_examples=200, deadline=None)
@given(calendars(), starts, durations, st.data())
def test_a_pause_of_any_length_over_any_change_conserves_the_working_time(
    calendar: Calendar, start: datetime, length: timedelta, data: st.DataObject
) -> None:
    """Paused at any second before it is due, and resumed at any later one."""
    due = due_at(start, length, calendar)
    seconds = int((due - start).total_seconds())
    paused = start + timedelta(seconds=data.draw(st.integers(0, seconds - 1)))
    resumed = paused + timedelta(seconds=data.draw(st.integers(0, 40 * 86_400)))
    before = worked(calendar, start, paused)
    assert before < length
    again = due_at(resumed, length - before, calendar)
    assert before + worked(calendar, resumed, again) == length
    assert again >= due


@pytest.mark.parametrize(
    ("calendar", "line", "reason"),
    [
        ("office: {time_zone: Mars/Olympus}", 1, "time_zone: .*IANA"),
        ("office:\n  hours:\n    monday: ['9-5']", 3, "monday: .*give hours as 09:00-17:30"),
        ("office:\n  hours:\n    monday: ['17:00-09:00']", 3, "must close after opening"),
        ("office:\n  hours: {monday: ['09:00-12:00', '11:00-13:00']}", 2, "one after another"),
        ("office:\n  hours: {monday: []}", 1, "at least once a week"),
        ("office:\n  hours: {funday: ['09:00-12:00']}", 2, "funday"),
    ],
)
def test_a_mistake_in_a_calendar_has_its_line(calendar: str, line: int, reason: str) -> None:
    with pytest.raises(Invalid, match=rf"calendars.yaml:{line}: .*{reason}"):
        parse_yaml(calendar, Calendars, "calendars.yaml")


def test_a_calendar_says_the_same_after_it_was_kept_as_json() -> None:
    kept: Any = OFFICE.model_dump_json()
    assert Calendar.model_validate_json(kept) == OFFICE
