"""Publishing together what comes in at the same time.

While one call to the bus is under way, the messages of further requests gather for the next. So a
busy intake makes few calls, each with many messages, which costs the bus far less than many calls
with one; and a request that comes alone is published at once.
"""

import asyncio
from collections.abc import Sequence

from rapport.common.bus.port import Bus
from rapport.common.events.codec import Message


class Publisher:
    """Publishes to the bus, one call at a time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._messages: list[Message] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._publishing: asyncio.Task[None] | None = None

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[None]:
        """Let `messages` go with the next call; the future is done when they are durable.

        It raises what the bus raises. Trouble with one message is trouble for all that go together,
        so callers see to it that theirs fit the bus.
        """
        loop = asyncio.get_running_loop()
        self._messages += messages
        done = loop.create_future()
        self._waiting.append(done)
        if self._publishing is None:
            self._publishing = loop.create_task(self._publish())
        return done

    async def _publish(self) -> None:
        while self._waiting:
            messages, self._messages = self._messages, []
            waiting, self._waiting = self._waiting, []
            try:
                await self._bus.publish(messages)
            except Exception as error:
                _settle(waiting, error)
            else:
                _settle(waiting)
        self._publishing = None


def _settle(waiting: Sequence[asyncio.Future[None]], error: Exception | None = None) -> None:
    for done in waiting:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
