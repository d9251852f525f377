"""What is usual in one series: the highest of three averages, so that few things are unusual.

A fast average follows the shift of a day, a slow one remembers yesterday, and the same time of day
on earlier days knows the morning rush. The averages are exponential and winsorised: a burst hardly
moves them. They decay by formula, so silence changes nothing that is kept.
"""

from math import sqrt
from typing import NamedTuple

from pydantic import BaseModel, Field

from rapport.analytics.domain.burst.bins import DAY, HALF_HOUR, HALF_HOURS_A_DAY, HOUR
from rapport.analytics.domain.burst.policy import BurstPolicy


class Usual(NamedTuple):
    """What is usual in one bin."""

    rate: float
    """Items expected, never zero."""
    dispersion: float
    """Variance over mean: 1 is pure chance (Poisson), more is lumpy."""


class Baseline(BaseModel):
    """What is usual in one series; rates are items per bin, times are bin numbers since 1970."""

    since: int | None = Field(None, description="The first bin known; None while nothing is.")
    known_to: int = Field(0, description="The bin at whose start the averages stood as below.")
    fast: float = Field(0.0, description="Average of the counts, soon forgetting.")
    slow: float = Field(0.0, description="Average of the counts, long remembering.")
    slow_square: float = Field(0.0, description="Slow average of the squared counts.")
    daily: dict[int, list[int]] = Field(
        default_factory=dict,
        description="Items per half hour (48) by day since 1970; days without items are left out.",
    )

    def age(self, number: int) -> int:
        """Bins from the first known one up to bin `number`."""
        return 0 if self.since is None else number - self.since

    def usual(self, number: int, policy: BurstPolicy) -> Usual:
        """The highest of the three averages, and how much counts have varied of late."""
        slow = self._decayed(self.slow, number, policy.slow_half_life)
        square = self._decayed(self.slow_square, number, policy.slow_half_life)
        rate = max(
            self._decayed(self.fast, number, policy.fast_half_life),
            slow,
            self._same_time_of_day(number, policy.history_days),
            policy.lowest_rate,
        )
        return Usual(rate, max(1.0, square / slow - slow) if slow > policy.lowest_rate else 1.0)

    def include(self, number: int, count: int, usual: Usual, policy: BurstPolicy) -> None:
        """Learn from one bin; one that lies before `known_to` informs its time of day only."""
        if self.since is None:
            self.since = self.known_to = number
        if number < self.known_to - policy.history_days * DAY:
            return
        self.since = min(self.since, number)
        if number >= self.known_to:
            self._average(number, min(count, self._ceiling(number, usual, policy)), policy)
        if count:
            self._remember(number, count, policy.history_days)

    def resume(self, number: int, policy: BurstPolicy) -> None:
        """Live bins begin at `number`; nothing is known of the time since the last imported one.

        The averages hold over that gap, unless it is longer than the history that is compared
        with: then what was learned is worth nothing and learning begins anew.
        """
        gap = number - self.known_to
        if self.since is None or not 0 <= gap <= policy.history_days * DAY:
            self.since, self.fast, self.slow, self.slow_square = number, 0.0, 0.0, 0.0
        self.known_to = number

    def _ceiling(self, number: int, usual: Usual, policy: BurstPolicy) -> float:
        if self.age(number) < policy.learning_hours * HOUR:
            return float("inf")
        deviation = sqrt(usual.rate * usual.dispersion)
        return max(policy.winsor_items, usual.rate + policy.winsor_deviations * deviation)

    def _average(self, number: int, count: float, policy: BurstPolicy) -> None:
        after = number + 1
        fast, slow = _weight(1, policy.fast_half_life), _weight(1, policy.slow_half_life)
        self.fast = self._decayed(self.fast, after, policy.fast_half_life) + (1 - fast) * count
        self.slow = self._decayed(self.slow, after, policy.slow_half_life) + (1 - slow) * count
        self.slow_square = (
            self._decayed(self.slow_square, after, policy.slow_half_life) + (1 - slow) * count**2
        )
        self.known_to = after

    def _decayed(self, average: float, number: int, half_life: float) -> float:
        return average * _weight(max(0, number - self.known_to), half_life)

    def _remember(self, number: int, count: int, history_days: int) -> None:
        day, half_hour = divmod(number // HALF_HOUR, HALF_HOURS_A_DAY)
        if day not in self.daily:
            today = self.known_to // DAY
            kept = range(today - history_days - 1, today + 1)
            self.daily = {d: counts for d, counts in self.daily.items() if d in kept}
            self.daily[day] = [0] * HALF_HOURS_A_DAY
        self.daily[day][half_hour] += count

    def _same_time_of_day(self, number: int, history_days: int) -> float:
        """The mean rate of the hour around this bin's middle on each earlier day that is known.

        Counts are kept by half hour: the middle one lies in that hour, its neighbours partly.
        """
        days = min(history_days, self.age(number) // DAY)
        if days < 1:
            return 0.0
        middle, place = divmod(number, HALF_HOUR)
        after = (place + 0.5) / HALF_HOUR
        items = 0.0
        for day in range(1, days + 1):
            half_hour = middle - day * HALF_HOURS_A_DAY
            items += (1 - after) * self._items(half_hour - 1)
            items += self._items(half_hour)
            items += after * self._items(half_hour + 1)
        return items / (days * HOUR)

    def _items(self, half_hour: int) -> int:
        day, place = divmod(half_hour, HALF_HOURS_A_DAY)
        counts = self.daily.get(day)
        return counts[place] if counts else 0


def _weight(bins: int, half_life: float) -> float:
    """What is left of an average after so many bins; `half_life` in hours."""
    return float(0.5 ** (bins / (half_life * HOUR)))
