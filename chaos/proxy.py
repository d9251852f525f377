"""A line between a service and a server that can go bad in the ways that lines do.

A proxy forwards TCP from a port of its own to a server's, on the loopback address, and is told how
to behave: as it should, slowly, as if the other end had gone without a word, as if nobody were
there. It has its port from the beginning, so that a server can be told of it before it starts.

A client has to keep to the proxy it was given. Kafka tells clients where its brokers are, so a
broker needs a listener for each proxy, advertised at the proxy's port (`listeners`); a client of
MongoDB looks for the members of a replica set, unless its URI says `directConnection=true`.
"""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 64 * 1024
WAITING: Final = 128
"""How many connections the kernel holds until they are accepted."""

_AT_ONCE: Final = struct.pack("ii", 1, 0)  # a socket closed so sends RST and forgets what waits


class Proxy:
    """Forwards connections from `port` to the port `target`; `start` before use, `stop` at the end.

    It forwards as it should until it is told otherwise; each way to behave replaces the one before.
    """

    def __init__(self, target: int) -> None:
        self.target: Final = target
        self._listener = _bound(0)
        self.port: Final[int] = self._listener.getsockname()[1]
        self._listening = False
        self._delay = 0.0
        self._flowing = asyncio.Event()
        self._connections: dict[asyncio.Task[None], socket.socket] = {}

    async def start(self) -> None:
        """Accept connections and forward what they bring."""
        self.open()

    async def stop(self) -> None:
        """Cut all connections and give the port back."""
        self._close()
        await asyncio.gather(*self._cut(), return_exceptions=True)

    def open(self) -> None:
        """Forward at once; what was held back goes on."""
        self.slow(0.0)

    def slow(self, seconds: float) -> None:
        """Hold each chunk of up to 64 KiB back for so long, each way, one after the other."""
        self._delay = seconds
        self._flowing.set()
        self._listen()

    def hang(self) -> None:
        """Accept connections and hold back all that comes, as if the other end were gone."""
        self._flowing.clear()
        self._listen()

    def lose(self) -> None:
        """Forget the open connections and tell neither end, as a router does; forward new ones."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self.open()

    def refuse(self) -> None:
        """Cut all connections and let no new one in."""
        self._close()
        self._cut()
        self._listener = _bound(self.port)

    def reset(self) -> None:
        """Cut all connections with RST, then forward those that come."""
        self._cut()
        self.open()

    def _listen(self) -> None:
        if not self._listening:
            self._listener.listen(WAITING)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)
            self._listening = True

    def _close(self) -> None:
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listening = False
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.setblocking(False)
            connection = asyncio.create_task(self._connect(accepted))
            self._connections[connection] = accepted
            connection.add_done_callback(self._forget)

    def _forget(self, connection: asyncio.Task[None]) -> None:
        self._connections.pop(connection).close()

    def _cut(self) -> list[asyncio.Task[None]]:
        cut = list(self._connections)
        for connection in cut:
            connection.cancel()
        return cut

    async def _connect(self, accepted: socket.socket) -> None:
        """Forward between a client and the target until both have said all, or one is cut off."""
        flowing = self._flowing
        heard, told = await asyncio.open_connection(sock=accepted)
        try:
            await flowing.wait()
            with suppress(OSError):
                await self._join(heard, told, flowing)
        finally:
            _reset(told)

    async def _join(self, heard: StreamReader, told: StreamWriter, flowing: asyncio.Event) -> None:
        answers, asked = await asyncio.open_connection(HOST, self.target)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._forward(heard, asked, flowing))
                ways.create_task(self._forward(answers, told, flowing))
        except* OSError:
            pass
        else:
            await asyncio.gather(_end(asked), _end(told))
        finally:
            _reset(asked)

    async def _forward(
        self, source: StreamReader, sink: StreamWriter, flowing: asyncio.Event
    ) -> None:
        """Forward one way until that side has said all."""
        chunk = b"not the end"
        while chunk:
            chunk = await source.read(CHUNK_BYTES)
            await asyncio.sleep(self._delay)
            await flowing.wait()
            if chunk:
                sink.write(chunk)
                await sink.drain()
        sink.write_eof()


def listeners(proxies: Mapping[str, Proxy]) -> str:
    """Return settings of a broker that listens at each proxy's target and says it is at its port.

    They go behind those of `deploy/local` (`servers.kafka(..., settings=...)`). Any names will do.
    """
    named = {name.upper(): proxy for name, proxy in proxies.items()}
    listening = [f"{name}://{HOST}:{proxy.target}" for name, proxy in named.items()]
    advertised = [f"{name}://{HOST}:{proxy.port}" for name, proxy in named.items()]
    protocols = [f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *named)]
    own, controller = f"PLAINTEXT://{HOST}:${{port}}", f"CONTROLLER://{HOST}:${{controller_port}}"
    settings = {
        "listeners": [own, controller, *listening],
        "advertised.listeners": [own, *advertised],
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": ["PLAINTEXT"],
    }
    return "".join(f"\n{name}={','.join(values)}" for name, values in settings.items())


def _bound(port: int) -> socket.socket:
    """Return a socket that has this port, or any, and does not listen: it refuses connections."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind((HOST, port))
    return bound


async def _end(writer: StreamWriter) -> None:
    """Close in good order, with all that was written."""
    writer.close()
    await writer.wait_closed()


def _reset(writer: StreamWriter) -> None:
    """Cut it off with RST, unless it is closed."""
    if not writer.is_closing():
        end = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()
