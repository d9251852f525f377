"""Time in bins of five minutes: bin 0 began with 1970, a day has 288."""

from datetime import UTC, datetime, timedelta
from typing import Final

BIN: Final = timedelta(minutes=5)
"""The width of a bin; bins begin at whole multiples of it."""

QUARTER: Final = 3
"""Bins in a quarter of an hour."""
HALF_HOUR: Final = 6
"""Bins in half an hour."""
HOUR: Final = 12
"""Bins in an hour."""
DAY: Final = 288
"""Bins in a day."""
HALF_HOURS_A_DAY: Final = DAY // HALF_HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number_of(moment: datetime) -> int:
    """The number of the bin that an aware `moment` falls into."""
    return (moment - _EPOCH) // BIN


def start_of(number: int) -> datetime:
    """The moment at which a bin starts, which is where the one before it ends."""
    return _EPOCH + number * BIN


def bin_of(moment: datetime) -> datetime:
    """The start of the bin that an aware `moment` falls into."""
    return start_of(number_of(moment))
