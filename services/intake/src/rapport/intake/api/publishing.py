"""Publishing together what comes in at the same time.

What requests bring in one turn of the event loop goes to the bus in one call, which costs far less
than a call for each. Nothing waits for the calls before: the bus knows best what to send when.
"""

import asyncio
from collections.abc import Sequence

from rapport.common.bus.port import Bus
from rapport.common.events.codec import Message
from rapport.common.futures import settle


class Publisher:
    """Publishes to the bus, one call for each turn of the event loop."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._messages: list[Message] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._calls: set[asyncio.Task[None]] = set()

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[None]:
        """Let `messages` go with what else comes in this turn; done when they are durable.

        It raises what the bus raises. Trouble with one message is trouble for all that go together,
        so callers see to it that theirs fit the bus.
        """
        loop = asyncio.get_running_loop()
        self._messages += messages
        done = loop.create_future()
        if not self._waiting:
            call = loop.create_task(self._publish())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        self._waiting.append(done)
        return done

    async def _publish(self) -> None:
        messages, self._messages = self._messages, []
        waiting, self._waiting = self._waiting, []
        try:
            await self._bus.publish(messages)
        except Exception as error:
            settle(waiting, error)
        else:
            settle(waiting)
