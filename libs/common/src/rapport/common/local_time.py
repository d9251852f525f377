"""What local time is told in, wherever people set it: time zones and the days of the week."""

from enum import StrEnum
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator


class Weekday(StrEnum):
    """The days of the week, Monday first."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


WEEK: Final = tuple(Weekday)
"""The days in order, as `date.weekday()` counts them."""


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is no time zone of the IANA database, like Asia/Tehran") from None
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
"""The name of a time zone in the IANA database."""
