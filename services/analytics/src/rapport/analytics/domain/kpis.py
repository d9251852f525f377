"""KPIs: figures with a target, each answered with the number of cases behind it.

A definition names a kind of fact, the field whose sum is wanted, and the field whose sum is `n`: a
share or a mean is the one over the other, a total is the sum itself, a percentile is read from
times on a scale of equal ratios. So one tally of facts serves many figures. A share or mean without
cases has no value: nobody was answered late where nobody asked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rapport.analytics.domain.facts import (
    CaseStep,
    ClockOutcome,
    Counted,
    CrisisStep,
    Heard,
    Measurement,
    MessageOutcome,
    seconds_of,
)
from rapport.analytics.domain.periods import Period, Periodic, Rhythm
from rapport.common.events.analytics import KpiTargetMissed

COUNT: Final = "count"
"""In place of a field: every fact counts one."""

KINDS: Final[Mapping[str, type[Counted] | type[Measurement]]] = MappingProxyType(
    {
        "heard": Heard,
        "cases": CaseStep,
        "clocks": ClockOutcome,
        "messages": MessageOutcome,
        "crises": CrisisStep,
        "measurements": Measurement,
    }
)
"""What figures can be counted from, as definitions name it."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Direction = Literal["at_least", "above", "at_most"]


class Target(BaseModel):
    """What a figure should be: exactly one bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _is_one_bound(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give one of at_least, above and at_most")
        return self

    @property
    def direction(self) -> Direction:
        """On which side of `value` a figure should be."""
        if self.at_least is not None:
            return "at_least"
        return "above" if self.above is not None else "at_most"

    @property
    def value(self) -> float:
        """The bound."""
        return float(getattr(self, self.direction))

    def is_met(self, value: float) -> bool:
        """Tell whether a figure is where it should be."""
        match self.direction:
            case "at_least":
                return value >= self.value
            case "above":
                return value > self.value
        return value <= self.value


class Totals:
    """What a tally found for one period and group: sums by field, and counts by step."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._steps: Counter[int] = Counter()

    def add(self, count: int, sums: Mapping[str, float], step: int | None = None) -> None:
        """Add one row of a tally."""
        for name, value in {COUNT: count, **sums}.items():
            self._sums[name] += value
        if step is not None:
            self._steps[step] += count

    def __getitem__(self, name: str) -> float:
        return self._sums[name]

    def percentile(self, share: float) -> float | None:
        """The time that `share` of the counted did not exceed, None where there are none."""
        wanted = share * self._steps.total()
        for step, count in sorted(self._steps.items()):
            wanted -= count
            if wanted <= 0:
                return seconds_of(step)
        return None


class Counting(NamedTuple):
    """What a tally must count; figures that share it share the tally."""

    facts: str
    where: tuple[tuple[str, str | bool], ...]
    counted_by: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A KPI's value over a period, with the number of cases behind it and the target."""

    name: str
    value: float | None
    n: int
    unit: str
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is where it should be; None without a target or a value."""
        if self.target is None or self.value is None:
            return None
        return self.target.is_met(self.value)


class Kpi(BaseModel):
    """How a figure is counted: see the module's docstring, and `policy/kpis.yaml` for examples.

    `counted_by` the opening asks what became, up to now, of the cases opened in the period.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: Literal["heard", "cases", "clocks", "messages", "crises", "measurements"]
    where: dict[str, str | bool] = {}
    counted_by: Literal["at", "opened_at"] = "at"
    share: str | None = None
    mean: str | None = None
    total: str | None = None
    percentile: Annotated[float, Field(gt=0, lt=1)] | None = None
    n: str = COUNT
    unit: str | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _can_be_counted(self) -> Self:
        kind = KINDS[self.facts]
        if sum(way is not None for way in (*self._summed, self.percentile)) != 1:
            raise ValueError("give one of share, mean, total and percentile")
        if self.unit is None and (self.mean is not None or self.percentile is not None):
            raise ValueError("a mean or a percentile needs its unit")
        if self.percentile is not None and kind.STEP is None:
            raise ValueError(f"{self.facts} have no percentiles")
        if self.counted_by not in kind.model_fields:
            raise ValueError(f"{self.facts} have no {self.counted_by}")
        _require(self.where, kind.DIMENSIONS, f"{self.facts} are not told apart by")
        _require(self.fields, numbers(kind), f"{self.facts} have no sum of")
        return self

    @property
    def counting(self) -> Counting:
        """The tally that it is read from."""
        return Counting(self.facts, tuple(sorted(self.where.items())), self.counted_by)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that must be summed for it."""
        return frozenset({*filter(None, self._summed), self.n} - {COUNT})

    def told_apart_by(self, dimension: str) -> bool:
        """Tell whether its facts know this dimension."""
        return dimension in KINDS[self.facts].DIMENSIONS

    def figure(self, name: str, totals: Totals) -> Figure:
        """Return the figure that a tally's totals give."""
        n = round(totals[self.n])
        return Figure(name, self._value(totals, n), n, self._unit, self.target)

    @property
    def _summed(self) -> tuple[str | None, ...]:
        return self.share, self.mean, self.total

    @property
    def _unit(self) -> str:
        return self.unit or ("share" if self.share is not None else COUNT)

    def _value(self, totals: Totals, n: int) -> float | None:
        if self.total is not None:
            return totals[self.total]
        if n == 0:
            return None
        if self.percentile is not None:
            return totals.percentile(self.percentile)
        if self.share is not None:
            return min(1.0, totals[self.share] / n)  # a case may change its kind after its opening
        return totals[self.mean or COUNT] / n


class KpiPolicy(BaseModel):
    """The KPIs, and the rhythm in which targets are reviewed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    review: Rhythm
    kpis: dict[Name, Kpi]

    def told_apart_by(self, dimension: str | None) -> Mapping[str, Kpi]:
        """The KPIs whose facts know a dimension; all of them where none is asked for."""
        if dimension is None:
            return self.kpis
        return {name: kpi for name, kpi in self.kpis.items() if kpi.told_apart_by(dimension)}


Found = Mapping[Counting, Totals]
"""What the tallies found, by what they counted."""


def countings(kpis: Mapping[str, Kpi]) -> dict[Counting, frozenset[str]]:
    """Return the tallies that some KPIs need, each with the fields to sum."""
    needed: dict[Counting, frozenset[str]] = {}
    for kpi in kpis.values():
        needed[kpi.counting] = needed.get(kpi.counting, frozenset()) | kpi.fields
    return needed


def figures(kpis: Mapping[str, Kpi], found: Found) -> list[Figure]:
    """Return every KPI's figure from what was found; what was not is empty."""
    nothing = Totals()
    return [kpi.figure(name, found.get(kpi.counting, nothing)) for name, kpi in kpis.items()]


class TargetReview(Periodic):
    """Says after the end of a period which targets were missed in it.

    Not what is counted by the opening: those cases are still in work.
    """

    COLLECTION = "target_reviews"

    def review(self, policy: KpiPolicy, found: Iterable[Figure]) -> None:
        """Tell of each target that the figures of the period miss, and go on to the next."""
        for figure in found:
            counted_by = policy.kpis[figure.name].counted_by
            if figure.met is False and counted_by == "at" and self.end is not None:
                self.emit(_missed(figure, Period(self.start, self.end)), key=figure.name)
        self.turn(policy.review)


def _missed(figure: Figure, period: Period) -> KpiTargetMissed:
    assert figure.target is not None
    assert figure.value is not None
    return KpiTargetMissed(
        kpi=figure.name,
        start=period.start,
        end=period.end,
        value=figure.value,
        target=figure.target.value,
        n=figure.n,
    )


def numbers(kind: type[Counted] | type[Measurement]) -> frozenset[str]:
    """Return the fields of a kind that can be summed."""
    return frozenset(kind.FIELDS) - kind.DIMENSIONS - {kind.STEP or ""}


def _require(names: Iterable[str], known: Iterable[str], problem: str) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{problem} {', '.join(unknown)}; choose from {', '.join(sorted(known))}")
