"""Periods: when an hour, a day, a week or a month begins and ends where the people are.

Boundaries are local times, so a day in which the clocks change has 23 or 25 hours. They are read as
RFC 5545 (3.3.5) does: a time that the clocks skip by the offset before the change, one that comes
twice as its first coming. `Periodic` is what is done once for every period, a minute after its end.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict

from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.envelope import Instant
from rapport.common.local_time import WEEK, TimeZone, Weekday

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_INSTANT: Final = timedelta(microseconds=1)

DELAY: Final = timedelta(minutes=1)
"""Lets what happened at the very end of a period arrive."""


class Every(StrEnum):
    """How often."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("write the time in quotes, like '10:00'")  # YAML reads 10:00 as 600
    return value


class Period(NamedTuple):
    """From `start` up to `end`, which does not belong to it."""

    start: datetime
    end: datetime


class Rhythm(BaseModel):
    """Where one period ends and the next begins: at a local time, daily or on the first day.

    A week begins with `day`, a month with its first. Hours begin with minute 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: Every
    at: Annotated[time, BeforeValidator(_quoted)] = time()
    day: Weekday = Weekday.MONDAY
    time_zone: TimeZone = "UTC"

    def start_of(self, moment: datetime) -> datetime:
        """The last boundary that is not after `moment`."""
        if self.every is Every.HOURLY:
            local = moment.astimezone(self._zone)
            return moment - timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
        return self._boundary(self._first_day_before(moment))

    def end_of(self, moment: datetime) -> datetime:
        """The first boundary after `moment`."""
        if self.every is Every.HOURLY:
            return self.start_of(moment) + _HOUR
        day = self._first_day_before(moment)
        while (boundary := self._boundary(day)) <= moment:
            day = self._next_first_day(day)
        return boundary

    def before(self, boundary: datetime) -> Period:
        """The period that ends at `boundary`."""
        return Period(self.start_of(boundary - _INSTANT), boundary)

    def split(self, start: datetime, end: datetime) -> Iterator[Period]:
        """The periods from `start` to `end`; the first and the last may be cut short."""
        while start < end:
            until = min(self.end_of(start), end)
            yield Period(start, until)
            start = until

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    def _boundary(self, day: date) -> datetime:
        local = datetime.combine(day, self.at, self._zone)
        return local.astimezone(UTC)

    def _first_day_before(self, moment: datetime) -> date:
        day = self._first_day(moment.astimezone(self._zone).date())
        while self._boundary(day) > moment:
            day = self._first_day(day - _DAY)
        return day

    def _first_day(self, day: date) -> date:
        """The first day of the period that `day` lies in."""
        match self.every:
            case Every.WEEKLY:
                return day - (day.weekday() - WEEK.index(self.day)) % 7 * _DAY
            case Every.MONTHLY:
                return day.replace(day=1)
        return day

    def _next_first_day(self, day: date) -> date:
        match self.every:
            case Every.WEEKLY:
                return day + 7 * _DAY
            case Every.MONTHLY:
                return (day + 31 * _DAY).replace(day=1)
        return day + _DAY


class Periodic(Aggregate):
    """Something that is done once for every period, when it is over; its id is its name.

    A period that ended while nothing ran is made up for, each by itself. Without an `end` it is
    done no more.
    """

    start: Instant
    end: Instant | None = None

    @classmethod
    def begin(cls, id: str, rhythm: Rhythm, now: datetime) -> Self:
        """Begin with the whole period that runs at `now`."""
        return cls(id=id, start=rhythm.start_of(now), end=rhythm.end_of(now))

    def due(self) -> Iterable[Due]:
        """It is done soon after the period's end."""
        if self.end is not None:
            yield Due("period", self.end + DELAY)

    def follow(self, rhythm: Rhythm, now: datetime) -> bool:
        """Take up a rhythm that was changed; tell whether it was. What is due comes first.

        What is over is not done again, where a clock was put back or another's is behind.
        """
        if self.end is None:
            self.start, self.end = rhythm.start_of(now), rhythm.end_of(now)
            return True
        end = rhythm.end_of(now)
        if self.end <= now or self.end == end or end <= self.start:
            return False
        self.end = end
        return True

    def turn(self, rhythm: Rhythm) -> None:
        """Go on to the next period."""
        if self.end is not None:
            self.start, self.end = self.end, rhythm.end_of(self.end)

    def stop(self) -> None:
        """Do it no more."""
        self.end = None
