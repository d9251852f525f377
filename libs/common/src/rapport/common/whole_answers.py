"""Answers that leave in one piece: the HTTP server writes an answer's head and its body apart.

Two writes are two system calls here and two packets for whoever waits, and for a short answer that
is a good part of all that it costs. So the head of an answer that says how long its body is waits
for the first of the body; a stream's head, which does not say, leaves at once.

An answer that is there as a whole can skip ASGI's two messages, too: `answered_at_once` hands it to
the server as it is, which offers that as an extension of ASGI.

And the timer that ends a connection after a long pause is not set anew for each of its requests:
it looks how long the pause has been when its time has come, and is set for what is left.
"""

import asyncio
from typing import Any, Final, cast
from weakref import ref

from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

_HEAD: Final = b"HTTP/1.1 "
_LENGTH: Final = b"\r\ncontent-length: "
_END: Final = b"\r\n\r\n"
_EXTENSION: Final = "rapport.answer"
_shared: list[Any] = [None, b""]


def answered_at_once(scope: Scope, response: Response) -> bool:
    """Answer a request with a response that knows its length, if the server can do so just now.

    What is out of the ordinary is left to ASGI.
    """
    asked = scope.get("extensions", {}).get(_EXTENSION)
    cycle: RequestResponseCycle | None = asked and asked()
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or response.background is not None
        or cycle.scope["method"] == "HEAD"
        or not hasattr(response, "body")
    ):
        return False
    own = b"".join([b"%b: %b\r\n" % header for header in response.raw_headers])
    if own.count(b"\n") != len(response.raw_headers):  # a value has a line break of its own
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    shared = _written(cycle.default_headers)
    whole = (STATUS_LINE[response.status_code], shared, own, b"\r\n", response.body)
    cycle.transport.write(b"".join(whole))
    cycle.message_event.set()
    cycle.on_response()
    return True


def _written(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the headers of all answers as lines; the server makes them anew each second."""
    if headers is not _shared[0]:
        _shared[:] = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
    return cast("bytes", _shared[1])


class WholeAnswers(HttpToolsProtocol):
    """uvicorn's protocol, over a transport that joins a head to what follows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        self._joining = _Joining(transport)
        super().connection_made(cast("asyncio.Transport", self._joining))
        self._unset_keepalive_if_required()
        self._look_after(self.timeout_keep_alive)

    def connection_lost(self, error: Exception | None) -> None:
        """Wait for no further request."""
        self._look.cancel()
        super().connection_lost(error)

    @property
    def is_under_way(self) -> bool:
        """Whether a request is read or waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _unset_keepalive_if_required(self) -> None:
        """Note that something has come or left: a pause begins anew."""
        self._quiet_since = self.loop.time()

    def _look_after(self, seconds: float) -> None:
        self._look = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing is under way and nothing came for long enough."""
        quiet = 0.0 if self.is_under_way else self.loop.time() - self._quiet_since
        if quiet < self.timeout_keep_alive:
            self._look_after(self.timeout_keep_alive - quiet)
        else:
            super().timeout_keep_alive_handler()

    def on_headers_complete(self) -> None:
        """Offer to answer the request at once.

        The offer is a weak reference: one to the request itself, which has the scope, would leave
        each request to the garbage collector, for whose looks all who wait would wait.
        """
        super().on_headers_complete()
        if self.cycle is not None:
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]
            scope["extensions"] = {_EXTENSION: ref(self.cycle)}

    def on_response_complete(self) -> None:
        """Let a head go that nothing follows, as after HEAD, and go on to the next request."""
        self._joining.let_go()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
            self._unset_keepalive_if_required()


class _Joining:
    """A transport that holds such a head back until the next write or the answer's end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write_now = transport.write
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
        self.write_now(data)

    def close(self) -> None:
        """Close once all has been written."""
        self.let_go()
        self._transport.close()

    def let_go(self) -> None:
        """Write what is held back."""
        if self._head:
            head, self._head = self._head, b""
            self.write_now(head)
