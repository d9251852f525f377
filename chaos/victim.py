"""A process of the system that may be doomed: `python -m chaos.victim SERVICE [POINT TIMES]`.

It runs the service as its own module does, or all of them where SERVICE is `standalone`. With a
point it says so on its output when that is passed for the TIMES-th time, and dies by SIGKILL there
and then. Members of a group are missed after eight seconds in place of 45, so that a run has time
for many deaths.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from chaos.points import POINTS
from rapport.common import serving
from rapport.common.bus.kafka import KafkaBus, client_options
from rapport.common.bus.kafka.reading import Timing
from rapport.common.bus.port import Bus
from rapport.common.clock import Clock
from rapport.common.runtime import kafka_servers, open_bus
from rapport.common.settings import Settings
from rapport.common.telemetry import configure_logs
from rapport.standalone.system import SERVICES, system

REACHED: Final = "chaos: reached "
STANDALONE: Final = "standalone"
QUICK: Final = replace(Timing(), session=8.0, heartbeat=1.0, rebalance=40.0, stall=30.0)


def doom(point: str, times: int) -> None:
    """Let this process die when a point is passed for the `times`-th time."""
    left = times

    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(sys.stdout.fileno(), f"\n{REACHED}{point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    POINTS[point].wrap(strike)


def quick_bus(settings: Settings, clock: Clock | None = None) -> Bus:
    """Return the bus that the settings name; a dead member of its groups is missed soon."""
    if not settings.bus.startswith("kafka:"):
        return open_bus(settings, clock)
    client = client_options(settings)
    return KafkaBus(kafka_servers(settings), clock=clock, client=client, timing=QUICK)


def run_standalone() -> None:
    """Run the whole system until it is told to stop, as `rapport up` does."""

    async def process() -> None:
        settings = Settings.load()
        configure_logs(settings.log_level)
        data = Path(settings.bus.partition(":")[2]).parent
        async with system(data, host=settings.http_host, port=settings.http_port):
            await serving.until_stopped()

    serving.run_on_loop(process())


def main(arguments: list[str]) -> None:
    """Run what the command line names."""
    service, *moment = arguments
    if moment:
        doom(moment[0], int(moment[1]))
    if service == STANDALONE:
        run_standalone()
        return
    vars(serving).update(open_bus=quick_bus)
    serving.main(SERVICES[service])


if __name__ == "__main__":
    main(sys.argv[1:])
