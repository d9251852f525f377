"""The outbox relay: what was saved gets published, in order and at least once, and is then cleared.

A save leaves its events in its aggregate's outbox and nudges the relay. One task takes the nudged
aggregates, reads their outboxes from the head, publishes all of it in one call and clears exactly
what it published. Trouble keeps everything where it is, for another try after a growing pause. The
sweeper nudges what nobody else will: outboxes that a crash has left behind.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import monotonic
from typing import Final

import structlog

from rapport.common import tracing
from rapport.common.aggregate import Aggregate
from rapport.common.bus.port import Bus
from rapport.common.clock import Clock
from rapport.common.errors import PermanentError, TemporaryError, pause_after, reason_of
from rapport.common.events.codec import Message
from rapport.common.store.port import Store
from rapport.common.telemetry import PUBLISH_SECONDS, PUBLISHES_RETRIED

ROOM: Final = 2_000
BATCH: Final = 500
SWEEP_SECONDS: Final = 10.0
SWEEP_AGE: Final = timedelta(seconds=30)
SWEEP_LIMIT: Final = 10_000

_EVER: Final = datetime.max.replace(tzinfo=UTC)

Name = tuple[type[Aggregate], str]
Outboxes = Mapping[Name, Sequence[tuple[str, Message]]]

log = structlog.get_logger(__name__)


class Relay:
    """Publishes the outboxes of `kinds`; one per service."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        kinds: Sequence[type[Aggregate]],
        clock: Clock,
        *,
        sweep_age: timedelta = SWEEP_AGE,
        service: str = "",
        system: str = "embedded",
    ) -> None:
        self._bus = bus
        self._store = store
        self._kinds = kinds
        self._clock = clock
        self._sweep_age = sweep_age
        self._service = service
        self._system = system
        self._publish_seconds = PUBLISH_SECONDS.labels(service)
        self._nudged: dict[Name, float] = {}
        self._in_flight: dict[Name, float] = {}
        self._refused: dict[Name, float] = {}
        self._swept = datetime.min.replace(tzinfo=UTC)
        self.trouble: str | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Nudge all that an earlier process left behind, then relay and sweep until `stop`.

        Raises TemporaryError where the store cannot be read.
        """
        await self._sweep(_EVER)
        self._tasks = [
            asyncio.create_task(self._relay_always(), name="relay"),
            asyncio.create_task(self._sweep_always(), name="sweeper"),
        ]

    async def stop(self, drain: float = 20.0) -> None:
        """Stop; what has been nudged has `drain` seconds to be published, the rest stays saved."""
        tasks, self._tasks = self._tasks, []
        if tasks:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.idle(), drain)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def nudge(self, kind: type[Aggregate], ids: Iterable[str]) -> None:
        """Have the outboxes of these aggregates published soon."""
        now = monotonic()
        for id in ids:
            self._nudged.setdefault((kind, id), now)
        self._tell()

    @property
    def behind(self) -> int:
        """How many aggregates have been nudged and are not published yet."""
        return len(self._nudged) + len(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is nudged or in flight."""
        return not self.behind

    @property
    def age(self) -> float:
        """How many seconds the outbox has waited that has waited longest."""
        waiting = (self._in_flight, self._nudged, self._refused)
        first = [next(iter(some.values())) for some in waiting if some]
        return monotonic() - min(first) if first else 0.0

    async def idle(self) -> None:
        """Return when nothing is nudged or in flight."""
        while self.behind:
            await self._changed.wait()

    async def room(self) -> None:
        """Return when no more than 2,000 aggregates are waiting."""
        while self.behind > ROOM:
            await self._changed.wait()

    async def _relay_always(self) -> None:
        failures = 0
        while True:
            while not self._nudged:
                await self._changed.wait()
            self._take()
            try:
                await self._relay(list(self._in_flight))
            except Exception as error:
                self._put_back()
                failures += 1
                self.trouble = reason_of(error)
                PUBLISHES_RETRIED.labels(self._service).inc()
                pause = pause_after(error, failures)
                log.warning(
                    "relay.retry",
                    tries=failures,
                    pause=pause,
                    behind=self.behind,
                    reason=reason_of(error),
                    exc_info=not isinstance(error, TemporaryError),
                )
                await self._clock.sleep(pause)
            else:
                failures = 0
                self.trouble = None
                self._in_flight = {}
                self._tell()

    async def _relay(self, names: Sequence[Name]) -> None:
        outboxes = await self._read(names)
        for name in set(names) - outboxes.keys():
            self._refused.pop(name, None)
        messages = [message for outbox in outboxes.values() for _, message in outbox]
        if not messages:
            return
        try:
            await self._publish(messages)
        except PermanentError:
            outboxes = await self._publish_apart(outboxes)
        await self._clear(outboxes)

    async def _publish(self, messages: Sequence[Message]) -> None:
        with (
            self._publish_seconds.time(),
            tracing.publishing(self._service, self._system, messages),
        ):
            await self._bus.publish(messages)

    async def _read(self, names: Sequence[Name]) -> Outboxes:
        ids: dict[type[Aggregate], list[str]] = defaultdict(list)
        for kind, id in names:
            ids[kind].append(id)
        outboxes: dict[Name, Sequence[tuple[str, Message]]] = {}
        for kind in ids:
            found = await self._store.outboxes(kind, ids[kind])
            outboxes |= {(kind, id): outbox for id, outbox in found.items()}
        return outboxes

    async def _publish_apart(self, outboxes: Outboxes) -> Outboxes:
        """Publish by aggregate and return what was; what the bus refuses waits for the sweeper."""
        published = {}
        for (kind, id), outbox in outboxes.items():
            try:
                await self._publish([message for _, message in outbox])
            except PermanentError as error:
                self._refused.setdefault((kind, id), self._in_flight[kind, id])
                log.error(
                    "outbox.refused",
                    collection=kind.COLLECTION,
                    aggregate=id,
                    reason=error.reason,
                )
            else:
                published[kind, id] = outbox
        return published

    async def _clear(self, published: Outboxes) -> None:
        events: dict[type[Aggregate], dict[str, list[str]]] = defaultdict(dict)
        for (kind, id), outbox in published.items():
            events[kind][id] = [event for event, _ in outbox]
            self._refused.pop((kind, id), None)
        for kind in events:
            await self._store.clear_outboxes(kind, events[kind])

    async def _sweep_always(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            try:
                await self._sweep(self._old())
            except Exception as error:
                log.warning("sweep.failed", reason=reason_of(error))

    def _old(self) -> datetime:
        """Return since when outboxes are old: never less, or a clock put back would hide some."""
        self._swept = max(self._swept, datetime.now(UTC) - self._sweep_age)
        return self._swept

    async def _sweep(self, before: datetime) -> None:
        for kind in self._kinds:
            self.nudge(kind, await self._store.waiting(kind, before, limit=SWEEP_LIMIT))

    def _take(self) -> None:
        self._in_flight = dict(islice(self._nudged.items(), BATCH))
        for name in self._in_flight:
            del self._nudged[name]

    def _put_back(self) -> None:
        self._nudged = self._in_flight | self._nudged | self._in_flight
        self._in_flight = {}

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()
