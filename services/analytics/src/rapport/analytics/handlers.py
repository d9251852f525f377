"""Which event is remembered as what, who listens for bursts, and what is done at a period's end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from rapport.analytics import repository
from rapport.analytics.domain.burst import BIN, BurstPolicy, Detector, bin_of
from rapport.analytics.domain.digest import Account, Digest, DigestPolicy, DigestSchedule
from rapport.analytics.domain.facts import (
    CaseStep,
    CaseStepName,
    ClockOutcome,
    CrisisStep,
    CrisisStepName,
    Heard,
    MessageOutcome,
    MessageOutcomeName,
)
from rapport.analytics.domain.kpis import Figure, KpiPolicy, TargetReview
from rapport.analytics.domain.periods import Period, Periodic, Rhythm
from rapport.analytics.domain.series import is_negative, series_id
from rapport.analytics.domain.watch import (
    HOUR,
    BrandWatch,
    Hour,
    Listening,
    Signal,
    Watch,
    learned,
)
from rapport.analytics.repository import Resources
from rapport.common.aggregate import Due, Fact
from rapport.common.events.analytics import DigestCompiled, SignalCleared, SignalDetected
from rapport.common.events.cases import (
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseNoted,
    CaseOpened,
    CaseReferred,
    CaseReopened,
    CaseResolved,
    FeedbackClassified,
)
from rapport.common.events.clocks import ClockBreached, ClockMet
from rapport.common.events.crises import (
    CrisisDeclared,
    CrisisDismissed,
    CrisisEvent,
    CrisisProposed,
    CrisisStoodDown,
)
from rapport.common.events.envelope import Event
from rapport.common.events.ids import derived_id
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationEvent,
    NotificationFailed,
    NotificationSuppressed,
)
from rapport.common.handling import Declared, DueHandler, due, fact, on

P = TypeVar("P", bound=Periodic)

# Facts

CASE_STEPS: Final[dict[type[CaseEvent], CaseStepName]] = {
    CaseNoted: "noted",
    CaseOpened: "opened",
    CaseEscalated: "escalated",
    CaseReferred: "referred",
    CaseResolved: "resolved",
    CaseClosed: "closed",
    CaseReopened: "reopened",
}
CRISIS_STEPS: Final[dict[type[CrisisEvent], CrisisStepName]] = {
    CrisisProposed: "proposed",
    CrisisDismissed: "dismissed",
    CrisisDeclared: "declared",
    CrisisStoodDown: "stood_down",
}
MESSAGE_OUTCOMES: Final[dict[type[NotificationEvent], MessageOutcomeName]] = {
    NotificationDelivered: "delivered",
    NotificationFailed: "failed",
    NotificationSuppressed: "suppressed",
}


@fact(FeedbackClassified)
def heard(event: Event[FeedbackClassified]) -> Iterable[Fact]:
    """Remember what came in, of the past too."""
    yield Heard.of(event)


@fact(*CASE_STEPS)
def case_step(event: Event[CaseEvent]) -> Iterable[Fact]:
    """Remember what became of a case; a case of the past is only heard."""
    if not event.historical:
        yield CaseStep.of(event, CASE_STEPS[type(event.data)])


@fact(ClockMet, ClockBreached)
def clock_outcome(event: Event[ClockMet] | Event[ClockBreached]) -> Iterable[Fact]:
    """Remember whether a clock was met in time, and how long it took."""
    return ClockOutcome.of(event)


@fact(*MESSAGE_OUTCOMES)
def message_outcome(event: Event[NotificationEvent]) -> Iterable[Fact]:
    """Remember whether a message arrived."""
    yield MessageOutcome.of(event, MESSAGE_OUTCOMES[type(event.data)])


@fact(*CRISIS_STEPS)
def crisis_step(event: Event[CrisisEvent]) -> Iterable[Fact]:
    """Remember what became of a crisis."""
    yield CrisisStep.of(event, CRISIS_STEPS[type(event.data)])


@fact(DigestCompiled)
def digest(event: Event[DigestCompiled]) -> Iterable[Fact]:
    """Keep a digest as it was compiled."""
    yield Digest(id=event.data.digest_id, compiled=event.data)


# Bursts


@dataclass(frozen=True)
class Known:
    """What watches are told: the time, their series' histories, and since when we listen."""

    now: datetime
    histories: Mapping[str, Mapping[datetime, int]]
    listening: datetime | None
    policy: BurstPolicy

    def detector(self, id: str, at: datetime) -> Detector | None:
        """Return what is usual in a series, None where its watch was awake when this was read."""
        history = self.histories.get(id)
        if history is None:
            return None
        return learned(history, self.listening or at, at, self.policy)


def watch_of(kind: type[Watch], event: Event[FeedbackClassified]) -> str | None:
    """Return the id of the watch of `kind` that an item concerns: only negative ones of now do."""
    about = event.data.about
    series = None if event.historical or not is_negative(about) else kind.series_of(about)
    return None if series is None else series_id(series, event.exercise)


async def histories(
    kind: type[Watch], events: Sequence[Event[FeedbackClassified]], analytics: Resources
) -> Known:
    """Read the histories of the series whose watches are to be woken."""
    now = analytics.engine.clock.now()
    heard_at: dict[str, datetime] = {}
    for event in events:
        id = watch_of(kind, event)
        if id is not None:
            heard_at[id] = min(event.time, heard_at.get(id, now))
    watches = await analytics.store.get_many(kind, list(heard_at))
    awake = {id for id, watch in watches.items() if watch.is_awake and not watch.is_ahead(now)}
    asleep = {id: bin_of(at) for id, at in heard_at.items() if id not in awake}
    policy = analytics.bursts.rules
    return Known(
        now,
        await repository.histories(analytics.store, kind, asleep, policy.history_days),
        await repository.listening_since(analytics.store) if asleep else None,
        policy,
    )


def hear(
    kind: type[Watch], watch: Watch | None, event: Event[FeedbackClassified], known: Known
) -> Watch | None:
    """Wake the watch over an item's series, which counts it when its bin closes.

    It wakes no later than now, whatever intake's clock says.
    """
    at = min(event.time, known.now)
    if watch is None:
        series = kind.series_of(event.data.about)
        if series is None:
            return None
        watch = kind.over(series, event.exercise, at)
    watch.set_right(known.now)
    if not watch.is_awake:
        watch.wake(at, known.detector(watch.id, at))
    return watch if watch.hear(min(event.time, known.now + HOUR)) else None


async def last_hours(
    kind: type[Watch], ready: Sequence[Watch], analytics: Resources
) -> tuple[Mapping[str, Hour], BurstPolicy]:
    """Count what watches heard in the hour up to the end of the bin that each closes."""
    policy = analytics.bursts.rules
    ends = {watch.id: watch.closed_to + BIN for watch in ready}
    fewest = min(policy.hour_items, policy.fast_items)
    return await repository.hours(analytics.store, kind, ends, fewest), policy


def close_bin(watch: Watch, item: Due, given: tuple[Mapping[str, Hour], BurstPolicy]) -> Watch:
    """Close a bin whose time is over."""
    hours, policy = given
    watch.close(hours.get(watch.id, Hour()), policy)
    return watch


WATCHES: Final = (Watch, BrandWatch)
LISTENING: Final = tuple(
    on(
        FeedbackClassified,
        changes=kind,
        key=partial(watch_of, kind),
        prepare=partial(histories, kind),
    )(partial(hear, kind))
    for kind in WATCHES
)
CLOSING: Final = tuple(
    DueHandler(kind, partial(last_hours, kind), None, close_bin) for kind in WATCHES
)


@on(SignalDetected, changes=Signal, key=lambda event: event.data.signal_id)
def list_signal(signal: Signal | None, event: Event[SignalDetected]) -> Signal | None:
    """Keep a signal for those who ask."""
    return None if signal else Signal(id=event.data.signal_id, detected=event.data)


@on(SignalCleared, changes=Signal, key=lambda event: event.data.signal_id)
def clear_signal(signal: Signal | None, event: Event[SignalCleared]) -> Signal | None:
    """Note that a signal is over."""
    if signal is None or signal.cleared_at is not None:
        return None
    signal.cleared_at = event.data.at
    return signal


# Digests and targets


async def accounts(
    ready: Sequence[DigestSchedule], analytics: Resources
) -> tuple[Mapping[str, Account], DigestPolicy]:
    """Read what was heard in the periods of the digests that are due."""
    policy = analytics.digests.rules
    found = {}
    for schedule in ready:
        rhythm = policy.root.get(schedule.id)
        if rhythm is not None and schedule.end is not None:
            period = Period(schedule.start, schedule.end)
            before = rhythm.before(schedule.start)
            found[schedule.id] = await repository.account(analytics.store, period, before)
    return found, policy


@due(DigestSchedule, prepare=accounts)
def compile_digest(
    schedule: DigestSchedule, item: Due, given: tuple[Mapping[str, Account], DigestPolicy]
) -> DigestSchedule:
    """Compile the digest of the period that has ended; one that the policy dropped ends."""
    found, policy = given
    if schedule.id in found:
        schedule.compile(policy.root[schedule.id], found[schedule.id])
    else:
        schedule.stop()
    return schedule


async def period_figures(
    ready: Sequence[TargetReview], analytics: Resources
) -> tuple[Sequence[Figure], KpiPolicy]:
    """Count the figures of the period that has ended."""
    policy = analytics.kpis.rules
    found: Sequence[Figure] = ()
    for review in ready:
        if review.end is not None:
            period = Period(review.start, review.end)
            [(_, found)] = await repository.count(analytics.store, policy.kpis, period)
    return found, policy


@due(TargetReview, prepare=period_figures)
def review_targets(
    review: TargetReview, item: Due, given: tuple[Sequence[Figure], KpiPolicy]
) -> TargetReview:
    """Say which targets were missed in the period that has ended."""
    found, policy = given
    review.review(policy, found)
    return review


# The beginning


async def begin(analytics: Resources) -> None:
    """Begin to listen, and take up the schedules of digests and targets."""
    now = analytics.engine.clock.now()
    await analytics.engine.change(
        Listening,
        Listening.ID,
        lambda listening: None if listening else Listening(id=Listening.ID, since=now),
        cause=_beginning(Listening.ID, now),
    )
    for name, rhythm in analytics.digests.rules.root.items():
        await _follow(DigestSchedule, name, rhythm, now, analytics)
    await _follow(TargetReview, "targets", analytics.kpis.rules.review, now, analytics)


async def _follow(
    kind: type[P], id: str, rhythm: Rhythm, now: datetime, analytics: Resources
) -> None:
    def decide(current: P | None) -> P | None:
        if current is None:
            return kind.begin(id, rhythm, now)
        return current if current.follow(rhythm, now) else None

    await analytics.engine.change(kind, id, decide, cause=_beginning(id, now))


def _beginning(id: str, now: datetime) -> str:
    return derived_id("begin", id, now.isoformat())


DECLARED: Final[tuple[Declared, ...]] = (
    heard,
    case_step,
    clock_outcome,
    message_outcome,
    crisis_step,
    digest,
    *LISTENING,
    *CLOSING,
    list_signal,
    clear_signal,
    compile_digest,
    review_targets,
)
