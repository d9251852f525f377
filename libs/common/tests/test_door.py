"""Who is turned away at the door of a service, and that nobody is kept out who need not be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import APIRouter, Request, Response

from rapport.common.direct import Application, DirectRoute
from rapport.common.http import Front, create_app, operations
from rapport.common.serving import listening
from rapport.common.telemetry import REQUESTS


@dataclass
class Shop:
    """A service with room for two, where whoever buys waits until the shop is told to serve."""

    port: int = 0
    app: Application = field(init=False)
    served: asyncio.Event = field(default_factory=asyncio.Event)
    buying: int = 0

    @property
    def inside(self) -> int:
        assert self.app.door is not None
        return self.app.door.inside

    async def until(self, inside: int) -> None:
        while True:
            if self.inside == inside and self.buying >= inside:
                return
            await asyncio.sleep(0)


class Customer:
    """A connection to the shop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), head, await self._reader.readexactly(length)

    async def status(self) -> int:
        return (await self.answer())[0]

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def buy(body: bytes = b"{}", *headers: bytes, length: int | None = None) -> bytes:
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    lines = [b"POST /shop/v1/orders HTTP/1.1", b"Host: shop", size, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


LOOK = b"GET /shop/v1/window HTTP/1.1\r\nHost: shop\r\n\r\n"


@asynccontextmanager
async def opened() -> AsyncIterator[Shop]:
    shop, router = Shop(), APIRouter(prefix="/shop/v1", route_class=DirectRoute)

    @router.post("/orders")
    async def order(request: Request) -> Response:
        body = await request.body()
        shop.buying += 1
        await shop.served.wait()
        shop.buying -= 1
        return Response(body)

    @router.get("/window")
    async def window(_: Request) -> Response:
        return Response(b"kettles")

    async def ready() -> dict[str, str]:
        return {}

    app: Any = create_app("shop", "Shop", router, at_once=2)
    shop.app = app
    async with listening(Front({"shop": app}, operations(ready)), "127.0.0.1", 0) as shop.port:
        yield shop
        shop.served.set()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with opened() as running:
        yield running


@pytest.fixture
async def customers(shop: Shop) -> AsyncIterator[list[Customer]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(4):
            connected = await asyncio.open_connection("127.0.0.1", shop.port)
            found.append(Customer(*connected))
            stack.push_async_callback(found[-1].leave)
        yield found


async def test_who_comes_when_enough_are_inside_is_turned_away(
    shop: Shop, customers: list[Customer]
) -> None:
    first, second, third, _ = customers
    turned_away = REQUESTS.labels("shop", "POST", "503")
    before = turned_away._value.get()
    first.send(buy())
    second.send(buy())
    await shop.until(inside=2)
    third.send(buy(b"x" * 100_000))
    status, head, body = await third.answer()
    assert status == 503
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    assert b'"detail":"shop has more on its hands than it can take"' in body
    assert turned_away._value.get() == before + 1
    shop.served.set()
    assert [await first.status(), await second.status()] == [200, 200]
    assert shop.inside == 0
    third.send(buy())
    assert await third.status() == 200


async def test_who_only_looks_is_let_in(shop: Shop, customers: list[Customer]) -> None:
    first, second, third, _ = customers
    first.send(buy())
    second.send(buy())
    await shop.until(inside=2)
    third.send(LOOK)
    assert await third.status() == 200


async def test_who_sends_slowly_keeps_nobody_out(shop: Shop, customers: list[Customer]) -> None:
    first, second, third, fourth = customers
    third.send(buy(b"{", length=2))
    fourth.send(buy(b"{", length=2))
    shop.served.set()
    first.send(buy())
    second.send(buy())
    assert [await first.status(), await second.status()] == [200, 200]
    third.send(b"}")
    assert (await third.answer())[2] == b"{}"


async def test_who_leaves_makes_room(shop: Shop, customers: list[Customer]) -> None:
    first, second, third, _ = customers
    first.send(buy())
    second.send(buy())
    await shop.until(inside=2)
    await first.leave()
    await shop.until(inside=1)
    third.send(buy())
    shop.served.set()
    assert await third.status() == 200


async def test_many_on_one_connection_are_answered_in_their_order(
    shop: Shop, customers: list[Customer]
) -> None:
    first, second, _, _ = customers
    first.send(buy(b"1") + buy(b"2") + buy(b"3"))
    second.send(buy())
    await shop.until(inside=2)
    shop.served.set()
    assert [(await first.answer())[2] for _ in range(3)] == [b"1", b"2", b"3"]
    assert await second.status() == 200
    assert shop.inside == 0


async def test_who_asks_first_or_goes_afterwards_is_left_to_the_application(
    shop: Shop, customers: list[Customer]
) -> None:
    first, second, third, fourth = customers
    first.send(buy())
    second.send(buy())
    await shop.until(inside=2)
    third.send(buy(b"{}", b"Connection: close"))
    fourth.send(buy(b"", b"Expect: 100-continue", length=2))
    shop.served.set()
    assert await third.status() == 200  # this shop, unlike intake, lets everybody in
    assert (await fourth._reader.readline()).startswith(b"HTTP/1.1 100")
