"""The benchmarks in one table: `python -m benchmarks`, or some of them by name.

Ends with status 1 where a row misses its target. Let them run alone: on a busy machine they measure
the neighbours.
"""

import argparse
import sys
from dataclasses import replace
from importlib import import_module
from time import perf_counter
from types import ModuleType
from typing import Final

from benchmarks.harness import Row, print_table

PROMISED: Final = (
    "bus",
    "intake",
    "latency",
    "overload",
    "kafka",
    "poison",
    "partitions",
    "recovery",
    "line",
    "growth",
    "per_core",
    "mongo",
    "search",
    "traces",
)
"""The modules that run unless some are named, in the order in which they run."""

NAMES: Final = (*PROMISED, "memory", "store")
"""All modules with a `run` that returns rows."""


def measured(names: list[str]) -> list[Row]:
    """Run benchmarks one after the other; return the rows of all of them."""
    rows: list[Row] = []
    for name in names:
        began = perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        module = import_module(f"benchmarks.{name}")
        found: list[Row] = module.run()
        rows += [replace(row, meaning=row.meaning or _first_line(module)) for row in found]
        print(f"{name}: {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def _first_line(module: ModuleType) -> str:
    """Return what a benchmark is about, which its rows mean unless they say more."""
    return (module.__doc__ or "").partition("\n")[0]


def main() -> int:
    """Run what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"some of: {', '.join(NAMES)}")
    names = parser.parse_args().name
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    rows = measured(names or list(PROMISED))
    print_table(rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
