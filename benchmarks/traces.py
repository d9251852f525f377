"""What traces cost: the whole line with traces on, against itself with traces off.

One installation is measured in turn with and without; a collector in another process accepts what
it is told and throws it away. What is still to be told after the last complaint counts as well.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final
from urllib.request import urlopen

from benchmarks.harness import Row, compare_async, print_table
from benchmarks.line import COMPLAINTS, line
from benchmarks.stored import fill
from rapport.common import tracing
from rapport.common.serving import run_on_loop

CASES: Final = 10_000
ROUNDS: Final = 15
TURNS: Final = 2
"""How many times the complaints of the line are sent in each round."""

PATIENCE: Final = 60.0
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector(BaseHTTPRequestHandler):
    """Accepts everything; a GET is answered with how many bytes came so far."""

    protocol_version = "HTTP/1.1"
    received = 0

    def do_POST(self) -> None:
        """Throw away what was sent."""
        Collector.received += len(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def do_GET(self) -> None:
        """Say how much came."""
        self._answer(b"%d" % Collector.received)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def collect(port: Connection) -> None:
    """Be a collector, on a free port that is told first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def collector() -> Iterator[str]:
    """Run a collector in another process while the block runs; gives its address."""
    ours, theirs = Pipe()
    process = get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


@contextmanager
def traced(address: str) -> Iterator[None]:
    """Trace while the block runs, all that is told included."""
    os.environ[ENDPOINT] = address
    tracing.configure()
    try:
        yield
    finally:
        tracing.shutdown(PATIENCE)
        del os.environ[ENDPOINT]


async def _compared(folder: Path, address: str) -> Row:
    async with line(folder) as running:

        async def on() -> float:
            began = perf_counter()
            with traced(address):
                await off()
            return TURNS * COMPLAINTS / (perf_counter() - began)

        async def off() -> float:
            began = perf_counter()
            for _ in range(TURNS):
                await running.rate()
            return TURNS * COMPLAINTS / (perf_counter() - began)

        return await compare_async(
            "whole line, traces on", "itself, traces off", on, off, rounds=ROUNDS, at_least=0.9
        )


def run() -> list[Row]:
    """Return the row of the report."""
    with TemporaryDirectory() as folder, collector() as address:
        fill({Path(folder): CASES})
        row = run_on_loop(_compared(Path(folder), address))
        with urlopen(address) as answer:
            received = int(answer.read())
    print(f"traces: {received / (ROUNDS + 1) / TURNS / COMPLAINTS:,.0f} bytes told per complaint")
    return [row]


if __name__ == "__main__":
    print_table(run())
