"""An answer's head leaves with its body; where there is none yet, it does not wait for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from rapport.common.serving import listening
from rapport.common.whole_answers import WholeAnswers


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
