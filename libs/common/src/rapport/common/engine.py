"""The engine: load, decide, save, publish. Events, commands and due items all take this one way.

A step is one decision with its cause. Steps of the same aggregate fold, in order, into one save; a
step that fails drops only itself. A save that another writer overtook is loaded and decided again,
at most eight times. Applying a step twice changes nothing: events of another aggregate are told
apart by its sequence, commands by what the aggregate remembers, and decisions check the state.
"""

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import structlog
from prometheus_client import Histogram

from rapport.common import tracing
from rapport.common.aggregate import OUTBOX_LIMIT, Aggregate, Cause, OutboxFull
from rapport.common.clock import Clock
from rapport.common.errors import NotFound, PermanentError, TemporaryError
from rapport.common.events.codec import Message, encode, pack
from rapport.common.events.envelope import Event, EventData
from rapport.common.futures import settle
from rapport.common.handling import Then
from rapport.common.store.outbox import Relay
from rapport.common.store.port import MESSAGE_LIMIT, Change, Store
from rapport.common.telemetry import LOST_RACES, SAVE_SECONDS

A = TypeVar("A", bound=Aggregate)

ATTEMPTS: Final = 8
SUBJECTS_LIMIT: Final = 64
FOLD_LIMIT: Final = OUTBOX_LIMIT // 2
ATTRIBUTES_LIMIT: Final = 16 * 1024

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
    then: Then | None = None
    failure: Exception | None = None
    result: Aggregate | None = None
    has_emitted: bool = False

    @property
    def begins(self) -> bool:
        """Whether work outside is to begin, now that what was decided is saved."""
        return self.then is not None and self.result is not None and self.result.is_leased

    @property
    def leads_on(self) -> bool:
        """Whether something follows from what was decided: events, work, or what is due at once."""
        if self.has_emitted or self.begins:
            return True
        if self.result is None:
            return False
        due = self.result.next_due
        return due is not None and due <= self.cause.time

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
class _Fold:
    """What became of one aggregate's steps: a change to save, and steps that must wait for it."""

    steps: Sequence[Step]
    change: Change | None = None
    decided: list[Step] = field(default_factory=list)
    rest: Sequence[Step] = ()
    spoilt: bool = False


@dataclass(slots=True)
class _Saved:
    """What became of changes, by aggregate: saved, overtaken by another writer, or refused."""

    saved: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    refused: dict[str, PermanentError] = field(default_factory=dict)


@dataclass(slots=True)
class _Turn:
    """Commands on aggregates that were just read, and who waits for them to be applied."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    read: dict[str, Aggregate] = field(default_factory=dict)
    waiting: list[tuple[Step, asyncio.Future[None]]] = field(default_factory=list)


class Engine:
    """Applies steps for one service.

    Whoever carries out what falls due sets the last three: `on_saved` is told of what was saved,
    `room` tells how many aggregates of a kind may be leased now for work outside, `begin` begins
    it.
    """

    def __init__(self, service: str, store: Store, relay: Relay, clock: Clock) -> None:
        self.service = service
        self.store = store
        self.relay = relay
        self.clock = clock
        self._turns: dict[type[Aggregate], _Turn] = {}
        self._applying: set[asyncio.Task[None]] = set()
        self._doubtful: dict[type[Aggregate], set[str]] = {}
        self._meters: dict[type[Aggregate], Histogram] = {}
        self.on_saved: Callable[[Sequence[Aggregate]], None] = lambda saved: None
        self.room: Callable[[type[Aggregate]], int] = lambda kind: 0
        self.begin: Callable[[Then, Aggregate], None] = lambda then, aggregate: None

    async def apply(
        self,
        kind: type[A],
        steps: Mapping[str, Sequence[Step]],
        *,
        read: Mapping[str, A] | None = None,
    ) -> None:
        """Apply steps to the aggregates they belong to, by id; failures are left on the steps.

        `read` has the aggregates where they were just read; they are this call's from now on.
        Raises TemporaryError where the store is in trouble or a race was lost eight times.
        """
        remaining = dict(steps)
        careful: set[str] = set()
        alone: set[str] = set()
        gone: set[str] = set()
        races = 0
        while remaining:
            loaded, read = read or await self._load(kind, remaining), None
            self._nudge_doubtful()
            folds = {
                id: self._fold(
                    id, loaded.get(id), waiting, careful=id in careful, alone=id in alone
                )
                for id, waiting in remaining.items()
                if not _is_deleted(id, loaded, gone, waiting)
            }
            careful |= {id for id, fold in folds.items() if fold.spoilt}
            changes = [fold.change for fold in folds.values() if fold.change]
            try:
                outcome = await self._save(kind, changes)
            except TemporaryError:
                self._doubt(kind, changes)
                raise
            alone |= outcome.refused.keys()
            gone = {id for id in outcome.lost if id not in loaded}
            remaining = {
                id: left for id, fold in folds.items() if (left := _settle(id, fold, outcome))
            }
            if outcome.lost:
                LOST_RACES.labels(self.service, kind.COLLECTION).inc(len(outcome.lost))
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
        read: A | None = None,
    ) -> A:
        """Apply one command and return the aggregate as it is afterwards.

        `cause` identifies the command: the same one again changes nothing. `read` is the aggregate
        where it was just read; it is this call's from now on, as in `apply`. Raises what the
        decision raises, NotFound where there is nothing afterwards, TemporaryError as `apply` does.
        """
        step = Step(
            Cause(
                id=cause,
                time=at or self.clock.now(),
                exercise=exercise,
                traceparent=tracing.traceparent(),
            ),
            decide,
            remembered=True,
        )
        if read is None:
            await self.apply(kind, {id: [step]})
        else:
            await self._apply_with_others(kind, read, step)
        if step.failure is not None:
            raise step.failure
        result = step.result if isinstance(step.result, kind) else await self.store.get(kind, id)
        if result is None:
            raise NotFound(f"there is no such {kind.__name__.lower()}")
        return result

    async def _apply_with_others(self, kind: type[A], aggregate: A, step: Step) -> None:
        """Apply a command together with those that come in the same turn of the event loop."""
        if tracing.is_on():
            tracing.goes_on_with(aggregate.traceparent)  # here, where its own request is known
        loop = asyncio.get_running_loop()
        turn = self._turns.get(kind)
        if turn is None or aggregate.id in turn.steps:
            turn = self._turns[kind] = _Turn()
            task = loop.create_task(self._apply_turn(kind, turn), context=Context())
            self._applying.add(task)
            task.add_done_callback(self._applying.discard)
        turn.steps[aggregate.id] = [step]
        turn.read[aggregate.id] = aggregate
        done = loop.create_future()
        turn.waiting.append((step, done))
        await done

    async def _apply_turn(self, kind: type[Aggregate], turn: _Turn) -> None:
        """Apply a turn's commands; trouble is told to those only whose command it concerns."""
        if self._turns.get(kind) is turn:
            del self._turns[kind]
        everyone = [done for _, done in turn.waiting]
        try:
            await self.apply(kind, turn.steps, read=turn.read)
        except Exception as error:
            settle(done for step, done in turn.waiting if step.result or step.failure)
            settle(everyone, error)
        else:
            settle(everyone)
        finally:
            for done in everyone:
                done.cancel()

    async def _load(self, kind: type[A], waiting: Mapping[str, Sequence[Step]]) -> dict[str, A]:
        """Load all at once or, where one is damaged, each by itself; the steps of that one fail."""
        loaded: dict[str, A] = {}
        try:
            return await self.store.get_many(kind, list(waiting))
        except PermanentError:
            for id, steps in waiting.items():
                try:
                    loaded |= await self.store.get_many(kind, [id])
                except PermanentError as damage:
                    for step in steps:
                        step.failure = step.failure or damage
        return loaded

    def _fold(
        self,
        id: str,
        aggregate: Aggregate | None,
        steps: Sequence[Step],
        *,
        careful: bool,
        alone: bool,
    ) -> _Fold:
        """Decide one aggregate's steps in order; a failure spoils it unless copies are taken.

        A long story takes several saves: once many messages wait, or a decision finds no room for
        its own behind them, the rest comes after them. `alone`, each step gets a save of its own.
        """
        fold = _Fold(steps)
        messages: list[tuple[str, Message]] = []
        for place, step in enumerate(steps):
            if len(messages) >= FOLD_LIMIT or (alone and fold.decided):
                fold.rest = steps[place:]
                break
            if step.failure is not None or (aggregate is not None and step.is_done(aggregate)):
                continue
            working = aggregate.model_copy(deep=True) if careful and aggregate else aggregate
            try:
                after = self._decide(id, working, step, messages)
            except TemporaryError:
                raise
            except Exception as failure:
                no_room = isinstance(failure, OutboxFull) and bool(messages)
                step.failure = None if no_room else failure
                if aggregate is not None and not careful:
                    return _Fold(steps, spoilt=True)
                if no_room:
                    fold.rest = steps[place:]
                    break
                continue
            if after is not None:
                aggregate = after
                fold.decided.append(step)
        if aggregate is not None and fold.decided:
            fold.change = Change(aggregate, messages)
        return fold

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
        if aggregate is not None and step.remembered and tracing.is_on():
            tracing.goes_on_with(aggregate.traceparent)
        after = step.decide(aggregate)
        if after is None:
            return None
        if after.id != id:
            raise PermanentError(f"a decision on {id} returned {after.id}")
        if aggregate is None:
            after.correlation = cause.correlationid or cause.id
            after.exercise = cause.exercise
            after.historical = bool(cause.historical)
        if cause.traceparent is not None:
            after.traceparent = cause.traceparent
        step.mark(after)
        emitted = after.collect(cause, self.service, first_position=len(messages))
        encoded = [(event.id, encode(event, topic)) for topic, event in emitted]
        for _, message in encoded:
            _refuse_size(message)
        messages += encoded
        step.has_emitted = bool(encoded)
        return after

    async def _save(self, kind: type[Aggregate], changes: Sequence[Change]) -> _Saved:
        """Save all at once; where one can never be stored, each by itself."""
        outcome = _Saved()
        if not changes:
            return outcome
        try:
            with self._save_seconds(kind).time():
                stored = await self.store.save_many(changes)
            self._note(changes, stored, outcome)
        except PermanentError:
            for change in changes:
                try:
                    self._note([change], await self.store.save_many([change]), outcome)
                except PermanentError as refusal:
                    outcome.refused[change.aggregate.id] = refusal
        return outcome

    def _doubt(self, kind: type[Aggregate], changes: Sequence[Change]) -> None:
        """Remember what may have been saved although the store was in trouble.

        Whoever repeats such a decision finds it made, and would leave its messages to the sweeper.
        """
        with_messages = [change.aggregate.id for change in changes if change.messages]
        self._doubtful.setdefault(kind, set()).update(with_messages)

    def _nudge_doubtful(self) -> None:
        """Have the relay look for that, now that the store answers again."""
        while self._doubtful:
            self.relay.nudge(*self._doubtful.popitem())

    def _save_seconds(self, kind: type[Aggregate]) -> Histogram:
        """Return what measures such saves; looking a metric up by its labels takes longer."""
        meter = self._meters.get(kind)
        if meter is None:
            meter = self._meters[kind] = SAVE_SECONDS.labels(self.service, kind.COLLECTION)
        return meter

    def _note(self, changes: Sequence[Change], stored: Sequence[bool], outcome: _Saved) -> None:
        """Keep what was saved, and let the relay and the scheduler know."""
        saved = [change for change, ok in zip(changes, stored, strict=True) if ok]
        outcome.saved |= {change.aggregate.id for change in saved}
        outcome.lost |= {change.aggregate.id for change in changes} - outcome.saved
        with_messages = [change.aggregate for change in saved if change.messages]
        if with_messages:
            self.relay.nudge(type(with_messages[0]), [item.id for item in with_messages])
        self.on_saved([change.aggregate for change in saved])


def _settle(id: str, fold: _Fold, outcome: _Saved) -> Sequence[Step]:
    """Tell a fold's steps what came of them; return those that are yet to be decided."""
    if fold.spoilt or id in outcome.lost or (id in outcome.refused and len(fold.decided) > 1):
        return fold.steps
    for step in fold.decided:
        if id in outcome.refused:
            step.failure = outcome.refused[id]
        elif fold.change is not None:
            step.result = fold.change.aggregate
    return fold.rest


def _is_deleted(
    id: str, loaded: Mapping[str, Aggregate], gone: Container[str], steps: Sequence[Step]
) -> bool:
    """Tell whether an aggregate that could not be created is not there either: it was deleted."""
    if id in loaded or id not in gone:
        return False
    for step in steps:
        step.failure = step.failure or PermanentError("it was deleted and stays so")
    return True


def _refuse_size(message: Message) -> None:
    """Raise PermanentError for what would be stuck in the outbox: no bus would take it."""
    if len(message.value or b"") > MESSAGE_LIMIT:
        raise PermanentError(f"an event is over {MESSAGE_LIMIT // 1024} KiB")
    if len(pack(message.headers).values) > ATTRIBUTES_LIMIT:
        raise PermanentError(f"an event's attributes are over {ATTRIBUTES_LIMIT // 1024} KiB")


def _refuse_mixing(aggregate: Aggregate, cause: Cause) -> None:
    if cause.exercise != aggregate.exercise:
        raise PermanentError("a drill's event met an aggregate that is not of the same drill")
