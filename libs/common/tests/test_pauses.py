"""A connection is closed when nothing has come for long, and never while somebody waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from rapport.common import serving
from rapport.common.door import Door, Doorkeeper
from rapport.common.serving import listening

LONG = 65.0


@dataclass
class Timer:
    at: float
    ring: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Clockwork:
    """As much of an event loop as a connection needs, whose time passes when it is told to."""

    now: float = 1_000.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, ring: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, ring))
        return self.timers[-1]

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= until]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = first.at
            if not first.is_cancelled:
                first.ring()
        self.now = until


class Wire(asyncio.Transport):
    """What a connection writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Shop:
    """An application with a door; it answers when it is told to, and may do so before it reads."""

    def __init__(self) -> None:
        self.serves = asyncio.Event()
        self.at_the_door = Door("shop", 1, b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n")

    def door(self, method: bytes, target: bytes) -> Door | None:
        return self.at_the_door if method == b"POST" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serves.wait()
        length = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body"})


class Connection:
    def __init__(self, shop: Shop) -> None:
        self.loop, self.wire = Clockwork(), Wire()
        config = Config(shop, ws="none", lifespan="off", log_config=None)
        config.timeout_keep_alive = int(LONG)
        config.load()
        config.loaded_app = shop
        self.protocol = Doorkeeper(config, ServerState(), {}, self.loop)
        self.protocol.connection_made(self.wire)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    async def answers(self, number: int) -> None:
        while True:
            if self.wire.written.count(b"HTTP/1.1 ") == number:
                return
            await asyncio.sleep(0)

    def is_closed_after(self, seconds: float) -> bool:
        """Tell whether it closes then, and not before."""
        self.loop.advance(seconds - 0.1)
        assert not self.wire.closed
        self.loop.advance(0.1)
        return self.wire.closed


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def connection(shop: Shop) -> AsyncIterator[Connection]:
    connection = Connection(shop)
    yield connection
    shop.serves.set()
    await asyncio.gather(*connection.protocol.tasks)
    connection.protocol.connection_lost(None)
    assert all(timer.is_cancelled for timer in connection.loop.timers)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD_OF_POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


def test_who_never_asks_is_left(shop: Shop) -> None:
    assert Connection(shop).is_closed_after(LONG)


async def test_a_pause_begins_anew_with_each_answer(connection: Connection, shop: Shop) -> None:
    shop.serves.set()
    for number in range(1, 4):
        connection.loop.advance(40)
        connection.send(GET)
        await connection.answers(number)
    assert connection.is_closed_after(LONG)
    assert len(connection.loop.timers) == 0


async def test_who_waits_for_an_answer_is_not_left(connection: Connection, shop: Shop) -> None:
    connection.send(GET)
    connection.loop.advance(10 * LONG + 30)
    assert not connection.wire.closed
    shop.serves.set()
    await connection.answers(1)
    assert connection.is_closed_after(LONG)


async def test_who_was_turned_away_is_left_but_not_if_more_was_asked(
    connection: Connection, shop: Shop
) -> None:
    shop.at_the_door.inside = 1
    connection.send(HEAD_OF_POST)
    await connection.answers(1)
    connection.loop.advance(30)
    connection.send(b"{}" + GET)
    connection.loop.advance(3 * LONG)
    assert not connection.wire.closed
    shop.serves.set()
    await connection.answers(2)
    assert connection.is_closed_after(LONG)


@pytest.mark.parametrize("more", [b"{", b"{}", b"{}\r\n", b"{}" + GET[:10]])
@pytest.mark.parametrize("turned_away", [True, False])
async def test_who_goes_on_for_a_while_after_the_answer_is_left(
    connection: Connection, shop: Shop, more: bytes, turned_away: bool
) -> None:
    shop.serves.set()
    shop.at_the_door.inside = int(turned_away)
    connection.send(HEAD_OF_POST)
    await connection.answers(1)
    connection.loop.advance(30)
    connection.send(more)
    assert connection.is_closed_after(LONG)


async def test_a_real_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE_SECONDS", 0.1)

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with listening(nothing, "127.0.0.1", 0) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
