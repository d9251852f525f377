"""An answer's head leaves with its body; where there is none yet, it does not wait for one."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from rapport.common.serving import listening
from rapport.common.whole_answers import WholeAnswers, answered_at_once


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every write that reaches the real transport, while a real server answers."""
    writes: list[bytes] = []
    begin = WholeAnswers.connection_made

    class Watched(asyncio.Transport):
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport
            self.is_closing = transport.is_closing  # type: ignore[method-assign]
            self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
            self.close = transport.close  # type: ignore[method-assign]

        def write(self, data: bytes | bytearray | memoryview) -> None:
            writes.append(bytes(data))
            self.transport.write(data)

    def watched(self: WholeAnswers, transport: asyncio.Transport) -> None:
        begin(self, Watched(transport))

    monkeypatch.setattr(WholeAnswers, "connection_made", watched)
    return writes


class Streaming:
    """An answer whose words come when they are let go."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def words(self) -> AsyncIterator[str]:
        await self.go_on.wait()
        yield "late "
        yield "words"


@asynccontextmanager
async def connected(
    streaming: Streaming,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve a few answers over a real socket, and connect to it."""

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    async def nothing(_: Request) -> Response:
        return Response(status_code=204)

    async def stream(_: Request) -> Response:
        return StreamingResponse(streaming.words())

    routes = [
        Route("/echo", echo, methods=["GET", "POST"]),
        Route("/nothing", nothing),
        Route("/stream", stream),
    ]
    async with listening(Starlette(routes=routes), "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()
        await writer.wait_closed()


async def test_head_and_body_are_one_write(written: list[bytes]) -> None:
    async with connected(Streaming()) as (reader, writer):
        for words in (b"first", b"second"):
            writer.write(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(words) + words
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(len(words)) == words
    assert [piece.partition(b"\r\n\r\n")[2] for piece in written] == [b"first", b"second"]


async def test_the_head_of_a_stream_does_not_wait_for_its_first_words(
    written: list[bytes],
) -> None:
    streaming = Streaming()
    async with connected(streaming) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        streaming.go_on.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"5\r\nlate \r\n5\r\nwords\r\n0\r\n\r\n"
    assert written[0] == head


@pytest.mark.parametrize("request_line", [b"HEAD /echo", b"GET /nothing"])
async def test_an_answer_without_a_body_leaves_by_itself(request_line: bytes) -> None:
    async with connected(Streaming()) as (reader, writer):
        writer.write(request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 20")


async def test_what_is_held_is_written_before_the_connection_is_closed() -> None:
    async with connected(Streaming()) as (reader, writer):
        writer.write(b"HEAD /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_asks_whether_to_go_on_is_told_before_the_answer() -> None:
    async with connected(Streaming()) as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"words")
        assert (await reader.readuntil(b"words")).startswith(b"HTTP/1.1 200 OK\r\n")


ANSWERS = {
    "/plain": PlainTextResponse("words", headers={"x-told": "yes"}),
    "/empty": Response(status_code=202),
    "/split": PlainTextResponse("words", headers={"x-told": "yes\nx-forged: yes"}),
    "/stream": StreamingResponse(iter(["words"])),
    "/then": PlainTextResponse("words", background=BackgroundTask(lambda: None)),
}


@asynccontextmanager
async def answering(
    told: list[bool],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an application that answers at once where it can, which it notes, and connect to it."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = ANSWERS[scope["path"]]
            told.append(answered_at_once(scope, response))
            if not told[-1]:
                await response(scope, receive, send)

    async with listening(application, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()
        await writer.wait_closed()


async def asked(line: bytes, more: bytes = b"Connection: close\r\n") -> tuple[bytes, list[bool]]:
    """Ask for one answer on a connection of its own; return all that came, and how it was given."""
    told: list[bool] = []
    async with answering(told) as (reader, writer):
        writer.write(line + b" HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n")
        return await reader.read(), told


async def test_an_answer_at_once_is_the_one_that_asgi_would_give(written: list[bytes]) -> None:
    told: list[bool] = []
    async with answering(told) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
            at_once = await reader.readuntil(b"words")
    assert told == [True, True]
    assert len(written) == 2
    by_asgi, _ = await asked(b"GET /plain")
    dated = re.compile(rb"date: [^\r]*\r\n|connection: close\r\n")
    assert dated.sub(b"", at_once) == dated.sub(b"", by_asgi)


async def test_answers_at_once_keep_the_order_of_their_requests() -> None:
    told: list[bool] = []
    async with answering(told) as (reader, writer):
        writer.write(
            b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answers = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)|(words)", answers) == [
        (b"200", b""),
        (b"", b"words"),
        (b"202", b""),
        (b"200", b""),
        (b"", b"words"),
    ]
    assert told == [True, True, False]  # the last connection is to be closed, which is uvicorn's


async def test_no_request_is_left_to_the_garbage_collector() -> None:
    def requests() -> int:
        return sum(type(item) is RequestResponseCycle for item in gc.get_objects())

    gc.collect()
    before = requests()
    gc.disable()
    try:
        async with answering([]) as (reader, writer):
            for _ in range(10):
                writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b"words")
            assert requests() <= before + 1  # the connection has its last one
    finally:
        gc.enable()


async def test_a_value_with_a_line_break_forges_no_header() -> None:
    answer, told = await asked(b"GET /split", b"")
    assert (answer, told) == (b"", [False])  # uvicorn hangs up


@pytest.mark.parametrize("line", [b"HEAD /plain", b"GET /stream", b"GET /then"])
async def test_what_is_out_of_the_ordinary_is_left_to_asgi(line: bytes) -> None:
    told: list[bool] = []
    async with answering(told) as (reader, writer):
        writer.write(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert told == [False]


async def test_a_server_without_the_extension_is_answered_by_asgi() -> None:
    assert not answered_at_once({"type": "http"}, PlainTextResponse("words"))
