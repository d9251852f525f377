"""How much intake takes on at once: the one place in Rapport that sends callers away for a while.

Whoever comes waits for all who came before, so there is a bound on how many requests are under way:
enough to share their waits for the log, few enough for an answer in time. What is held in memory
has a bound, too. Past either a request gets 503 with Retry-After, before its body is read any
further. Nothing behind intake refuses anything, so nothing inside can wait in a circle.
"""

from types import TracebackType
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from rapport.common.errors import TemporaryError

AT_ONCE: Final = 256
"""Requests that are whole and not done; at some 0.3 ms for each, those take about 80 ms."""

HELD_BYTES: Final = 64 * 1024 * 1024
REQUEST_BYTES: Final = 8 * 1024
"""What a request weighs beyond its body."""

RETRY_AFTER_SECONDS: Final = 1.0


class Load:
    """What is being taken in at the moment: so many requests, so many bytes."""

    def __init__(self, limit: int = HELD_BYTES, at_once: int = AT_ONCE) -> None:
        self._limit = limit
        self._at_once = at_once
        self.held = 0
        self.requests = 0

    def body(self, receive: Receive) -> "Body":
        """Return the body to read, which weighs on the load until its block ends."""
        return Body(self, receive)

    def admit(self) -> None:
        """Raise TemporaryError where those that are under way are enough."""
        if self.requests >= self._at_once:
            raise _too_much()

    def hold(self, size: int) -> None:
        """Take `size` bytes more; raises TemporaryError where that is too much at the moment."""
        if self.held + size > self._limit:
            raise _too_much()
        self.held += size

    def release(self, size: int) -> None:
        """Put `size` bytes down."""
        self.held -= size


class Body:
    """A request's body: `async with load.body(receive) as body` reads it whole."""

    __slots__ = ("_load", "_receive", "_size")

    def __init__(self, load: Load, receive: Receive) -> None:
        self._load = load
        self._receive = receive
        self._size = 0

    async def __aenter__(self) -> bytes:
        chunks: list[bytes] = []
        weight, more = REQUEST_BYTES, True
        self._load.admit()
        try:
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk, more = message.get("body", b""), message.get("more_body", False)
                weight += len(chunk)
                self._load.hold(weight)
                self._size += weight
                chunks.append(chunk)
                weight = 0
        except BaseException:
            self._load.release(self._size)
            raise
        self._load.requests += 1  # one who sends slowly keeps nobody else waiting
        return b"".join(chunks)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._load.requests -= 1
        self._load.release(self._size)


def _too_much() -> TemporaryError:
    return TemporaryError("intake has more on its hands than it can take", RETRY_AFTER_SECONDS)
