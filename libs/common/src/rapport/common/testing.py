"""The test harness: one service, whole, in memory, driven step by step.

Nothing runs in the background and nothing sleeps: `given` hands events to the real pipeline, the
real relay publishes into a list, what the service itself consumes of that comes back to it, due
items fire as the clock passes them, and all has settled when the call returns. So a test reads as a
story:

    await routing.given(case_opened(owner="ana"), handover_offered(to="ben"))
    await routing.advance(hours=4)
    assert routing.published(HandoverExpired).data.returned_to == "ana"
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import httpx2
from joserfc.jwk import KeySet, OKPKey

from rapport.common.auth import ROLES, Signer, Verifier
from rapport.common.bus.port import Handler, Position, Subscription
from rapport.common.clock import ManualClock
from rapport.common.events import Event, EventData, Message, Record, decode, encode
from rapport.common.events.codec import event_type
from rapport.common.events.ids import random_id
from rapport.common.events.topics import DEAD_LETTERS
from rapport.common.runtime import Running, Service
from rapport.common.settings import Settings
from rapport.common.store.sqlite import SqliteStore

D = TypeVar("D", bound=EventData)

MORNING: Final = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""A Monday morning, when stories begin."""

_KEY: Final = OKPKey.generate_key("Ed25519", auto_kid=True)
_SIGNER: Final = Signer(_KEY, "rapport", "rapport")
VERIFIER: Final = Verifier(KeySet([_KEY]), "rapport", "rapport")
"""Accepts what `token` gives."""


def token(subject: str, *roles: str) -> str:
    """Return a token that the harness's services accept; without roles it has all of them."""
    return _SIGNER.mint(subject, roles or ROLES)


class RecordingBus:
    """A bus that keeps what is published and delivers nothing by itself."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.records: list[Record] = []

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Keep `messages` as records of one partition."""
        now = int(self._clock.now().timestamp() * 1000)
        self.records += [
            Record(
                item.topic, 0, len(self.records) + place, now, item.key, item.value, item.headers
            )
            for place, item in enumerate(messages)
        ]

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> Subscription:
        """Refused: the harness hands events over itself."""
        raise NotImplementedError

    async def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Yield once what was published to `topics` after the positions given."""
        from_offset = max((after or {}).values(), default=-1)
        found = [
            item for item in self.records if item.topic in topics and item.offset > from_offset
        ]
        if found:
            yield found

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return the first place of each topic: nothing is forgotten."""
        return {(topic, 0): 0 for topic in topics}

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return one past the last record, for each topic."""
        return {(topic, 0): len(self.records) for topic in topics}


class Harness:
    """One service under test; see the module's docstring."""

    def __init__(self, running: Running, bus: RecordingBus, clock: ManualClock) -> None:
        self.running = running
        self.bus = bus
        self.clock = clock
        self._read = 0
        transport = httpx2.ASGITransport(app=running.app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://rapport.test")

    async def given(self, *events: Event[Any] | EventData, **attributes: Any) -> None:
        """Let the service handle events of others, in order, and all that follows from them."""
        messages = []
        for item in events:
            told = item if isinstance(item, Event) else self.event(item, **attributes)
            topic = (told.data.TOPIC or self.running.service.consumes[0]).name
            messages.append(encode(told, topic))
        await self.deliver(messages)

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Let the service handle messages as they are, well-formed or not."""
        now = int(self.clock.now().timestamp() * 1000)
        records = [
            Record(item.topic, 0, place, now, item.key, item.value, item.headers)
            for place, item in enumerate(messages)
        ]
        if records:
            await self.running.pipeline.handle(records)
        await self.settle()

    async def advance(self, **delta: float) -> None:
        """Move the clock by a timedelta's arguments, firing what falls due on the way, in order."""
        until = self.clock.now() + timedelta(**delta)
        while (due := await self.running.scheduler.next_due()) is not None and due <= until:
            self.clock.move_to(due)
            if not await self.settle():
                break
        self.clock.move_to(until)
        await self.settle()

    async def settle(self) -> bool:
        """Work until nothing is left to do; return whether anything was done."""
        worked = False
        while True:
            await self.running.relay.idle()
            fresh, self._read = self.bus.records[self._read :], len(self.bus.records)
            consumed = {topic.name for topic in self.running.service.consumes}
            own = [record for record in fresh if record.topic in consumed]
            if own:
                await self.running.pipeline.handle(own)
            fired = await self.running.scheduler.fire(self.clock.now())
            await self.running.scheduler.settle_effects()
            await self.running.relay.idle()
            if not own and not fired and self._read == len(self.bus.records):
                return worked
            worked = True

    def event(self, data: D, **attributes: Any) -> Event[D]:
        """Wrap `data` as an event that another service publishes now."""
        given: dict[str, Any] = {
            "id": random_id(),
            "source": "/test",
            "type": data.TYPE,
            "subject": getattr(data, data.KEY) if data.KEY else random_id(),
            "time": self.clock.now(),
            "partitionkey": getattr(data, data.KEY) if data.KEY else random_id(),
            "correlationid": random_id(),
        }
        return Event(data=data, **(given | attributes))

    def all(self, type: type[D]) -> list[Event[D]]:
        """Return every event of one type that the service has published."""
        decoded = [
            decode(item)
            for item in self.bus.records
            if event_type(item.headers) == type.TYPE and item.topic != DEAD_LETTERS.name
        ]
        return [event for event in decoded if isinstance(event.data, type)]  # type: ignore[misc]

    def published(self, type: type[D]) -> Event[D]:
        """Return the one event of this type; fails where there is none or more than one."""
        found = self.all(type)
        assert len(found) == 1, f"{len(found)} x {type.TYPE}; published: {self.types()}"
        return found[0]

    def types(self) -> list[str]:
        """Return the types of everything published, in order; of dead letters, the topic."""
        return [
            item.topic if item.topic == DEAD_LETTERS.name else str(event_type(item.headers))
            for item in self.bus.records
        ]

    async def call(
        self,
        method: str,
        path: str,
        *,
        as_: str = "ana",
        roles: Sequence[str] = (),
        **arguments: Any,
    ) -> httpx2.Response:
        """Call the service's API as somebody with roles (all of them by default), then settle."""
        headers = {"Authorization": f"Bearer {token(as_, *roles)}"} | arguments.pop("headers", {})
        response = await self.http.request(method, path, headers=headers, **arguments)
        await self.settle()
        return response


@asynccontextmanager
async def harness(
    service: Service, *, now: datetime = MORNING, **settings: Any
) -> AsyncIterator[Harness]:
    """Run `service` in memory for a test, with settings overridden by keyword."""
    clock = ManualClock(now)
    bus = RecordingBus(clock)
    running = Running(
        service,
        service.settings.load(**settings),
        bus,
        SqliteStore(None, service.kinds),
        clock,
        VERIFIER,
    )
    await running.start(consume=False)
    under_test = Harness(running, bus, clock)
    try:
        yield under_test
    finally:
        await under_test.http.aclose()
        await running.stop(drain=5)


__all__ = ["MORNING", "Harness", "RecordingBus", "Settings", "harness", "token"]
