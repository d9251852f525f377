"""Facts: what happened, once and for all; every figure is counted from them when it is asked for.

A fact is a function of its event, holds no personal data, and has an id that a repeat shares. `at`
is when it counts: when it came in, and for items of the past when it was said. `exercise` keeps a
drill's facts apart. What can be summed is a number or a truth value (0 or 1); figures are told
apart by the fields of `DIMENSIONS`.
"""

from collections.abc import Iterator
from datetime import datetime
from math import log2
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field

from rapport.analytics.domain.burst import bin_of
from rapport.analytics.domain.series import brand_series, is_negative, product_series, series_id
from rapport.common.aggregate import Aggregate, Fact
from rapport.common.events.analytics import MeasurementRecorded
from rapport.common.events.cases import CaseEvent, CaseResolved, FeedbackClassified, Subject
from rapport.common.events.clocks import ClockBreached, ClockEvent, ClockMet
from rapport.common.events.crises import CrisisEvent, CrisisStoodDown
from rapport.common.events.envelope import Event, Instant
from rapport.common.events.ids import derived_id
from rapport.common.events.notifications import NotificationEvent
from rapport.common.events.topics import ANALYTICS, Topic
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)

SATISFIED: Final = 0.75
"""The share of its scale from which a rating says satisfied: four of five stars."""

STEPS_PER_DOUBLING: Final = 8
"""How finely times are told apart for percentiles: within 4.5 %."""


def step_of(seconds: float) -> int:
    """Return the place of a time on a scale of equal ratios, for percentiles."""
    return round(STEPS_PER_DOUBLING * log2(max(1.0, seconds)))


def seconds_of(step: int) -> float:
    """Return the time in the middle of a step, in seconds."""
    return float(2 ** (step / STEPS_PER_DOUBLING))


class Counted(Fact):
    """What every fact that figures are counted from has."""

    ORDER: ClassVar[str] = "at"
    DIMENSIONS: ClassVar[frozenset[str]] = frozenset()
    STEP: ClassVar[str | None] = None
    """The field that percentiles are read from."""

    at: Instant
    exercise: str | None = None


SUBJECT: Final = (
    "kind",
    "channel",
    "language",
    "product",
    "brand",
    "region",
    "complaint_type",
    "need",
    "sentiment",
    "trust_cause",
    "severity",
    "public",
)


class AboutSubject(Counted):
    """A fact about what somebody said; a dimension that nobody told is None."""

    DIMENSIONS: ClassVar[frozenset[str]] = frozenset(SUBJECT)

    kind: Kind | None = None
    channel: Channel | None = None
    language: Language | None = None
    product: str | None = None
    brand: str | None = None
    region: str | None = None
    complaint_type: ComplaintType | None = None
    need: Need | None = None
    sentiment: Sentiment | None = None
    trust_cause: TrustCause | None = None
    severity: Severity | None = None
    public: bool | None = None


class Heard(AboutSubject):
    """One message came in; a rating is moved to 1 to 5, only negative items belong to series."""

    COLLECTION: ClassVar[str] = "heard"
    FIELDS: ClassVar[tuple[str, ...]] = (
        *SUBJECT,
        "historical",
        "reach",
        "rating",
        "rated",
        "satisfied",
        "negative",
    )
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("exercise", "at"),
        ("exercise", "severity", "at"),
        ("product_series", "bin", "product", "historical"),
        ("brand_series", "bin", "product", "historical"),
    )

    case_id: str
    historical: bool
    reach: int
    rating: float | None
    rated: bool
    satisfied: bool
    negative: bool
    bin: Instant
    product_series: str | None
    brand_series: str | None

    @classmethod
    def of(cls, event: Event[FeedbackClassified]) -> Self:
        """Remember one assessed message."""
        told, about = event.data, event.data.about
        at = told.occurred_at if event.historical else event.time
        product = product_series(about)
        negative = is_negative(about)
        return cls(
            id=event.id,
            at=at,
            exercise=event.exercise,
            historical=event.historical,
            case_id=told.case_id,
            **_subject(about),
            reach=about.reach,
            rating=None if told.rating is None else 1 + 4 * told.rating,
            rated=told.rating is not None,
            satisfied=told.rating is not None and told.rating >= SATISFIED,
            negative=negative,
            bin=bin_of(at),
            product_series=series_id(product, event.exercise) if negative and product else None,
            brand_series=series_id(brand_series(about), event.exercise) if negative else None,
        )


CaseStepName = Literal["noted", "opened", "escalated", "referred", "resolved", "closed", "reopened"]


class CaseStep(AboutSubject):
    """A case came this far: each step counts once per case, a referral every time.

    `opened_at` is the opening that a step belongs to, where its event tells; `resolved_after` the
    seconds from there to the resolution.
    """

    COLLECTION: ClassVar[str] = "case_steps"
    FIELDS: ClassVar[tuple[str, ...]] = (
        *SUBJECT,
        "noted",
        "opened",
        "escalated",
        "referred",
        "resolved",
        "closed",
        "reopened",
        "first_contact",
        "resolved_after",
    )
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("exercise", "at"),
        ("exercise", "opened_at"),
        ("exercise", "kind", "at"),
        ("exercise", "kind", "opened_at"),
    )

    case_id: str
    opened_at: Instant | None
    noted: bool = False
    opened: bool = False
    escalated: bool = False
    referred: bool = False
    resolved: bool = False
    closed: bool = False
    reopened: bool = False
    first_contact: bool = False
    resolved_after: float | None = None

    @classmethod
    def of(cls, event: Event[CaseEvent], step: CaseStepName) -> Self:
        """Remember that a case came to `step`."""
        told = event.data
        about: Subject | None = getattr(told, "about", None)
        values: dict[str, Any] = {} if about is None else _subject(about)
        opened_at = event.time if step == "opened" else getattr(told, "opened_at", None)
        if isinstance(told, CaseResolved):
            values["first_contact"] = told.first_contact
            values["resolved_after"] = (event.time - told.opened_at).total_seconds()
        values[step] = True
        return cls(
            id=derived_id(told.case_id, step, event.id if step == "referred" else ""),
            at=event.time,
            exercise=event.exercise,
            case_id=told.case_id,
            opened_at=opened_at,
            **values,
        )


class ClockOutcome(Counted):
    """What became of a clock. It is decided once: in time when it is met, else when it is due.

    Met late, it has two facts: that it was late, however that was noticed, and how long it took.
    """

    COLLECTION: ClassVar[str] = "clock_outcomes"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "channel",
        "decided",
        "on_time",
        "met",
        "elapsed",
        "elapsed_step",
    )
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("exercise", "clock", "at"),)
    DIMENSIONS: ClassVar[frozenset[str]] = frozenset({"clock", "channel"})
    STEP: ClassVar[str | None] = "elapsed_step"

    clock: str
    channel: Channel | None
    decided: bool
    on_time: bool
    met: bool
    elapsed: float | None = None
    elapsed_step: int | None = None

    @classmethod
    def of(cls, event: Event[ClockMet] | Event[ClockBreached]) -> Iterator[Self]:
        """Remember a clock that was met, breached, or both."""
        told = event.data
        if isinstance(told, ClockMet):
            yield cls(
                id=_clock_fact(told, "met"),
                at=told.met_at,
                exercise=event.exercise,
                clock=told.clock,
                channel=told.channel,
                decided=not told.breached,
                on_time=not told.breached,
                met=True,
                elapsed=told.elapsed,
                elapsed_step=step_of(told.elapsed),
            )
        if isinstance(told, ClockBreached) or told.breached:
            yield cls(
                id=_clock_fact(told, "late"),
                at=told.due_at,
                exercise=event.exercise,
                clock=told.clock,
                channel=told.channel,
                decided=True,
                on_time=False,
                met=False,
            )


MessageOutcomeName = Literal["delivered", "failed", "suppressed"]


class MessageOutcome(Counted):
    """What became of a message to somebody; `decided` is whether it was tried to the end."""

    COLLECTION: ClassVar[str] = "message_outcomes"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "purpose",
        "channel",
        "decided",
        "delivered",
        "failed",
        "suppressed",
    )
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("exercise", "at"),)
    DIMENSIONS: ClassVar[frozenset[str]] = frozenset({"purpose", "channel"})

    purpose: str
    channel: str
    decided: bool
    delivered: bool = False
    failed: bool = False
    suppressed: bool = False

    @classmethod
    def of(cls, event: Event[NotificationEvent], outcome: MessageOutcomeName) -> Self:
        """Remember one message's outcome."""
        return cls(
            id=event.id,
            at=event.time,
            exercise=event.exercise,
            purpose=event.data.purpose,
            channel=event.data.channel,
            decided=outcome != "suppressed",
            **{outcome: True},
        )


CrisisStepName = Literal["proposed", "dismissed", "declared", "stood_down"]


class CrisisStep(Counted):
    """A crisis came this far; at its end, how many of those who could be reached were."""

    COLLECTION: ClassVar[str] = "crisis_steps"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "proposed",
        "dismissed",
        "declared",
        "stood_down",
        "concerned",
        "reached",
    )
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("exercise", "at"),)

    proposed: bool = False
    dismissed: bool = False
    declared: bool = False
    stood_down: bool = False
    concerned: int = 0
    reached: int = 0

    @classmethod
    def of(cls, event: Event[CrisisEvent], step: CrisisStepName) -> Self:
        """Remember that a crisis came to `step`."""
        told = event.data
        concerned = reached = 0
        if isinstance(told, CrisisStoodDown):
            coverage = told.coverage
            concerned = coverage.linked - coverage.opted_out - coverage.unreachable
            reached = concerned - coverage.missing
        return cls(
            id=derived_id(told.crisis_id, step),
            at=event.time,
            exercise=event.exercise,
            concerned=concerned,
            reached=reached,
            **{step: True},
        )


class Measurement(Aggregate):
    """A figure that was measured elsewhere, over `n` cases: counted like a fact, written by people.

    `weighted` is the value times n, so that the mean of several measurements is right.
    """

    COLLECTION: ClassVar[str] = "measurements"
    TOPIC: ClassVar[Topic | None] = ANALYTICS
    ORDER: ClassVar[str] = "at"
    FIELDS: ClassVar[tuple[str, ...]] = ("n", "weighted")
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("exercise", "measure", "at"),)
    DIMENSIONS: ClassVar[frozenset[str]] = frozenset({"measure"})
    STEP: ClassVar[str | None] = None

    measure: str
    value: float
    n: Annotated[int, Field(ge=1)] = 1
    at: Instant

    @property
    def weighted(self) -> float:
        """The value times the number of cases behind it."""
        return self.value * self.n

    @classmethod
    def record(cls, id: str, measure: str, value: float, n: int, at: datetime) -> Self:
        """Put a measurement on record."""
        made = cls(id=id, measure=measure, value=value, n=n, at=at)
        made.emit(MeasurementRecorded(measurement_id=id, measure=measure, value=value, n=n, at=at))
        return made


def _subject(about: Subject) -> dict[str, Any]:
    return {name: getattr(about, name) for name in SUBJECT}


def _clock_fact(clock: ClockEvent, outcome: str) -> str:
    return derived_id(
        clock.of, clock.aggregate_id, clock.clock, clock.started_at.isoformat(), outcome
    )
