"""The outbox relay: what was saved gets published, in order and at least once, and is then cleared.

A save leaves its events in its aggregate's outbox and nudges the relay. One task takes the nudged
aggregates, reads their outboxes from the head, publishes all of it in one call and clears exactly
what it published. Trouble keeps everything where it is, for another try after a growing pause.
Until that is over each aggregate has a call of its own, all of them at once, and what has not
failed yet goes first: so what cannot be told, to a partition without a leader say, holds up nothing
else. The sweeper nudges what nobody else will: outboxes that a crash has left behind.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
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
        self._failed: dict[Name, float] = {}
        self._in_flight: dict[Name, float] = {}
        self._refused: dict[Name, float] = {}
        self._failures = 0
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
            if (kind, id) not in self._failed:
                self._nudged.setdefault((kind, id), now)
        self._tell()

    @property
    def behind(self) -> int:
        """How many aggregates have been nudged and are not published yet."""
        return len(self._nudged) + len(self._failed) + len(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is nudged or in flight."""
        return not self.behind

    @property
    def age(self) -> float:
        """How many seconds the outbox has waited that has waited longest."""
        waiting = (self._in_flight, self._nudged, self._failed, self._refused)
        now = monotonic()
        return now - min(chain.from_iterable(some.values() for some in waiting), default=now)

    async def idle(self) -> None:
        """Return when nothing is nudged or in flight."""
        while self.behind:
            await self._changed.wait()

    async def room(self) -> None:
        """Return when no more than 2,000 aggregates are waiting."""
        while self.behind > ROOM:
            await self._changed.wait()

    async def _relay_always(self) -> None:
        while True:
            while not (self._nudged or self._failed):
                await self._changed.wait()
            self._take()
            try:
                await self._relay(list(self._in_flight))
            except Exception as error:
                self._put_back()
                self._failures += 1
                self.trouble = reason_of(error)
                self._tell()
                PUBLISHES_RETRIED.labels(self._service).inc()
                pause = pause_after(error, self._failures)
                log.warning(
                    "relay.retry",
                    tries=self._failures,
                    pause=pause,
                    behind=self.behind,
                    reason=reason_of(error),
                    exc_info=not isinstance(error, TemporaryError),
                )
                await self._clock.sleep(pause)
            else:
                self._failures = 0
                if not self._failed:
                    self.trouble = None
                self._tell()

    async def _relay(self, names: Sequence[Name]) -> None:
        """Publish what waits and clear it; what failed stays in flight, and its error is raised.

        What the bus refuses for good is left to the sweeper.
        """
        outboxes = await self._read(names)
        for name in set(names) - outboxes.keys():
            self._refused.pop(name, None)
        failed = await self._publish_all(outboxes) if outboxes else {}
        published = {name: outbox for name, outbox in outboxes.items() if name not in failed}
        await self._clear(published)
        if published:
            self._failures = 0
        self._in_flight = {name: self._in_flight[name] for name in failed}
        for name, error in failed.items():
            if isinstance(error, PermanentError):
                self._refuse(name, error)
        if self._in_flight:
            raise failed[next(iter(self._in_flight))]

    async def _publish_all(self, outboxes: Outboxes) -> Mapping[Name, Exception]:
        """Publish in one call or, in trouble, in one for each; return what failed."""
        if self.trouble is None:
            failure = await self._publish(list(chain.from_iterable(outboxes.values())))
            if not isinstance(failure, PermanentError):
                return {} if failure is None else dict.fromkeys(outboxes, failure)
        failures = await asyncio.gather(*map(self._publish, outboxes.values()))
        outcomes = zip(outboxes, failures, strict=True)
        return {name: failure for name, failure in outcomes if failure is not None}

    async def _publish(self, outbox: Sequence[tuple[str, Message]]) -> Exception | None:
        """Return why this failed, None where it did not."""
        messages = [message for _, message in outbox]
        try:
            with (
                self._publish_seconds.time(),
                tracing.publishing(self._service, self._system, messages),
            ):
                await self._bus.publish(messages)
        except Exception as error:
            return error
        return None

    async def _read(self, names: Sequence[Name]) -> Outboxes:
        ids: dict[type[Aggregate], list[str]] = defaultdict(list)
        for kind, id in names:
            ids[kind].append(id)
        outboxes: dict[Name, Sequence[tuple[str, Message]]] = {}
        for kind in ids:
            found = await self._store.outboxes(kind, ids[kind])
            outboxes |= {(kind, id): outbox for id, outbox in found.items()}
        return outboxes

    def _refuse(self, name: Name, error: PermanentError) -> None:
        self._refused.setdefault(name, self._in_flight.pop(name))
        kind, id = name
        log.error("outbox.refused", collection=kind.COLLECTION, aggregate=id, reason=error.reason)

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
        waiting = chain(self._nudged.items(), self._failed.items())
        self._in_flight = dict(islice(waiting, BATCH))
        for name in self._in_flight:
            self._nudged.pop(name, None)
            self._failed.pop(name, None)

    def _put_back(self) -> None:
        for name in self._in_flight:
            self._nudged.pop(name, None)
        self._failed |= self._in_flight
        self._in_flight = {}

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()
