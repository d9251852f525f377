"""What analytics reads, by name, and what its handlers and API work with."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from rapport.analytics.domain.burst import BurstPolicy
from rapport.analytics.domain.digest import Account, DigestPolicy, Matter, Volume
from rapport.analytics.domain.facts import Heard
from rapport.analytics.domain.kpis import (
    COUNT,
    KINDS,
    Counting,
    Figure,
    Kpi,
    KpiPolicy,
    Totals,
    countings,
    figures,
)
from rapport.analytics.domain.periods import Period
from rapport.analytics.domain.watch import HOUR, SAMPLES, Hour, Listening, Watch
from rapport.common.engine import Engine
from rapport.common.events.vocabulary import ComplaintType, Severity
from rapport.common.policy import Policy
from rapport.common.store.port import Range, Store

Group = str | bool | None
"""A value of a dimension; None is where nobody told."""

GROUPS: Final = 100
"""Groups that a period's figures are told apart by at most: those with the most behind them."""

CANDIDATES: Final = 200
"""The newest messages of each severity among which a digest looks for its samples."""

RECENT: Final = 20
"""The newest messages of a burst among which its samples are looked for."""


@dataclass(frozen=True)
class Resources:
    """What analytics' handlers and API work with."""

    store: Store
    engine: Engine
    kpis: Policy[KpiPolicy]
    bursts: Policy[BurstPolicy]
    digests: Policy[DigestPolicy]


# Figures


async def count(
    store: Store,
    kpis: Mapping[str, Kpi],
    period: Period,
    *,
    by: str | None = None,
    exercise: str | None = None,
) -> list[tuple[Group, list[Figure]]]:
    """Count KPIs over a period: once, or per group of a dimension that all their facts know."""
    found: dict[Group, dict[Counting, Totals]] = defaultdict(dict) if by else {None: {}}
    for counting, fields in countings(kpis).items():
        for group, totals in (await _totals(store, counting, fields, period, by, exercise)).items():
            found[group][counting] = totals
    largest = sorted(found.items(), key=_most_behind_first)[:GROUPS]
    return [(group, figures(kpis, totals)) for group, totals in largest]


async def _totals(
    store: Store,
    counting: Counting,
    fields: frozenset[str],
    period: Period,
    by: str | None,
    exercise: str | None,
) -> dict[Group, Totals]:
    kind = KINDS[counting.facts]
    where = {"exercise": exercise, **dict(counting.where), counting.counted_by: Range(*period)}
    names = sorted(fields)
    groups = [*filter(None, (by, kind.STEP))]
    totals: defaultdict[Group, Totals] = defaultdict(Totals)
    for tally in await store.tally(kind, groups, where, sums=names):
        values = dict(zip(groups, tally.group, strict=True))
        step = values.get(kind.STEP) if kind.STEP else None
        group = values[by] if by else None
        totals[group].add(tally.count, dict(zip(names, tally.sums, strict=True)), step)
    return totals


def _most_behind_first(item: tuple[Group, Mapping[Counting, Totals]]) -> tuple[float, str]:
    group, found = item
    return -sum(totals[COUNT] for totals in found.values()), str(group)


# Bursts


async def listening_since(store: Store) -> datetime | None:
    """Return since when the system listens."""
    listening = await store.get(Listening, Listening.ID)
    return None if listening is None else listening.since


async def histories(
    store: Store, kind: type[Watch], begun: Mapping[str, datetime], days: int
) -> dict[str, dict[datetime, int]]:
    """Return what some series heard, by bin, in the days before each begins to listen.

    The last hour before is left out: it is counted when the bin that begins then closes.
    """
    if not begun:
        return {}
    first = min(begun.values()) - timedelta(days=days)
    where = {kind.FIELD: list(begun), "bin": Range(first, max(begun.values()) - HOUR)}
    found: dict[str, dict[datetime, int]] = {series: {} for series in begun}
    for tally in await store.tally(Heard, (kind.FIELD, "bin"), where):
        series, bin = tally.group
        if bin < begun[series] - HOUR:
            found[series][bin] = tally.count
    return found


async def hours(
    store: Store, kind: type[Watch], ends: Mapping[str, datetime], fewest: int
) -> dict[str, Hour]:
    """Return what some series heard in the hour up to the end of the bin that each closes.

    Cases come only with hours of at least `fewest` items: fewer are no burst.
    """
    start, end = min(ends.values()) - HOUR, max(ends.values())
    where = {kind.FIELD: list(ends), "historical": False, "bin": Range(start, end)}
    bins: dict[str, Counter[datetime]] = defaultdict(Counter)
    products: dict[str, Counter[str | None]] = defaultdict(Counter)
    for tally in await store.tally(Heard, (kind.FIELD, "bin", "product"), where):
        series, bin, product = tally.group
        if ends[series] - HOUR <= bin < ends[series]:
            bins[series][bin] += tally.count
            products[series][product] += tally.count
    return {
        series: Hour(
            heard,
            products[series],
            await _cases(store, kind, series, ends[series]) if heard.total() >= fewest else (),
        )
        for series, heard in bins.items()
    }


async def _cases(store: Store, kind: type[Watch], series: str, end: datetime) -> Sequence[str]:
    where = {kind.FIELD: series, "historical": False, "bin": Range(end - HOUR, end)}
    page = await store.find(Heard, where, limit=RECENT, newest_first=True)
    return list(dict.fromkeys(heard.case_id for heard in page.items))[:SAMPLES]


# Digests


async def account(store: Store, period: Period, before: Period) -> Account:
    """Return what was heard in a period, apart from drills, what before, and the worst of it."""
    by_kind: Counter[str] = Counter()
    counts: Counter[Matter] = Counter()
    negative: Counter[Matter] = Counter()
    for tally in await _matters(store, period, "kind"):
        kind, *rest = tally.group
        matter = _matter(rest)
        by_kind[kind] += tally.count
        counts[matter] += tally.count
        negative[matter] += round(tally.sums[0])
    return Account(
        by_kind=by_kind,
        matters={matter: Volume(heard, negative[matter]) for matter, heard in counts.items()},
        before={_matter(tally.group): tally.count for tally in await _matters(store, before)},
        worst=await _worst(store, period),
    )


async def _matters(store: Store, period: Period, *more: str) -> Sequence[Any]:
    by = (*more, "complaint_type", "product", "region")
    return await store.tally(
        Heard, by, {"exercise": None, "at": Range(*period)}, sums=("negative",)
    )


def _matter(group: Sequence[Any]) -> Matter:
    topic, product, region = group
    return Matter(ComplaintType(topic), product, region)


async def _worst(store: Store, period: Period) -> list[Heard]:
    worst: list[Heard] = []
    for severity in reversed(Severity):
        where = {"exercise": None, "severity": severity, "at": Range(*period)}
        page = await store.find(Heard, where, limit=CANDIDATES, newest_first=True)
        worst += page.items
    return worst
