"""What a run found, as a table for people: printed, and written as a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 20
"""Violations that are shown of each invariant."""


@dataclass
class Tally:
    """How often a fault happened; `reached` where it means to hit a point, and did."""

    times: int = 0
    reached: int | None = None
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)


@dataclass
class Result:
    """One mode's run: what happened, what was counted, what was violated."""

    mode: str
    seed: int
    seconds: float = 0.0
    rate: float = 0.0
    capacity: float = 0.0
    deaths: int = 0
    faults: dict[str, Tally] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    violations: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every invariant holds and every fault has healed."""
        broken = any(self.violations.values())
        return bool(self.violations) and not broken and not any(self._troubles)

    @property
    def _troubles(self) -> list[str]:
        return [trouble for tally in self.faults.values() for trouble in tally.troubles]


def page(head: str, results: Iterable[Result]) -> str:
    """Return a page in Markdown that begins with `head`."""
    return "\n".join(["# The last chaos run", "", head, "", *map(part, results)])


def part(result: Result) -> str:
    """Return the tables of one mode's run in Markdown."""
    lines = [*_summary(result), "", *_table(result), "", *_invariants(result), ""]
    return "\n".join(lines)


def _summary(result: Result) -> Iterable[str]:
    yield f"## {result.mode.capitalize()}"
    yield ""
    faults = sum(tally.times for tally in result.faults.values())
    yield (
        f"Seed {result.seed}, {result.seconds:.0f} s, {faults}"
        f" faults, {result.deaths} processes killed. The system could take {result.capacity:.0f}"
        f" messages a second from intake to the last effect, and got {result.rate:.0f}."
    )
    yield ""
    yield ", ".join(f"{number:,} {what}" for what, number in result.counts.items()) + "."


def _table(result: Result) -> Iterable[str]:
    yield "| fault | how often | checked | result |"
    yield "|---|---|---|---|"
    for name, tally in sorted(result.faults.items()):
        often = str(tally.times)
        if tally.reached is not None:
            often = f"{tally.times}, point hit {tally.reached}"
        checked = f"all {len(result.violations)} invariants"
        yield f"| {name} | {often} | {checked} | {_outcome(result, tally)} |"


def _outcome(result: Result, tally: Tally) -> str:
    if tally.troubles:
        return "; ".join(tally.troubles)
    if tally.reached == 0:
        return "did not happen"
    return "held" if result.holds else "see below"


def _invariants(result: Result) -> Iterable[str]:
    yield "| invariant | violations |"
    yield "|---|---|"
    for name, found in result.violations.items():
        yield f"| {name} | {len(found)} |"
    for name, found in result.violations.items():
        if found:
            yield ""
            yield f"**{name}**"
            yield ""
            yield from (f"- {item}" for item in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"- and {len(found) - SHOWN} more"
