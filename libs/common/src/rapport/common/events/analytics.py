"""Topic rapport.analytics: what is measured and what stands out. No personal data."""

from typing import Literal

from rapport.common.events.envelope import EventData, Instant, Value, event
from rapport.common.events.topics import ANALYTICS
from rapport.common.events.vocabulary import ComplaintType


class Series(Value):
    """What a burst is about: a product or a brand, and a type of complaint."""

    product: str | None = None
    brand: str | None = None
    complaint_type: ComplaintType


@event("rapport.signal.detected.v1", ANALYTICS, key="signal_id")
class SignalDetected(EventData):
    """Far more negative items than usual came in about one matter.

    `observed` and `expected` are items within `window` seconds before `at`; `reason` says it in
    words, by language; `samples` are case ids.
    """

    signal_id: str
    series: Series
    at: Instant
    since: Instant
    window: float
    observed: int
    expected: float
    score: float
    path: str
    reason: dict[str, str]
    samples: tuple[str, ...]


@event("rapport.signal.cleared.v1", ANALYTICS, key="signal_id")
class SignalCleared(EventData):
    """The matter of a signal is back to its usual rate."""

    signal_id: str
    series: Series
    at: Instant


@event("rapport.kpi.target_missed.v1", ANALYTICS, key="kpi")
class KpiTargetMissed(EventData):
    """A period's figure is on the wrong side of its target, over `n` cases."""

    kpi: str
    start: Instant
    end: Instant
    value: float
    target: float
    n: int


class DigestLine(Value):
    """One topic x product x region of a digest: how many, how many negative, the worst case ids."""

    topic: ComplaintType
    product: str | None
    region: str | None
    count: int
    negative: int
    change: float | None = None
    samples: tuple[str, ...] = ()


@event("rapport.digest.compiled.v1", ANALYTICS, key="digest_id")
class DigestCompiled(EventData):
    """What support heard in a period, for PR (S1, S4)."""

    digest_id: str
    digest: str
    start: Instant
    end: Instant
    total: int
    by_kind: dict[str, int]
    lines: tuple[DigestLine, ...]


@event("rapport.measurement.recorded.v1", ANALYTICS, key="measurement_id")
class MeasurementRecorded(EventData):
    """A figure that is measured elsewhere: coverage tone, awareness, cost."""

    measurement_id: str
    measure: str
    value: float
    n: int
    at: Instant
    source: Literal["manual", "import"] = "manual"
