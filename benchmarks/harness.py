"""Ours and a named baseline, side by side: turn by turn in one run, and the median of their ratios.

What is measured is a callable, plain or async, that does its work and returns its rate in
operations per second. Each round compares two neighbours in time, and who goes first alternates, so
that a machine that warms up, cools down or is shared favours neither. One round before the others
is not counted.
"""

import asyncio
import gc
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Measure = Callable[[], float | Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: how many times as fast as the baseline, and how many it should be."""

    what: str
    baseline: str
    ratio: float
    at_least: float
    detail: str
    meaning: str = ""
    """What the ratio says, in one line."""

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.ratio >= self.at_least


def compare(
    what: str,
    baseline_name: str,
    ours: Measure,
    theirs: Measure,
    *,
    rounds: int = 7,
    at_least: float,
) -> Row:
    """Measure both in turn on an event loop of its own; inside one, await `compare_async`."""
    return asyncio.run(
        compare_async(what, baseline_name, ours, theirs, rounds=rounds, at_least=at_least)
    )


async def compare_async(
    what: str,
    baseline_name: str,
    ours: Measure,
    theirs: Measure,
    *,
    rounds: int = 7,
    at_least: float,
    meaning: str = "",
) -> Row:
    """Measure both in turn on the running event loop; return the median of the rounds' ratios."""
    pairs = [await _round(ours, theirs, ours_first=turn % 2 == 0) for turn in range(rounds + 1)][1:]
    our_rate, their_rate = (median(rates) for rates in zip(*pairs, strict=True))
    ratios = [our / their for our, their in pairs]
    detail = (
        f"{our_rate:,.0f}/s against {their_rate:,.0f}/s, "
        f"{rounds} rounds from {min(ratios):.2f} to {max(ratios):.2f}"
    )
    return Row(what, baseline_name, median(ratios), at_least, detail, meaning)


def rate(operations: int, work: Callable[[], object]) -> float:
    """Do some work and return how many of its operations went through per second."""
    started = perf_counter()
    work()
    return operations / (perf_counter() - started)


def print_table(rows: Sequence[Row]) -> None:
    """Print rows as a plain table, a target that is missed is marked; then what each row means."""
    lines = [("what", "baseline", "ratio", "at least", "", "detail"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    for row in rows:
        if row.meaning:
            print(f"{row.what}: {row.meaning}")


async def _round(ours: Measure, theirs: Measure, *, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        return await _measured(ours), await _measured(theirs)
    their_rate = await _measured(theirs)
    return await _measured(ours), their_rate


async def _measured(measure: Measure) -> float:
    gc.collect()
    result = measure()
    return await result if inspect.isawaitable(result) else result


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "ok" if row.holds else "MISSED"
    ratio, at_least = f"{row.ratio:.2f} x", f"{row.at_least:.2f} x"
    return row.what, row.baseline, ratio, at_least, verdict, row.detail
