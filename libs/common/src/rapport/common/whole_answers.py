"""Answers that leave in one piece: the HTTP server writes an answer's head and its body apart.

Two writes are two system calls here and two packets for whoever waits, and for a short answer that
is a good part of all that it costs. So a head waits for what follows it in the same turn of the
event loop, and no longer: a stream's head leaves before its first event is there.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = b"HTTP/1.1 "


class WholeAnswers(HttpToolsProtocol):
    """uvicorn's protocol, over a transport that joins a head to what follows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", _Joining(transport)))


class _Joining:
    """A transport that holds a head back until the next write, the turn's end or the close."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write what follows a head together with it; hold a head back."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._call_soon(self._let_go)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once all has been written."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
