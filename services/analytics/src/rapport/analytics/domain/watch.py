"""Watches: each listens to one series, bin by bin, and tells when it bursts and is calm again.

A watch is woken by an item and sleeps after an hour of silence. What is usual it learns when it
wakes, from the facts of the last 14 days, imported ones included: so silence costs nothing, and
history counts whenever it was imported. Items of the past wake nobody.

Bins close by the clock. What is stored a moment too late for its bin counts in the next one, up to
an hour later. What a clock that is up to an hour ahead has timed counts when that time has come;
whatever the time that an item comes with, its watch is awake from now on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal, Self

from pydantic import Field

from rapport.analytics.domain.burst import BIN, Alarm, BurstPolicy, Cleared, Detector, bin_of
from rapport.analytics.domain.burst.bins import number_of
from rapport.analytics.domain.series import brand_series, product_series, series_id
from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.analytics import Series, SignalCleared, SignalDetected
from rapport.common.events.cases import Subject
from rapport.common.events.envelope import Instant
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import ANALYTICS, Topic

HOUR: Final = timedelta(hours=1)
"""How long an item still counts that is late or ahead, and how far back a burst's samples reach."""

SAMPLES: Final = 5

ONE_PRODUCT: Final = 0.5
"""The share of a brand's items from which a burst is one product's, which its own watch tells."""


class Listening(Aggregate):
    """Since when this system listens: what was not heard since then was not said."""

    COLLECTION: ClassVar[str] = "listening"
    ID: ClassVar[str] = "listening"

    since: Instant


@dataclass(frozen=True, slots=True)
class Hour:
    """What a series heard in the hour up to a bin's end: items by bin and by product, cases."""

    bins: Mapping[datetime, int] = field(default_factory=dict)
    products: Mapping[str | None, int] = field(default_factory=dict)
    cases: Sequence[str] = ()


class Watch(Aggregate):
    """Listens to one series. Bins up to `closed_to` are closed; it is awake up to `awake_to`."""

    COLLECTION: ClassVar[str] = "product_watches"
    TOPIC: ClassVar[Topic | None] = ANALYTICS
    FIELD: ClassVar[str] = "product_series"
    """The field of `Heard` that names the series."""

    series: Series
    detector: Detector
    closed_to: Instant
    awake_to: Instant
    counted: dict[Instant, int] = Field(default_factory=dict)
    signal: str | None = None

    @classmethod
    def over(cls, series: Series, exercise: str | None, at: datetime) -> Self:
        """Return a watch over a series that nothing is known of yet."""
        start = bin_of(at)
        return cls(
            id=series_id(series, exercise),
            series=series,
            detector=Detector(),
            closed_to=start,
            awake_to=start,
        )

    @classmethod
    def series_of(cls, about: Subject) -> Series | None:
        """The series in which an item counts for watches of this kind."""
        return product_series(about)

    @property
    def is_awake(self) -> bool:
        """Whether it has a bin to close."""
        return self.awake_to > self.closed_to

    def due(self) -> Sequence[Due]:
        """The bin that is being filled closes at its end."""
        return [Due("bin", self.closed_to + BIN)] if self.is_awake else []

    def is_ahead(self, now: datetime) -> bool:
        """Whether its bins are closed so far beyond `now` that what is said meanwhile is lost."""
        return self.closed_to > now + HOUR

    def set_right(self, now: datetime) -> None:
        """Where a clock far ahead has closed its bins, let it sleep since `now` and learn anew.

        A burst that is open stays open until it is calm.
        """
        if not self.is_ahead(now):
            return
        alarmed = self.detector.alarmed
        self.detector = Detector(
            alarmed=None if alarmed is None else min(alarmed, number_of(now)),
            open=self.detector.open,
        )
        self.closed_to = self.awake_to = bin_of(now)
        self.counted = {}

    def wake(self, at: datetime, detector: Detector | None) -> None:
        """Begin with the bin of `at`; `detector` knows what is usual, None leaves what was known.

        The last alarm is not forgotten: two alarms keep their distance whoever slept in between.
        """
        self.closed_to = max(self.closed_to, bin_of(at))
        if detector is not None:
            detector.alarmed, detector.open = self.detector.alarmed, self.detector.open
            self.detector = detector

    def hear(self, at: datetime) -> bool:
        """Take note that an item came in; tell whether that was news for its bin.

        It stays awake for one bin more, in case the item is stored a moment after its bin closed.
        """
        needed = max(self.closed_to, bin_of(at)) + 2 * BIN
        if self.awake_to >= needed:
            return False
        self.awake_to = needed
        return True

    def close(self, hour: Hour, policy: BurstPolicy) -> None:
        """Close the bin whose time is over, and tell what came to light."""
        start, end = self.closed_to, self.closed_to + BIN
        bins = {bin: count for bin, count in hour.bins.items() if end - HOUR <= bin < end}
        fresh = sum(bins.values()) - sum(self.counted.get(bin, 0) for bin in bins)
        findings = self.detector.advance(start, fresh, policy)
        self.counted, self.closed_to = bins, end
        if not self.detector.idle:
            self.awake_to = max(self.awake_to, end + BIN)
        for finding in findings:
            match finding:
                case Alarm():
                    self._raise(finding, hour)
                case Cleared():
                    self._clear(finding)

    def tells(self, hour: Hour) -> bool:
        """Whether a burst like this is this watch's to tell."""
        return True

    def _raise(self, alarm: Alarm, hour: Hour) -> None:
        if self.signal is not None or not self.tells(hour):
            return
        self.signal = derived_id("signal", self.id, alarm.at.isoformat())
        self.emit(
            SignalDetected(
                signal_id=self.signal,
                series=self.series,
                at=alarm.at,
                since=alarm.since,
                window=alarm.window.total_seconds(),
                observed=alarm.observed,
                expected=alarm.expected,
                score=alarm.score,
                path=alarm.path,
                reason=alarm.reasons,
                samples=tuple(hour.cases),
            )
        )

    def _clear(self, finding: Cleared) -> None:
        if self.signal is not None:
            self.emit(SignalCleared(signal_id=self.signal, series=self.series, at=finding.at))
            self.signal = None


class BrandWatch(Watch):
    """Listens to all that concerns a brand, and leaves to a product's watch what is one product's.

    So one matter gives one signal, and what spreads over several products is still seen.
    """

    COLLECTION: ClassVar[str] = "brand_watches"
    FIELD: ClassVar[str] = "brand_series"

    @classmethod
    def series_of(cls, about: Subject) -> Series | None:
        """Every item counts for its brand."""
        return brand_series(about)

    def tells(self, hour: Hour) -> bool:
        """Whether no single product explains the burst."""
        named = [count for product, count in hour.products.items() if product is not None]
        return max(named, default=0) < ONE_PRODUCT * sum(hour.products.values())


def learned(
    history: Mapping[datetime, int], listening: datetime, until: datetime, policy: BurstPolicy
) -> Detector:
    """Return a detector that knows a series' items by bin, from before `until`.

    Since `listening` began the silence between them is known, before that it is not.
    """
    detector = Detector()
    begun = bin_of(min(listening, until)) - BIN
    for start, count in sorted(history.items()):
        if detector.next_bin is None and start > begun:
            detector.advance(begun, 0, policy)
        detector.learn(start, count, policy)
    if detector.next_bin is None:
        detector.advance(begun, 0, policy)
    return detector


class Signal(Aggregate):
    """A burst, from its alarm until it is calm again: what `SignalDetected` told, and its end."""

    COLLECTION: ClassVar[str] = "signals"
    ORDER: ClassVar[str] = "at"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("exercise", "state", "at"),
        ("exercise", "at"),
    )

    detected: SignalDetected
    cleared_at: Instant | None = None

    @property
    def at(self) -> datetime:
        """When it was detected."""
        return self.detected.at

    @property
    def state(self) -> Literal["open", "cleared"]:
        """Whether it is over."""
        return "open" if self.cleared_at is None else "cleared"
