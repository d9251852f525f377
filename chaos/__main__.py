"""`python -m chaos`: run the system under faults and hold it to its promises.

Ends with status 1 where a promise was broken, with 2 where the servers cannot be had.
"""

import argparse
import asyncio
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from random import SystemRandom
from typing import Final

import servers

from chaos.faults import CATALOGUE
from chaos.report import Result, page, part
from chaos.run import run
from chaos.world import MODES

FAULTS: Final = ("kills", "servers", "network", "membership", "poison")
TIME: Final = {"embedded": 1, "distributed": 2}
"""Parts of the time: it takes longer to heal where there are replicas and servers."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both")
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults, in all")
    parser.add_argument("--seed", type=int, help="the order of faults, and what is drawn in them")
    parser.add_argument("--only", nargs="*", default=[], help="faults whose names have these words")
    parser.add_argument("--page", type=Path, help="where the tables are written")
    given = parser.parse_args()
    if given.seed is None:
        given.seed = SystemRandom().randrange(1_000_000)
    return given


def main() -> int:
    """Run what the command line names; return the exit status."""
    given = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever is ended ends the others
    for name in FAULTS:
        import_module(f"chaos.faults.{name}")
    modes = MODES if given.mode == "both" else (given.mode,)
    results: list[Result] = []
    for mode in modes:
        log = servers.FOLDER / f"chaos-{mode}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_bytes(b"")
        try:
            with servers.fresh_data(servers.FOLDER) as folder:
                minutes = given.minutes * TIME[mode] / sum(TIME[each] for each in modes)
                result = asyncio.run(run(mode, minutes, given.seed, given.only, folder, log))
        except servers.ServersError as error:
            print(f"chaos: {error}", file=sys.stderr)
            return 2
        print(part(result))
        if not result.holds:
            print(f"{mode}: what the processes said is in {log}", file=sys.stderr)
        results.append(result)
    if given.page:
        given.page.write_text(page(_machine(), results), "utf-8")
    return 0 if all(result.holds for result in results) else 1


def _machine() -> str:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return (
        f"Written by `make chaos` on {day}: {os.cpu_count()} cores, {platform.system()},"
        f" Python {platform.python_version()}. {len(CATALOGUE)} kinds of fault."
    )


if __name__ == "__main__":
    sys.exit(main())
