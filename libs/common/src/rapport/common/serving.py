"""Serving HTTP and running until told to stop.

Signals belong to us, not to the HTTP server: SIGTERM and SIGINT end the server first (no new
requests), then everything behind it drains.
"""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.types import ASGIApp

from rapport.common import heap, tracing
from rapport.common.clock import clock_led_by
from rapport.common.door import Doorkeeper
from rapport.common.errors import RapportError
from rapport.common.http import Front, operations
from rapport.common.jwks import open_verifier
from rapport.common.runtime import Running, Service, disks_of, open_bus, open_store
from rapport.common.telemetry import configure_logs
from rapport.common.whole_answers import WholeAnswers

T = TypeVar("T")

KEEP_ALIVE_SECONDS = 65
GRACE_SECONDS = 5
SWITCH_SECONDS = 0.001
"""How long a busy event loop may keep the stores' and the bus's writer threads waiting."""

COLLECT_AFTER = (50_000, 20, 20)
"""New objects between two looks of the garbage collector; looks of one generation per next."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` while the block runs; gives the port, which is a free one where 0 was asked for.

    Raises OSError where the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws="none",
        http=Doorkeeper if isinstance(app, Front) else WholeAnswers,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,  # nothing here asks who sent a request but its token
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # whoever connects from now on waits for the server's start
    listener = socket.create_server((host, port), family=family, backlog=config.backlog)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def stop_asked() -> asyncio.Event:
    """Return what is set when the process gets SIGTERM or SIGINT, which then do nothing else."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(wanted, stopped.set)
    return stopped


async def until_stopped() -> None:
    """Return when the process gets SIGTERM or SIGINT."""
    await stop_asked().wait()


def run_on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a process's work returns, on uvloop, letting writer threads in between often.

    What is loaded by now stays, so the garbage collector need not go through it time and again; and
    as hardly anything here refers to itself, it looks at the rest seldom. What is freed goes back
    to the system.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    heap.keep_together()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    return uvloop.run(_on_a_tidy_heap(coroutine))


async def _on_a_tidy_heap(coroutine: Coroutine[Any, Any, T]) -> T:
    tidying = asyncio.create_task(heap.keep_giving_back())
    try:
        return await coroutine
    finally:
        tidying.cancel()


def main(service: Service) -> None:
    """Run one service as a process of its own, until it is told to stop.

    Whoever moves a clock that it follows can ask at `/rest` whether it has come to rest.
    """

    async def process() -> None:
        stopped = stop_asked()
        settings = service.settings.load()
        settings.check_secrets()
        configure_logs(settings.log_level)
        tracing.configure()
        led_by = settings.clock_file
        clock = clock_led_by(led_by)
        bus = open_bus(settings, clock)
        async with AsyncExitStack() as stack:
            verifier = await stack.enter_async_context(open_verifier(settings))
            store = open_store(settings, service)
            disks = disks_of(settings)
            running = Running(service, settings, bus, store, clock, verifier, disks)
            rest = None if led_by is None else running.rest
            front = Front({service.name: running.app}, operations(running.missing, rest))
            await bus.start()
            stack.push_async_callback(bus.stop)
            await running.start()
            stack.push_async_callback(running.stop, settings.drain_seconds)
            await stack.enter_async_context(
                listening(front, settings.http_host, settings.http_port)
            )
            await stopped.wait()

    configure_logs()
    try:
        run_on_loop(process())
    except RapportError as error:
        raise SystemExit(error.reason) from None
    except OSError as error:
        raise SystemExit(f"cannot listen: {error.strerror}") from None
    finally:
        tracing.shutdown()
