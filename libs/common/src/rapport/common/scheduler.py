"""The scheduler: what falls due is carried out, in order, each exactly once.

A due item is an ordinary save whose cause is (aggregate, name, due time) and whose time is the due
time, so it does not matter when the scan gets there. The scan holds while the service is more than
a minute behind on its events (a reply may already be on its way in), but never for longer than ten
minutes. What fails, or is still there after its turn, rests for a minute and holds up nobody.

The machine's clock may be put forward or back at any moment. What waits here then waits no longer
than it would have, what was stored a moment before to be done at once is done at once, and what is
under way outside is not begun again however late it looks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

import structlog

from rapport.common import tracing
from rapport.common.aggregate import Aggregate, Cause, Due
from rapport.common.clock import Clock
from rapport.common.engine import Engine, Step
from rapport.common.errors import TemporaryError, reason_of
from rapport.common.events.ids import derived_id
from rapport.common.handling import DueHandler, Then
from rapport.common.telemetry import DUE_FAILED, DUE_FIRED, DUE_LATE

BATCH: Final = 200
POLL_SECONDS: Final = 1.0
LAG_LIMIT_SECONDS: Final = 60.0
HOLD_LIMIT: Final = timedelta(minutes=10)
CONCURRENT_EFFECTS: Final = 64
MOST_EFFECTS: Final = 256
SLOW_SECONDS: Final = 2.0
"""Work outside that takes longer makes room for others, up to `MOST_EFFECTS` at once."""

RETRY_AFTER_FAILURE: Final = timedelta(minutes=1)

A = TypeVar("A", bound=Aggregate)

Name = tuple[str, str]
"""An aggregate's collection and id."""

log = structlog.get_logger(__name__)


class Scheduler:
    """Scans one service's collections for due items and fires them."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        handlers: Sequence[DueHandler[Any]],
        resources: Any,
        lag_seconds: Callable[[], Awaitable[float]],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._handlers = {handler.changes: handler for handler in handlers}
        self._resources = resources
        self._lag_seconds = lag_seconds
        self._firing = False
        self._late = 0.0
        self._waiting_since: datetime | None = None
        self._crowded: set[type[Aggregate]] = set()
        self._carries_out = False
        self._effects: dict[asyncio.Task[None], float] = {}
        self._acting: set[Name] = set()
        self._awake = asyncio.Event()
        self._held_since: datetime | None = None
        self._scanned: tuple[datetime, float] | None = None
        self._still_due: list[datetime] = []
        self._resting: dict[Name, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to scan."""
        self._task = asyncio.create_task(self._scan(), name=f"{self._engine.service}.scheduler")

    async def stop(self, drain: float = 20.0) -> None:
        """Stop scanning; work outside that has begun has `drain` seconds to finish."""
        self._carries_out = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._effects:
            _, late = await asyncio.wait(self._effects, timeout=drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def saved(self, aggregates: Sequence[Aggregate]) -> None:
        """Look again soon if something just saved is due already."""
        now = self._clock.now()
        watched = (item for item in aggregates if type(item) in self._handlers)
        if any((moment := item.next_due) is not None and moment <= now for item in watched):
            self._awake.set()

    def room(self, kind: type[Aggregate]) -> int:
        """Return how many of a kind may be leased by the save that makes them due.

        That is a quarter of the room, since other batches may be under way; what is left comes with
        the scan, and so does everything while that holds.
        """
        if not self._carries_out:
            return 0
        return max(0, self._limit(self._handlers[kind])) // 4

    def begin(self, then: Then, aggregate: Aggregate) -> None:
        """Begin the work outside that an aggregate was leased for, unless it is under way."""
        name = (aggregate.COLLECTION, aggregate.id)
        if name in self._acting:
            return
        task = asyncio.create_task(self._act(then, aggregate), context=Context())
        self._effects[task] = monotonic()
        self._acting.add(name)
        task.add_done_callback(partial(self._finished, name))

    @property
    def busy(self) -> bool:
        """Whether due items are being carried out, or work outside is under way."""
        return self._firing or bool(self._effects)

    async def next_due(self) -> datetime | None:
        """Return when the next item falls due."""
        return await self._engine.store.next_due(list(self._handlers))

    async def fire(self, now: datetime) -> int:
        """Carry out everything that is due at `now`; return how many items that was."""
        self._firing = True
        self._late = 0.0
        try:
            return await self._carry_out(now)
        finally:
            self._firing = False
            self._tell_late(self._late, now)

    async def _carry_out(self, now: datetime) -> int:
        fired = 0
        failed: list[type[Aggregate]] = []
        self._crowded = set()
        latest = now + RETRY_AFTER_FAILURE
        self._resting = {
            name: until for name, until in self._resting.items() if now < until <= latest
        }
        for kind, handler in self._handlers.items():
            try:
                while ready := await self._ready(kind, self._limit(handler), now):
                    fired += await self._fire_batch(kind, handler, ready, now)
            except Exception as error:
                self._note_failure(error, collection=kind.COLLECTION)
                failed.append(kind)
        self._late = max(self._late, await self._lateness([*self._crowded, *failed], now))
        return fired

    async def _ready(self, kind: type[A], limit: int, now: datetime) -> Sequence[A]:
        """Return what is due, without what rests or is under way: it must not hold up others."""
        if limit <= 0:
            self._crowded.add(kind)
            return ()
        left_out = self._resting.keys() | self._acting
        due = await self._engine.store.due(kind, now, limit=limit + len(left_out))
        return [item for item in due if (kind.COLLECTION, item.id) not in left_out][:limit]

    def _limit(self, handler: DueHandler[Any]) -> int:
        """Return how many aggregates may be taken on now: work outside begins at once or not yet.

        What is leased for it must not wait in a queue of ours until the lease is over. Slow work
        does not count, or a few slow receivers would hold up all others.
        """
        if handler.then is None:
            return BATCH
        slow = monotonic() - SLOW_SECONDS
        quick = sum(began > slow for began in self._effects.values())
        return min(CONCURRENT_EFFECTS - quick, MOST_EFFECTS - len(self._effects))

    async def settle_effects(self) -> None:
        """Wait until the work outside that has begun is finished."""
        while self._effects:
            await asyncio.wait(set(self._effects))

    async def _scan(self) -> None:
        while True:
            self._awake.clear()
            now = self._clock.now()
            self._look_back(now)
            try:
                self._carries_out = not await self._hold(now)
                if self._carries_out:
                    await self.fire(max(now, self._still_due.pop()) if self._still_due else now)
                else:
                    self._tell_late(await self._lateness(list(self._handlers), now), now)
            except Exception as error:
                self._note_failure(error)
            await self._wait(now)

    def _look_back(self, now: datetime) -> None:
        """Where the clock was put back, let the next two scans go up to what it would tell if not.

        All but the last second of that was due before; without this it would wait for the clock.
        """
        if self._scanned is not None and now < self._scanned[0]:
            time, at = self._scanned
            self._still_due = [time + timedelta(seconds=monotonic() - at)] * 2
        self._scanned = now, monotonic()

    async def _wait(self, scanned: datetime) -> None:
        """Sleep until a second after the last scan's time, or until something saved is due already.

        A clock that jumped while that scan went on, in either direction, is not waited for.
        """
        passed = (self._clock.now() - scanned).total_seconds()
        left = POLL_SECONDS - max(0.0, passed)
        sleeping = asyncio.create_task(self._clock.sleep(left))
        woken = asyncio.create_task(self._awake.wait())
        try:
            await asyncio.wait({sleeping, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            woken.cancel()

    async def _lateness(self, kinds: Sequence[type[Aggregate]], now: datetime) -> float:
        """Return for how many seconds what is due of `kinds` has waited, since it is left.

        While the store cannot say, that is what was told last and the time since.
        """
        try:
            due = await self._engine.store.next_due(kinds)
        except Exception as error:
            self._note_failure(error)
            due = self._waiting_since
        return 0.0 if due is None else max(0.0, (now - due).total_seconds())

    def _tell_late(self, late: float, now: datetime) -> None:
        self._waiting_since = now - timedelta(seconds=late)
        DUE_LATE.labels(self._engine.service).set(late)

    async def _hold(self, now: datetime) -> bool:
        if not await self._is_behind():
            self._held_since = None
            return False
        if self._held_since is None or self._held_since > now:
            self._held_since = now
            log.info("scan.held", service=self._engine.service)
        if now - self._held_since < HOLD_LIMIT:
            return True
        log.warning("scan.goes_on_behind", service=self._engine.service)
        return False

    async def _is_behind(self) -> bool:
        """Tell whether events have waited for over a minute, or nobody can say."""
        try:
            return await self._lag_seconds() > LAG_LIMIT_SECONDS
        except TemporaryError as error:
            log.info("scan.waits", service=self._engine.service, reason=error.reason)
            return True
        except Exception as error:
            self._note_failure(error)
            return True

    async def _fire_batch(
        self,
        kind: type[Aggregate],
        handler: DueHandler[Any],
        ready: Sequence[Aggregate],
        now: datetime,
    ) -> int:
        """Carry out what is due of these, together or, where that fails for good, one by one."""
        try:
            return await self._fire_together(kind, handler, ready, now)
        except TemporaryError:
            raise
        except Exception as failure:
            if len(ready) == 1:
                self._fail(kind, ready[0].id, failure, now)
                return 0
        return sum([await self._fire_batch(kind, handler, [item], now) for item in ready])

    async def _fire_together(
        self,
        kind: type[Aggregate],
        handler: DueHandler[Any],
        ready: Sequence[Aggregate],
        now: datetime,
    ) -> int:
        given = () if handler.prepare is None else (await handler.prepare(ready, self._resources),)
        steps: dict[str, list[Step]] = {aggregate.id: [] for aggregate in ready}
        overtaken: set[str] = set()
        for aggregate in ready:
            for item in sorted(aggregate.due(), key=lambda item: item.at):
                if item.at <= now:
                    cause = Cause(
                        id=derived_id(aggregate.id, item.name, item.at.isoformat()),
                        time=item.at,
                        traceparent=aggregate.traceparent,
                    )
                    decide = partial(_fire, handler, item, given, aggregate.id, overtaken)
                    steps[aggregate.id].append(Step(cause, decide))
        try:
            await self._engine.apply(kind, steps, read={item.id: item for item in ready})
        finally:
            self._begin_outside(handler, steps.values())
        times = (step.cause.time for waiting in steps.values() for step in waiting)
        late = max(((now - time).total_seconds() for time in times), default=0.0)
        self._late = max(self._late, late)
        done = 0
        for id, waiting in steps.items():
            done += sum(step.result is not None for step in waiting)
            self._look_after(kind, id, waiting, now, was_overtaken=id in overtaken)
        DUE_FIRED.labels(self._engine.service, kind.COLLECTION).inc(done)
        return done

    def _begin_outside(self, handler: DueHandler[Any], steps: Iterable[Sequence[Step]]) -> None:
        """Begin what was leased, whatever went wrong since: it would wait for its lease to end."""
        for waiting in steps:
            result = _result(waiting)
            if handler.then is not None and result is not None:
                self.begin(handler.then, result)

    def _look_after(
        self,
        kind: type[Aggregate],
        id: str,
        steps: Sequence[Step],
        now: datetime,
        *,
        was_overtaken: bool,
    ) -> None:
        """Let rest for a while what failed, or is still there after its turn."""
        for step in steps:
            if step.failure is not None:
                self._fail(kind, id, step.failure, now)
        if _result(steps) is None and not was_overtaken:
            self._rest(kind, id, now)

    def _fail(self, kind: type[Aggregate], id: str, failure: Exception, now: datetime) -> None:
        self._rest(kind, id, now)
        DUE_FAILED.labels(self._engine.service, kind.COLLECTION).inc()
        log.error(
            "due.failed",
            service=self._engine.service,
            collection=kind.COLLECTION,
            aggregate=id,
            exc_info=failure,
        )

    def _rest(self, kind: type[Aggregate], id: str, now: datetime) -> None:
        self._resting[kind.COLLECTION, id] = now + RETRY_AFTER_FAILURE

    def _note_failure(self, error: Exception, **where: str) -> None:
        service = self._engine.service
        log.warning("scan.failed", service=service, reason=reason_of(error), **where)

    def _finished(self, name: Name, task: asyncio.Task[None]) -> None:
        """There is room again: go on with what had to wait for it."""
        del self._effects[task]
        self._acting.discard(name)
        if self._crowded:
            self._awake.set()

    async def _act(self, then: Then, aggregate: Aggregate) -> None:
        try:
            with tracing.continued(aggregate.traceparent):
                await then(aggregate, self._resources)
        except Exception:
            log.error(
                "effect.failed",
                service=self._engine.service,
                collection=aggregate.COLLECTION,
                aggregate=aggregate.id,
                exc_info=True,
            )


def _result(steps: Sequence[Step]) -> Aggregate | None:
    """Return the aggregate as the last of its steps that was saved left it."""
    return next((step.result for step in reversed(steps) if step.result is not None), None)


def _fire(
    handler: DueHandler[Any],
    item: Due,
    given: tuple[Any, ...],
    id: str,
    overtaken: set[str],
    aggregate: Aggregate | None,
) -> Aggregate | None:
    """Decide on a due item, unless it was settled or moved since the scan read it."""
    if aggregate is None or item not in tuple(aggregate.due()):
        overtaken.add(id)
        return None
    decided: Aggregate | None = handler.decide(aggregate, item, *given)
    return decided
