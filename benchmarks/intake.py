"""How fast feedback is taken in, against the least that a web service could do for it.

Three servers, each a process of its own, on uvicorn, uvloop and httptools, appending an equal
message to an embedded bus with full durability before they answer: Rapport's intake as `rapport up`
serves it (tokens checked, requests measured); a bare Starlette route that validates with pydantic,
gives a random id and does nothing else of what intake does; and a stock FastAPI handler of the same
model. These two are served by uvicorn as it comes, but for its access log, which is off. The client
keeps 64 connections busy from another process.
"""

import asyncio
import json
import multiprocessing
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, cast
from uuid import uuid4

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.harness import Row, compare_async, print_table
from rapport.common.auth import Signer, Verifier
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.port import Bus
from rapport.common.clock import SystemClock
from rapport.common.events.codec import Message
from rapport.common.http import Front, operations
from rapport.common.runtime import Running, open_store
from rapport.common.serving import SWITCH_SECONDS, listening, run_on_loop
from rapport.common.telemetry import configure_logs
from rapport.intake.domain import Submission
from rapport.intake.service import SERVICE

PATH: Final = "/intake/v1/feedback"
CONNECTIONS: Final = 64
REQUESTS: Final = 3_000
ROUNDS: Final = 15
DISTINCT: Final = 1_000
ANSWER: Final = b'{"id":"%b","reference":"R-0000-0000-0000","status_url":"/intake/v1/feedback/%b"}'


class Plain(Submission):
    """What the other two validate and append: the same model, and what intake adds as constants."""

    feedback_id: str = "abcdefghijklmnopqrstuvwxyz"
    reference: str = "R-0000-0000-0000"
    case_id: str = "abcdefghijklmnopqrstuvwxyz"
    client: str = "bench"
    said_at: datetime = datetime(2026, 3, 2, 8, 0, 0, 123456, tzinfo=UTC)
    received_at: datetime = datetime(2026, 3, 2, 8, 0, 0, 123456, tzinfo=UTC)


class PlainReceipt(BaseModel):
    """What the FastAPI handler answers."""

    id: str
    reference: str
    status_url: str


PLAIN: Final = TypeAdapter(Plain)


def message_of(sent: Plain, id: str) -> Message:
    """Return a message like the one that intake publishes."""
    name, now = id.encode(), datetime.now(UTC).isoformat().encode()
    headers = (
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
        ("ce_type", b"rapport.feedback.received.v1"),
        ("ce_id", name),
        ("ce_source", b"/rapport/intake"),
        ("ce_subject", name),
        ("ce_time", now),
        ("ce_partitionkey", name),
        ("ce_correlationid", name),
        ("ce_hops", b"0"),
    )
    return Message("rapport.feedback", id, PLAIN.dump_json(sent), headers)


App = Callable[[Path], AbstractAsyncContextManager[ASGIApp]]
"""What is served, with a folder of its own."""


@asynccontextmanager
async def intake(folder: Path) -> AsyncIterator[ASGIApp]:
    """Rapport's intake, as `rapport up` serves it."""
    async with intake_over(EmbeddedBus(folder / "bus.db"), folder) as app:
        yield app


@asynccontextmanager
async def intake_over(bus: Bus, folder: Path) -> AsyncIterator[ASGIApp]:
    """Rapport's intake over a bus, behind the front that `rapport up` has."""
    settings = SERVICE.settings.load(store=f"sqlite:{folder}", auth_keys=folder / "verify.json")
    clock = SystemClock()
    verifier = Verifier.from_file(settings.auth_keys, "rapport", "rapport")
    running = Running(SERVICE, settings, bus, open_store(settings, SERVICE), clock, verifier)
    await bus.start()
    await running.start(consume=False)
    yield Front({SERVICE.name: running.app}, operations(running.missing))
    await running.stop()
    await bus.stop()


@asynccontextmanager
async def bare_starlette(folder: Path) -> AsyncIterator[ASGIApp]:
    """A route of Starlette with a pydantic TypeAdapter."""
    bus = EmbeddedBus(folder / "bus.db")

    async def submit(request: Request) -> Response:
        id = uuid4().hex
        await bus.publish([message_of(PLAIN.validate_json(await request.body()), id)])
        answer = ANSWER % (id.encode(), id.encode())
        return Response(answer, 202, media_type="application/json")

    await bus.start()
    yield Starlette(routes=[Route(PATH, submit, methods=["POST"])])
    await bus.stop()


@asynccontextmanager
async def stock_fastapi(folder: Path) -> AsyncIterator[ASGIApp]:
    """A handler of FastAPI with its model as the body."""
    bus, app = EmbeddedBus(folder / "bus.db"), FastAPI()

    @app.post(PATH, status_code=202)
    async def submit(body: Plain) -> PlainReceipt:
        id = uuid4().hex
        await bus.publish([message_of(body, id)])
        return PlainReceipt(id=id, reference="R-0000-0000-0000", status_url=f"{PATH}/{id}")

    await bus.start()
    yield app
    await bus.stop()


Serve = Callable[[App, str, Connection], None]
"""Serves until the parent says so, in a child process."""


def as_we_serve(app: App, folder: str, parent: Connection) -> None:
    """Serve as Rapport's processes do."""
    configure_logs("WARNING")

    async def serving() -> None:
        async with app(Path(folder)) as served, listening(served, "127.0.0.1", 0) as port:
            parent.send(port)
            await asyncio.to_thread(parent.recv)

    run_on_loop(serving())


def as_it_comes(app: App, folder: str, parent: Connection) -> None:
    """Serve with uvicorn's own defaults, without its access log.

    The bus's thread is let in as often as with us: that is the bus's setting, not the server's.
    """
    configure_logs("WARNING")

    async def serving() -> None:
        async with app(Path(folder)) as served:
            server = uvicorn.Server(uvicorn.Config(served, log_config=None, access_log=False))
            listener = socket.create_server(("127.0.0.1", 0), backlog=server.config.backlog)
            task = asyncio.create_task(server.serve([listener]))
            parent.send(listener.getsockname()[1])
            await asyncio.to_thread(parent.recv)
            server.should_exit = True
            await task

    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(serving())


@contextmanager
def server(app: App, serve: Serve = as_we_serve) -> Iterator[tuple[int, str]]:
    """Run one of the servers in a child process; gives its port and a token that it accepts."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with TemporaryDirectory() as folder:
        token = Signer.open(Path(folder)).mint("bench", ["publisher"])
        process = spawn.Process(target=serve, args=(app, folder, theirs), daemon=True)
        process.start()
        yield ours.recv(), token
        ours.send(None)
        process.join()


class Connected(asyncio.Protocol):
    """One connection that sends its next request when the answer to the last is there."""

    def __init__(self, requests: Iterator[bytes], finished: asyncio.Future[None]) -> None:
        self._requests = requests
        self._finished = finished
        self._answer = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read the answer; go on once it is whole."""
        if self._left:
            self._left -= len(data)
        else:
            self._answer += data
            head, separator, body = self._answer.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 202"):
                self._finished.set_exception(AssertionError(self._answer.decode()))
                return
            self._answer = b""
            self._left = length_of(head) - len(body)
        if not self._left:
            self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        else:
            self._transport.close()
            self._finished.set_result(None)


def length_of(head: bytes) -> int:
    """Return how many bytes of body an answer's head announces."""
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def requests(token: str) -> Sequence[bytes]:
    """Return requests that differ in their reference, as raw bytes."""
    return [_request(token, number) for number in range(DISTINCT)]


def _request(token: str, number: int) -> bytes:
    body = json.dumps(
        {
            "kind": "complaint",
            "channel": "web",
            "source": "shop",
            "source_ref": f"T-{number:06}",
            "contact": {"name": "Ana Petrova", "email": f"ana{number:06}@example.org"},
            "text": "The kettle broke after two days, and nobody answers the telephone. "
            "I want my money back, or one that works.",
            "product": "kettle",
            "region": "north",
        }
    ).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(port: int, sent: Sequence[bytes], connections: int = CONNECTIONS) -> float:
    """Send requests over all connections; return how many were answered per second."""
    loop = asyncio.get_running_loop()
    left = (sent[number % DISTINCT] for number in range(REQUESTS))
    finished: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    started = perf_counter()
    for one in finished:
        await loop.create_connection(partial(Connected, left, one), "127.0.0.1", port)
    await asyncio.gather(*finished)
    return REQUESTS / (perf_counter() - started)


async def compared(what: str, ours: App, bare: App, stock: App) -> list[Row]:
    """Measure intake against both of the others."""
    rows = []
    with server(ours) as (port, token):
        sent = requests(token)
        for name, app, at_least in (
            ("bare Starlette route", bare, 0.85),
            ("stock FastAPI handler", stock, 1.7),
        ):
            with server(app, as_it_comes) as (other, _):
                row = await compare_async(
                    what,
                    name,
                    partial(load, port, sent),
                    partial(load, other, sent),
                    rounds=ROUNDS,
                    at_least=at_least,
                )
                rows.append(row)
    return rows


def run() -> list[Row]:
    """Return the rows of the report."""
    what = f"POST {PATH}, {CONNECTIONS} connections"
    return uvloop.run(compared(what, intake, bare_starlette, stock_fastapi))


if __name__ == "__main__":
    print_table(run())
