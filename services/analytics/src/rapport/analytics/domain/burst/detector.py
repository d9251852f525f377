"""One series from bin to bin: gathers evidence, raises an alarm, notices when it is over."""

from datetime import datetime
from math import exp, lgamma, log, log10
from typing import Final, Self

from pydantic import BaseModel, Field

from rapport.analytics.domain.burst.baseline import Baseline, Usual
from rapport.analytics.domain.burst.bins import BIN, HOUR, QUARTER, number_of, start_of
from rapport.analytics.domain.burst.findings import Alarm, Cleared, Finding
from rapport.analytics.domain.burst.policy import BurstPolicy

_NEARLY_POISSON: Final = 1 + 1e-6  # the negative binomial itself is not defined at 1
_SMALLEST_PROBABILITY: Final = 1e-300


class Detector(BaseModel):
    """The state of one series, bounded whatever comes, resumable from its JSON after any bin.

    A new detector takes its first bin as the first one known. Where the silence before it is known
    too (the brand has been listened to for long, this complaint type is new), begin with
    `listening_since`, or the first day of a new kind of complaint passes as learning.
    """

    baseline: Baseline = Field(default_factory=Baseline)
    next_bin: int | None = Field(
        None, description="The bin to come; None before the first live one."
    )
    recent: list[int] = Field(
        default_factory=lambda: [0] * HOUR, description="Counts of the last hour, oldest first."
    )
    evidence: float = Field(0.0, description="The CUSUM, in nats.")
    alarmed: int | None = Field(None, description="The bin of the last alarm.")
    open: bool = Field(False, description="True from an alarm until it clears.")

    @classmethod
    def listening_since(cls, moment: datetime) -> Self:
        """A detector that knows of no item since `moment`, although it would have heard it."""
        number = number_of(moment)
        return cls(baseline=Baseline(since=number, known_to=number), next_bin=number)

    @property
    def idle(self) -> bool:
        """True after an hour of silence: empty bins change nothing and need not be given."""
        return not self.open and not any(self.recent)

    def learn(self, bin_start: datetime, count: int, policy: BurstPolicy) -> None:
        """Count items of the past (an import) as baseline: they raise nothing and clear nothing.

        Best in order and before the first live bin; empty bins may be left out. A bin before the
        latest one known informs its time of day only, one more than `history_days` before nothing.
        """
        number = number_of(bin_start)
        usual = self.baseline.usual(number, policy)
        self.baseline.include(number, _checked(count), usual, policy)

    def advance(self, bin_start: datetime, count: int, policy: BurstPolicy) -> list[Finding]:
        """Close the live bin that holds `bin_start`; the bins left out since the last were empty.

        Returns what came to light, in order, mostly nothing. Costs the same after any gap.
        Raises ValueError for a bin that is closed already: late items belong to the current bin.
        """
        number = number_of(bin_start)
        if self.next_bin is None:
            self.baseline.resume(number, policy)
            self.next_bin = number
        if number < self.next_bin:
            raise ValueError("this bin is closed; bins are advanced in order")
        # An import may hold items of tomorrow: senders' clocks and time zones go wrong.
        self.baseline.known_to = min(self.baseline.known_to, number)
        silence = range(self.next_bin, min(number, self.next_bin + HOUR))
        bins = [*((empty, 0) for empty in silence), (number, _checked(count))]
        findings = [self._close(*closing, policy) for closing in bins]
        return [finding for finding in findings if finding]

    def _close(self, number: int, count: int, policy: BurstPolicy) -> Finding | None:
        self.next_bin = number + 1
        if self.idle and not count:
            return None
        usual = self.baseline.usual(number, policy)
        self.recent = [*self.recent[1:], count]
        self._gather_evidence(count, usual, policy)
        if not count:
            return self._cleared(number, usual, policy)
        finding = self._alarm(number, usual, policy) or self._cleared(number, usual, policy)
        self.baseline.include(number, count, usual, policy)
        return finding

    def _gather_evidence(self, count: int, usual: Usual, policy: BurstPolicy) -> None:
        """Add the bin's log likelihood ratio of a grown rate; an hour of silence ends a run."""
        growth = policy.cusum_growth
        step = (count * log(growth) - (growth - 1) * usual.rate) / usual.dispersion
        evidence = min(policy.cusum_ceiling, max(0.0, self.evidence + step))
        self.evidence = evidence if any(self.recent) else 0.0

    def _alarm(self, number: int, usual: Usual, policy: BurstPolicy) -> Alarm | None:
        if not self._may_alarm(number, policy):
            return None
        alarm = self._alarm_by_cusum(number, usual, policy) or self._alarm_by_fast_path(
            number, usual, policy
        )
        if alarm:
            self.alarmed, self.open = number, True
        return alarm

    def _may_alarm(self, number: int, policy: BurstPolicy) -> bool:
        learned = self.baseline.age(number) >= policy.learning_hours * HOUR
        quiet = self.alarmed is not None and number - self.alarmed < policy.quiet_hours * HOUR
        return learned and not quiet

    def _alarm_by_cusum(self, number: int, usual: Usual, policy: BurstPolicy) -> Alarm | None:
        observed, expected = sum(self.recent), usual.rate * HOUR
        enough = observed >= max(policy.hour_items, policy.hour_ratio * expected)
        if not enough or self.evidence < policy.cusum_threshold:
            return None
        return Alarm(
            at=start_of(number + 1),
            path="cusum",
            window=BIN * HOUR,
            observed=observed,
            expected=expected,
            score=self.evidence,
            renewed=self.open,
        )

    def _alarm_by_fast_path(self, number: int, usual: Usual, policy: BurstPolicy) -> Alarm | None:
        observed, expected = sum(self.recent[-QUARTER:]), usual.rate * QUARTER
        if observed < max(policy.fast_items, policy.fast_ratio * expected):
            return None
        chance = negative_binomial_tail(observed, expected, usual.dispersion)
        if chance >= policy.fast_probability:
            return None
        return Alarm(
            at=start_of(number + 1),
            path="fast",
            window=BIN * QUARTER,
            observed=observed,
            expected=expected,
            score=-log10(max(chance, _SMALLEST_PROBABILITY)),
            renewed=self.open,
        )

    def _cleared(self, number: int, usual: Usual, policy: BurstPolicy) -> Cleared | None:
        if not self.open or self.alarmed is None or number - self.alarmed < HOUR:
            return None
        observed, expected = sum(self.recent), usual.rate * HOUR
        if observed > policy.clear_items and observed >= policy.clear_ratio * expected:
            return None
        self.open = False
        return Cleared(at=start_of(number + 1), observed=observed, expected=expected)


def negative_binomial_tail(observed: int, mean: float, dispersion: float) -> float:
    """Bound the chance of at least `observed` items where `mean` are expected, from above.

    `dispersion` is variance over mean; at 1 the tail is Poisson's. The terms of the tail shrink at
    least as fast as a geometric series, so first / (1 - ratio) bounds their sum: by at most a third
    too high near 1e-5 where `observed` is four times `mean` or more. 1 up to the mean.
    """
    if observed <= mean:
        return 1.0
    dispersion = max(dispersion, _NEARLY_POISSON)
    size, success = mean / (dispersion - 1), 1 - 1 / dispersion
    first = (
        lgamma(observed + size)
        - lgamma(size)
        - lgamma(observed + 1)
        - size * log(dispersion)
        + observed * log(success)
    )
    ratio = success * max(1.0, (observed + size) / (observed + 1))
    return min(1.0, exp(first) / (1 - ratio)) if ratio < 1 else 1.0


def _checked(count: int) -> int:
    if count < 0:
        raise ValueError("a count of items is never negative")
    return count
