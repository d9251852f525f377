"""The proxy that makes lines go bad: what those at both ends of it see."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest

from chaos.proxy import HOST, Proxy


class Parrot:
    """A server that says back what it hears; it knows its calls, and how each of them ended."""

    def __init__(self) -> None:
        self.port = 0
        self.calls = 0
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs, each time on the same port."""
        server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _serve(self, heard: StreamReader, told: StreamWriter) -> None:
        self.calls += 1
        end = "left"
        try:
            while chunk := await heard.read(1000):
                told.write(chunk)
                await told.drain()
        except ConnectionResetError:
            end = "reset"
        self.ends.put_nowait(end)
        told.close()


class Caller:
    """A client at the other end of the line."""

    def __init__(self, heard: StreamReader, told: StreamWriter) -> None:
        self.heard, self.told = heard, told

    @classmethod
    async def at(cls, proxy: Proxy) -> "Caller":
        return cls(*await asyncio.open_connection(HOST, proxy.port))

    def say(self, text: bytes) -> None:
        self.told.write(text)

    async def hears(self, text: bytes) -> bool:
        return await self.heard.readexactly(len(text)) == text

    async def aclose(self) -> None:
        self.told.transport.abort()


@pytest.fixture
async def parrot() -> AsyncIterator[Parrot]:
    parrot = Parrot()
    async with parrot.running():
        yield parrot


@pytest.fixture
async def proxy(parrot: Parrot) -> AsyncIterator[Proxy]:
    proxy = Proxy(parrot.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def caller(proxy: Proxy) -> AsyncIterator[Caller]:
    async with aclosing(await Caller.at(proxy)) as caller:
        yield caller


async def answered(caller: Caller) -> None:
    caller.say(b"hello")
    assert await caller.hears(b"hello")


async def test_what_is_said_arrives_and_so_does_the_answer(caller: Caller) -> None:
    much = bytes(range(256)) * 4_000
    caller.say(much)
    assert await caller.hears(much)


async def test_who_has_said_all_still_hears_the_rest(caller: Caller, parrot: Parrot) -> None:
    caller.say(b"goodbye")
    caller.told.write_eof()
    assert await caller.heard.read() == b"goodbye"
    assert await parrot.ends.get() == "left"


async def test_a_port_is_kept_before_the_server_is_there(parrot: Parrot) -> None:
    proxy = Proxy(parrot.port)
    with pytest.raises(ConnectionRefusedError):
        await Caller.at(proxy)
    await proxy.start()
    async with aclosing(await Caller.at(proxy)) as caller:
        await answered(caller)
    await proxy.stop()


async def test_a_server_that_is_away_looks_so_and_is_found_again() -> None:
    parrot = Parrot()
    async with parrot.running():
        pass
    proxy = Proxy(parrot.port)
    await proxy.start()
    async with aclosing(await Caller.at(proxy)) as early:
        with pytest.raises(ConnectionResetError):
            await early.heard.read()
    async with parrot.running(), aclosing(await Caller.at(proxy)) as caller:
        await answered(caller)
    await proxy.stop()


async def test_a_hanging_line_takes_all_and_gives_nothing_until_it_is_open(
    proxy: Proxy, caller: Caller, parrot: Parrot
) -> None:
    await answered(caller)
    proxy.hang()
    async with aclosing(await Caller.at(proxy)) as late:
        caller.say(b"are you there?")
        late.say(b"and you?")
        silent = asyncio.ensure_future(caller.heard.readexactly(1))
        await asyncio.wait({silent}, timeout=0.05)
        assert not silent.done()
        assert parrot.calls == 1

        proxy.open()
        assert await silent == b"a"
        assert await caller.hears(b"re you there?")
        assert await late.hears(b"and you?")


async def test_a_line_that_is_lost_stays_so_and_a_new_one_works(
    proxy: Proxy, caller: Caller, parrot: Parrot
) -> None:
    await answered(caller)
    proxy.lose()
    caller.say(b"are you there?")
    silent = asyncio.ensure_future(caller.heard.read(1))
    async with aclosing(await Caller.at(proxy)) as another:
        await answered(another)
        proxy.hang()
        proxy.open()
        await answered(another)
    assert not silent.done()
    await proxy.stop()
    with pytest.raises(ConnectionResetError):
        await silent


async def test_a_slow_line_loses_nothing(proxy: Proxy, caller: Caller) -> None:
    loop = asyncio.get_running_loop()
    proxy.slow(0.05)
    started = loop.time()
    await answered(caller)
    assert loop.time() - started > 0.09


async def test_a_line_that_refuses_cuts_what_is_open_and_lets_nobody_in(
    proxy: Proxy, caller: Caller, parrot: Parrot
) -> None:
    await answered(caller)
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await caller.heard.read()
    with pytest.raises(ConnectionRefusedError):
        await Caller.at(proxy)
    assert await parrot.ends.get() == "reset"

    proxy.open()
    async with aclosing(await Caller.at(proxy)) as again:
        await answered(again)


async def test_a_reset_is_seen_at_both_ends_and_the_line_is_open_again(
    proxy: Proxy, caller: Caller, parrot: Parrot
) -> None:
    await answered(caller)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await caller.heard.read()
    assert await parrot.ends.get() == "reset"
    async with aclosing(await Caller.at(proxy)) as again:
        await answered(again)


async def test_a_proxy_that_stops_cuts_what_is_open(
    proxy: Proxy, caller: Caller, parrot: Parrot
) -> None:
    await answered(caller)
    await proxy.stop()
    with pytest.raises(ConnectionResetError):
        await caller.heard.read()
    assert await parrot.ends.get() == "reset"


async def test_each_way_to_behave_can_follow_each_other(proxy: Proxy) -> None:
    slow = partial(proxy.slow, 0.001)
    ways: list[Callable[[], None]]
    ways = [proxy.hang, proxy.lose, proxy.refuse, proxy.reset, slow, proxy.open]
    for first in ways:
        for second in ways:
            first()
            second()
            proxy.open()
            async with aclosing(await Caller.at(proxy)) as caller:
                await answered(caller)
