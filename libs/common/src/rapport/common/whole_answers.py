"""Answers that leave in one piece: the HTTP server writes an answer's head and its body apart.

Two writes are two system calls here and two packets for whoever waits, and for a short answer that
is a good part of all that it costs. So the head of an answer that says how long its body is waits
for the first of the body; a stream's head, which does not say, leaves at once.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = b"HTTP/1.1 "
_LENGTH: Final = b"\r\ncontent-length: "
_END: Final = b"\r\n\r\n"


class WholeAnswers(HttpToolsProtocol):
    """uvicorn's protocol, over a transport that joins a head to what follows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        self._joining = _Joining(transport)
        super().connection_made(cast("asyncio.Transport", self._joining))

    def on_response_complete(self) -> None:
        """Let a head go that nothing follows, as after HEAD."""
        self._joining.let_go()
        super().on_response_complete()


class _Joining:
    """A transport that holds such a head back until the next write or the answer's end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write what follows a head together with it; hold a head back."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(_END) and data.startswith(_HEAD) and _LENGTH in data:
            self._head = data
            return
        self._write(data)

    def close(self) -> None:
        """Close once all has been written."""
        self.let_go()
        self._transport.close()

    def let_go(self) -> None:
        """Write what is held back."""
        if self._head:
            head, self._head = self._head, b""
            self._write(head)
