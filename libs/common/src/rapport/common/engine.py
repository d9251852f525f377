"""The engine: load, decide, save, publish. Events, commands and due items all take this one way.

A step is one decision with its cause. Steps of the same aggregate fold, in order, into one save; a
step that fails drops only itself. A save that another writer overtook is loaded and decided again,
at most eight times. Applying a step twice changes nothing: events of another aggregate are told
apart by its sequence, commands by what the aggregate remembers, and decisions check the state.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import structlog

from rapport.common.aggregate import Aggregate, Cause
from rapport.common.clock import Clock
from rapport.common.errors import NotFound, PermanentError, TemporaryError
from rapport.common.events.codec import Message, encode
from rapport.common.events.envelope import Event, EventData
from rapport.common.store.outbox import Relay
from rapport.common.store.port import Change, Store
from rapport.common.telemetry import LOST_RACES

A = TypeVar("A", bound=Aggregate)

ATTEMPTS: Final = 8
SUBJECTS_LIMIT: Final = 64

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Step:
    """One decision on one aggregate; after the fold it tells what came of it.

    A command is `remembered` by its aggregate. A due item need not be: it is there until it is
    done.
    """

    cause: Cause
    decide: Callable[[Any], Aggregate | None]
    event: Event[EventData] | None = None
    remembered: bool = False
    failure: Exception | None = None
    result: Aggregate | None = None

    def is_done(self, aggregate: Aggregate) -> bool:
        """Tell whether the aggregate shows that this step was applied before."""
        if self.event is None:
            return self.remembered and aggregate.has_seen(self.cause.id)
        last = aggregate.sequences.get(self.event.subject)
        return (
            last is not None
            and self.event.redrive is None
            and self.event.sequence is not None
            and self.event.sequence <= last
        )

    def mark(self, aggregate: Aggregate) -> None:
        """Leave on the aggregate what `is_done` looks for."""
        if self.remembered:
            aggregate.remember(self.cause.id)
        elif self.event is None:
            return
        elif self.event.sequence is not None and self.event.subject != aggregate.id:
            sequences = aggregate.sequences
            sequences[self.event.subject] = max(
                self.event.sequence, sequences.pop(self.event.subject, "")
            )
            if len(sequences) > SUBJECTS_LIMIT:
                del sequences[next(iter(sequences))]


@dataclass(slots=True)
class _Folded:
    change: Change | None = None
    spoilt: bool = False
    saved: list[Step] = field(default_factory=list)


class Engine:
    """Applies steps for one service."""

    def __init__(self, service: str, store: Store, relay: Relay, clock: Clock) -> None:
        self.service = service
        self.store = store
        self.relay = relay
        self.clock = clock
        self.on_saved: Callable[[Sequence[Aggregate]], None] = lambda saved: None

    async def apply(self, kind: type[A], steps: Mapping[str, Sequence[Step]]) -> None:
        """Apply steps to the aggregates they belong to, by id; failures are left on the steps.

        Raises TemporaryError where the store is in trouble or a race was lost eight times.
        """
        remaining = dict(steps)
        careful: set[str] = set()
        races = 0
        while remaining:
            loaded = await self.store.get_many(kind, list(remaining))
            folded = {
                id: self._fold(id, loaded.get(id), waiting, careful=id in careful)
                for id, waiting in remaining.items()
            }
            careful |= {id for id, fold in folded.items() if fold.spoilt}
            changes = {id: fold.change for id, fold in folded.items() if fold.change}
            saved = await self._save(list(changes.values()))
            lost = changes.keys() - saved
            for id in saved:
                for step in folded[id].saved:
                    step.result = changes[id].aggregate
            remaining = {
                id: waiting for id, waiting in remaining.items() if id in lost or folded[id].spoilt
            }
            if lost:
                LOST_RACES.labels(self.service, kind.COLLECTION).inc(len(lost))
                races += 1
                if races == ATTEMPTS:
                    raise TemporaryError(f"lost {ATTEMPTS} races for {kind.COLLECTION}", delay=0.1)

    async def change(
        self,
        kind: type[A],
        id: str,
        decide: Callable[[A | None], A | None],
        *,
        cause: str,
        at: datetime | None = None,
        exercise: str | None = None,
    ) -> A:
        """Apply one command and return the aggregate as it is afterwards.

        `cause` identifies the command: the same one again changes nothing. Raises what the decision
        raises, NotFound where there is nothing afterwards, TemporaryError as `apply` does.
        """
        step = Step(
            Cause(id=cause, time=at or self.clock.now(), exercise=exercise),
            decide,
            remembered=True,
        )
        await self.apply(kind, {id: [step]})
        if step.failure is not None:
            raise step.failure
        result = step.result if isinstance(step.result, kind) else await self.store.get(kind, id)
        if result is None:
            raise NotFound(f"there is no such {kind.__name__.lower()}")
        return result

    def _fold(
        self, id: str, aggregate: Aggregate | None, steps: Iterable[Step], *, careful: bool
    ) -> _Folded:
        """Decide one aggregate's steps in order; a failure spoils it unless copies are taken."""
        folded = _Folded()
        messages: list[tuple[str, Message]] = []
        for step in steps:
            if step.failure is not None or (aggregate is not None and step.is_done(aggregate)):
                continue
            working = aggregate.model_copy(deep=True) if careful and aggregate else aggregate
            try:
                after = self._decide(id, working, step, messages)
            except TemporaryError:
                raise
            except Exception as failure:
                step.failure = failure
                if careful or aggregate is None:
                    continue
                return _Folded(spoilt=True)
            if after is not None:
                aggregate = after
                folded.saved.append(step)
        if aggregate is not None and folded.saved:
            folded.change = Change(aggregate, messages)
        return folded

    def _decide(
        self,
        id: str,
        aggregate: Aggregate | None,
        step: Step,
        messages: list[tuple[str, Message]],
    ) -> Aggregate | None:
        cause = step.cause
        if aggregate is not None and step.event is not None:
            _refuse_mixing(aggregate, cause)
        after = step.decide(aggregate)
        if after is None:
            return None
        if after.id != id:
            raise PermanentError(f"a decision on {id} returned {after.id}")
        if aggregate is None:
            after.correlation = cause.correlationid or cause.id
            after.exercise = cause.exercise
            after.historical = bool(cause.historical)
        step.mark(after)
        emitted = after.collect(cause, self.service, first_position=len(messages))
        messages += [(event.id, encode(event, topic)) for topic, event in emitted]
        return after

    async def _save(self, changes: Sequence[Change]) -> set[str]:
        if not changes:
            return set()
        outcome = await self.store.save_many(changes)
        saved = [change for change, ok in zip(changes, outcome, strict=True) if ok]
        with_messages = [change.aggregate for change in saved if change.messages]
        if with_messages:
            self.relay.nudge(type(with_messages[0]), [item.id for item in with_messages])
        self.on_saved([change.aggregate for change in saved])
        return {change.aggregate.id for change in saved}


def _refuse_mixing(aggregate: Aggregate, cause: Cause) -> None:
    if cause.exercise != aggregate.exercise:
        raise PermanentError("a drill's event met an aggregate that is not of the same drill")
