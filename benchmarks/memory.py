"""How much memory the system takes after half an hour at a constant load, and after five minutes.

The system is a process of its own, as `rapport up` has it, and complaints come in evenly: each gets
its case, and its owner is told. Not run unless it is named, since it takes so long; MINUTES=3 for a
look. The curve is printed, one value for each step.
"""

import asyncio
import os
from itertools import islice
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import httpx2
import uvloop

from benchmarks.harness import Row, print_table
from benchmarks.open_loop import offer
from benchmarks.stored import complaints, installation, request, set_up
from rapport.common.serving import run_on_loop
from rapport.common.telemetry import configure_logs

MINUTES: Final = float(os.environ.get("MINUTES", "30"))
PER_SECOND: Final = float(os.environ.get("PER_SECOND", "60"))
SETTLED: Final = MINUTES / 6
"""Minutes after which what is to be there is there, and of which the median counts: five of thirty.

Work by the minute or by the quarter of an hour, and what malloc gives back after it, make one
per cent more or less for a minute or two.
"""

SAMPLES: Final = 120
MORE: Final = 1.01
CONNECTIONS: Final = 64
MIB: Final = 1024 * 1024


def serve(folder: str, parent: Connection) -> None:
    """Run the system until the parent says so (in a child process)."""
    configure_logs("ERROR")

    async def serving() -> None:
        async with installation(Path(folder)) as up:
            async with httpx2.AsyncClient(base_url=up.url) as http:
                await set_up(up, http)
            parent.send((int(up.url.rpartition(":")[2]), up.token("shop", "publisher")))
            await asyncio.to_thread(parent.recv)

    run_on_loop(serving())


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def watch(pid: int, port: int, token: str) -> list[int]:
    """Load the system evenly; return how much memory it had, sample after sample."""
    every = MINUTES * 60 / SAMPLES
    source = complaints("memory")
    found = []
    for _ in range(SAMPLES):
        some = [request(token, complaint) for complaint in islice(source, int(every * PER_SECOND))]
        answers = await offer(port, some, PER_SECOND, every, CONNECTIONS)
        assert answers.seconds.keys() == {202}, answers.seconds.keys()
        found.append(resident(pid))
    return found


def run() -> list[Row]:
    """Return the row of the report, and print the curve."""
    ours, theirs = Pipe()
    began = perf_counter()
    with TemporaryDirectory() as folder:
        process = get_context("spawn").Process(target=serve, args=(folder, theirs), daemon=True)
        process.start()
        port, token = ours.recv()
        assert process.pid is not None
        found = uvloop.run(watch(process.pid, port, token))
        ours.send(None)
        process.join()
    minutes = (perf_counter() - began) / 60
    print(f"memory in MiB, every {MINUTES / SAMPLES * 60:g} s: ", end="")
    print(*(f"{size / MIB:.0f}" for size in found))
    settled = round(SAMPLES * SETTLED / MINUTES)
    early, late = median(found[settled : 2 * settled]), median(found[-settled:])
    return [
        Row(
            f"memory in minutes {MINUTES - SETTLED:g} to {MINUTES:g}, at most {MORE:g} x",
            f"in minutes {SETTLED:g} to {2 * SETTLED:g}",
            early / late,
            1 / MORE,
            f"{late / MIB:.1f} MiB against {early / MIB:.1f} MiB, {PER_SECOND:g} complaints/s, "
            f"{minutes:.0f} minutes in all",
            "memory early over memory late: 1 where none has been added",
        )
    ]


if __name__ == "__main__":
    print_table(run())
