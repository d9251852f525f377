"""Analytics over HTTP: figures against their targets, signals, digests, measurements."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from rapport.analytics import repository
from rapport.analytics.domain.digest import Digest
from rapport.analytics.domain.facts import Measurement
from rapport.analytics.domain.kpis import Direction, Figure, Name
from rapport.analytics.domain.periods import Every, Period, Rhythm
from rapport.analytics.domain.watch import Signal
from rapport.analytics.repository import Group, Resources
from rapport.common.clock import Clock
from rapport.common.errors import FieldProblem, Invalid
from rapport.common.events.analytics import DigestLine, Series
from rapport.common.events.envelope import Instant
from rapport.common.events.ids import derived_id
from rapport.common.http import (
    Command,
    Cursor,
    Limit,
    Principal,
    Router,
    command,
    engine_clock,
    may,
    page,
)
from rapport.common.local_time import TimeZone

router = Router(prefix="/analytics/v1")

View = TypeVar("View", bound=BaseModel)

LATELY: Final = timedelta(days=7)
FIRST: Final = datetime(1970, 1, 2, tzinfo=UTC)
LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
DECIMALS: Final = 6


def resources(request: Request) -> Resources:
    """Dependency: what the service works with."""
    found: Resources = request.app.state.resources
    return found


Reader = Annotated[Principal, may("figures.read")]
Analytics = Annotated[Resources, Depends(resources)]
Exercise = Annotated[
    str | None, Query(max_length=100, description="Of this drill; without it, of what is real.")
]


class Listing(BaseModel, Generic[View]):
    """A page of a list; `next` is the cursor of the page after, null where there is none."""

    items: list[View]
    next: str | None


# Figures


class Interval(StrEnum):
    """How long the periods are that figures are counted for."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Dimension(StrEnum):
    """What figures can be told apart by."""

    KIND = "kind"
    CHANNEL = "channel"
    LANGUAGE = "language"
    PRODUCT = "product"
    BRAND = "brand"
    REGION = "region"
    COMPLAINT_TYPE = "complaint_type"
    NEED = "need"
    SENTIMENT = "sentiment"
    TRUST_CAUSE = "trust_cause"
    SEVERITY = "severity"
    PUBLIC = "public"
    PURPOSE = "purpose"


_RHYTHMS: Final = {
    Interval.HOUR: Every.HOURLY,
    Interval.DAY: Every.DAILY,
    Interval.WEEK: Every.WEEKLY,
    Interval.MONTH: Every.MONTHLY,
}


class FigureView(BaseModel):
    """A figure; `value` is null where there are no cases, `met` where there is nothing to meet."""

    name: str
    value: float | None
    n: int = Field(description="The number of cases behind it.")
    unit: str = Field(description="`share` is 0 to 1; `count`, `seconds`, `stars` and so on.")
    target: float | None
    direction: Direction | None = Field(description="On which side of the target it should be.")
    met: bool | None


class PeriodView(BaseModel):
    """The figures of a period, of one group where they are told apart."""

    model_config = ConfigDict(populate_by_name=True)

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    by: Dimension | None
    group: Group = Field(description="The group's value; null where nobody told it.")
    kpis: list[FigureView]


@router.get("/kpis", summary="Figures against their targets", response_model=Listing[PeriodView])
async def kpis(
    _: Reader,
    analytics: Analytics,
    clock: Annotated[Clock, Depends(engine_clock)],
    from_: Annotated[
        str | None,
        Query(alias="from", max_length=40, description="Seven days before `to` unless given."),
    ] = None,
    to: Annotated[
        str | None,
        Query(max_length=40, description="Does not belong to the period; now unless given."),
    ] = None,
    interval: Annotated[
        Interval | None, Query(description="One item per hour, day, week or month.")
    ] = None,
    by: Annotated[
        Dimension | None,
        Query(description="One item per value, with the figures that know it."),
    ] = None,
    time_zone: Annotated[
        TimeZone, Query(max_length=64, description="Where days begin, and of times without zone.")
    ] = "UTC",
    exercise: Exercise = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many periods at most.")] = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Count figures from the facts of a period, or of each interval in it.

    Where figures are told apart, a period has an item for each of its 100 largest groups.
    """
    zone = ZoneInfo(time_zone)
    end = _moment(to, zone, "to") or clock.now()
    start = _moment(from_, zone, "from") or end - LATELY
    if start >= end:
        raise _refused("from", "must be before `to`")
    start = _moment(cursor, zone, "cursor") or start
    wanted = analytics.kpis.rules.told_apart_by(by)
    items: list[PeriodView] = []
    for place, period in enumerate(_periods(start, end, interval, time_zone)):
        if place == limit:
            return {"items": items, "next": period.start.isoformat()}
        found = await repository.count(analytics.store, wanted, period, by=by, exercise=exercise)
        items += [_period_view(period, by, group, figures) for group, figures in found]
    return {"items": items, "next": None}


def _moment(text: str | None, zone: ZoneInfo, name: str) -> datetime | None:
    """Read a date or a time, local where it names no zone; raises Invalid."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
        moment = (given if given.tzinfo else given.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        moment = LAST
    if not FIRST <= moment < LAST:
        raise _refused(name, "give a time from 1970 to 2199, like 2026-03-02T08:00:00Z")
    return moment


def _refused(name: str, reason: str) -> Invalid:
    return Invalid("the request does not fit", [FieldProblem(f"/query/{name}", reason)])


def _periods(
    start: datetime, end: datetime, interval: Interval | None, time_zone: str
) -> Iterable[Period]:
    if interval is None:
        return [Period(start, end)]
    return Rhythm(every=_RHYTHMS[interval], time_zone=time_zone).split(start, end)


def _period_view(
    period: Period, by: Dimension | None, group: Group, figures: Iterable[Figure]
) -> PeriodView:
    return PeriodView(
        start=period.start,
        end=period.end,
        by=by,
        group=group,
        kpis=[_figure_view(figure) for figure in figures],
    )


def _figure_view(figure: Figure) -> FigureView:
    target = figure.target
    return FigureView(
        name=figure.name,
        value=None if figure.value is None else round(figure.value, DECIMALS),
        n=figure.n,
        unit=figure.unit,
        target=target.value if target else None,
        direction=target.direction if target else None,
        met=figure.met,
    )


# Signals


class SignalView(BaseModel):
    """A burst: `observed` negative items within `window` seconds where `expected` are usual."""

    id: str
    state: Literal["open", "cleared"]
    series: Series
    at: Instant
    since: Instant
    window: float
    observed: int
    expected: float
    score: float
    path: str
    reason: dict[str, str] = Field(description="Why, in words, by language.")
    samples: list[str] = Field(description="Cases.")
    cleared_at: Instant | None
    exercise: str | None


@router.get("/signals", summary="Bursts, newest first", response_model=Listing[SignalView])
async def signals(
    _: Reader,
    analytics: Analytics,
    state: Annotated[Literal["open", "cleared"] | None, Query()] = None,
    exercise: Exercise = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List what stood out, and whether it still does."""
    where = {"exercise": exercise} | ({"state": state} if state else {})
    found = await analytics.store.find(Signal, where, limit=limit, cursor=cursor, newest_first=True)
    return page(found, _signal_view)


def _signal_view(signal: Signal) -> SignalView:
    told = signal.detected
    return SignalView(
        id=signal.id,
        state=signal.state,
        cleared_at=signal.cleared_at,
        exercise=signal.exercise,
        **told.model_dump(exclude={"signal_id"}),
    )


# Digests


class DigestView(BaseModel):
    """What was heard in a period; a line's `change` is a share of the period before."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    digest: str
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    total: int
    by_kind: dict[str, int]
    lines: list[DigestLine]


@router.get("/digests", summary="Digests, newest first", response_model=Listing[DigestView])
async def digests(
    _: Reader,
    analytics: Analytics,
    digest: Annotated[str | None, Query(max_length=64, description="Of this name.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List what support heard, period by period."""
    where = {"name": digest} if digest else {}
    found = await analytics.store.find(Digest, where, limit=limit, cursor=cursor, newest_first=True)
    return page(found, _digest_view)


def _digest_view(digest: Digest) -> DigestView:
    return DigestView(id=digest.id, **digest.compiled.model_dump(exclude={"digest_id"}))


# Measurements


class MeasurementBody(BaseModel):
    """A figure that was measured elsewhere, over `n` cases."""

    model_config = ConfigDict(extra="forbid")

    measure: Name
    value: Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
    n: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    at: Instant | None = Field(None, description="When it was so; now unless given.")


class MeasurementView(BaseModel):
    """A measurement on record."""

    id: str
    measure: str
    value: float
    n: int
    at: Instant


@router.post(
    "/measurements",
    status_code=201,
    summary="Record what was measured elsewhere",
    response_model=MeasurementView,
)
async def measure(
    body: MeasurementBody, cmd: Annotated[Command, command("measurement.write")]
) -> Measurement:
    """Put a measurement on record; a KPI that names its measure shows it."""
    at = body.at or cmd.at
    if not FIRST <= at <= cmd.at:
        raise Invalid("the request does not fit", [FieldProblem("/at", "must be from 1970 to now")])
    id = derived_id("measurement", cmd.cause)
    return await cmd.change(
        Measurement,
        id,
        lambda _: Measurement.record(id, body.measure, body.value, body.n, at),
    )
