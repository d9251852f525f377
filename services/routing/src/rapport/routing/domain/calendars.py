"""Calendars: when people are at work, and when so much of their working time will have passed.

A calendar has a time zone, weekly opening hours, holidays, and days that are open against the rule.
A duration is the real time that passes while it is open, so an opening in which the clocks are put
forward is an hour shorter. Local times are read as RFC 5545 (3.3.5) does: one that the clocks skip
by the offset before the change, one that comes twice as its first coming.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import count, pairwise
from typing import Annotated, Final, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, RootModel, model_validator

from rapport.common.local_time import WEEK, TimeZone, Weekday

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_DAY: Final = timedelta(days=1)


class _Opening(NamedTuple):
    """From when until when of a day, as local time since midnight."""

    opens: timedelta
    closes: timedelta


@cache
def _opening(text: str) -> _Opening:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError("give hours as 09:00-17:30")
    hours = [int(part) for part in found.groups()]
    opens = timedelta(hours=hours[0], minutes=hours[1])
    closes = timedelta(hours=hours[2], minutes=hours[3])
    if not opens < closes <= _DAY:
        raise ValueError("must close after opening, at 24:00 at the latest")
    return _Opening(opens, closes)


def _one_after_another(hours: tuple[str, ...]) -> tuple[str, ...]:
    openings = [_opening(text) for text in hours]
    if any(later.opens < earlier.closes for earlier, later in pairwise(openings)):
        raise ValueError("hours must come one after another")
    return hours


Hours = Annotated[tuple[str, ...], AfterValidator(_one_after_another)]
"""A day's opening hours, like `["09:00-12:30", "13:30-18:00"]`; none means closed."""


class Calendar(BaseModel):
    """When people are at work; without `hours` that is around the clock, holidays excepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_zone: TimeZone = "UTC"
    hours: dict[Weekday, Hours] | None = None
    holidays: tuple[date, ...] = ()
    also_open: dict[date, Hours] = {}

    @model_validator(mode="after")
    def _opens_every_week(self) -> Self:
        if self.hours is not None and not any(self.hours.values()):
            raise ValueError("hours must be open at least once a week")
        return self

    def openings(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield from when until when it is open, in UTC, one after another, never before `start`.

        There is no last one: every calendar opens again.
        """
        zone = ZoneInfo(self.time_zone)
        first = start.astimezone(zone).date() - _DAY  # its hours may end late where clocks skip
        for days in count():
            day = first + timedelta(days=days)
            midnight = datetime.combine(day, time(), tzinfo=zone)
            for opening in self._hours_of(day):
                opens = (midnight + opening.opens).astimezone(UTC)
                if opens.astimezone(zone).date() != day:
                    continue  # the clocks skipped this day
                opens = max(start, opens)
                closes = (midnight + opening.closes).astimezone(UTC)
                if opens < closes:
                    yield opens, closes
                    start = closes

    def _hours_of(self, day: date) -> Iterator[_Opening]:
        around_the_clock = ("00:00-24:00",)
        if day in self.also_open:
            hours = self.also_open[day]
        elif day in self.holidays:
            hours = ()
        elif self.hours is None:
            hours = around_the_clock
        else:
            hours = self.hours.get(WEEK[day.weekday()], ())
        return map(_opening, hours)


class Calendars(RootModel[dict[str, Calendar]]):
    """The calendars of a company, by name."""

    model_config = ConfigDict(frozen=True)


AROUND_THE_CLOCK: Final = Calendar()


def due_at(start: datetime, working_time: timedelta, calendar: Calendar) -> datetime:
    """Return when so much `working_time`, above zero, has passed since `start`, in UTC."""
    start = start.astimezone(UTC)
    if calendar == AROUND_THE_CLOCK:
        return start + working_time
    left = working_time
    for opens, closes in calendar.openings(start):
        if left <= closes - opens:
            return opens + left
        left -= closes - opens
    raise AssertionError("a calendar has no last opening")
