"""The test harness for dying: one service whose process is killed at any moment and starts again.

It has no HTTP, so that its many lives begin fast.

What was published lies in partitions, one for each topic and key, and is read from there at any
pace, in any order of partitions, again and again. `die_at` names the operation on store or bus
before or after which the process is gone, as with kill -9: nothing is finished, nothing is told.
The next process finds what was stored and published by then, and reads on from what was committed.

    survivor.die_at(3)
    await survivor.read(("rapport.feedback", "c1"), 2)    # starts again where that kills it
    await survivor.finish()
    assert [case.message_count for case in await survivor.every(Case)] == [2]
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

from fastapi import APIRouter

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.bus.port import Bus
from rapport.common.clock import ManualClock
from rapport.common.events import Event, EventData, Record, decode, encode
from rapport.common.events.codec import event_type
from rapport.common.runtime import Running, Service
from rapport.common.store.port import Store
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING, VERIFIER, RecordingBus

A = TypeVar("A", bound=Aggregate | Fact)

Partition = tuple[str, str]
"""A topic and a key."""

IN_THE_STORE: Final = frozenset({"save_many", "insert_facts", "clear_outboxes"})
ON_THE_BUS: Final = frozenset({"publish"})

BOOKKEEPING: Final = frozenset({"version", "sequences", "seen", "traceparent"})
"""Fields of an aggregate that may differ where the same happened in another order."""


class Step(NamedTuple):
    """Something that happens to a reader: it reads `number` records of a partition, goes back by as
    many, scans for what is due, or is going to die at that moment from now."""

    what: Literal["read", "go_back", "scan", "die"]
    which: int
    number: int
    commits: bool


class Peril:
    """Kills the process at one of the next operations; each has a moment before and one after."""

    def __init__(self) -> None:
        self.left = 0
        self.has_struck = asyncio.Event()

    async def moment(self) -> None:
        """Go on, or stand still for ever where this is the moment of death."""
        if self.has_struck.is_set():
            await asyncio.Event().wait()
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                self.has_struck.set()
                await asyncio.Event().wait()


class _Perilous:
    """Something with operations that the process may not survive."""

    def __init__(self, inner: object, operations: frozenset[str], peril: Peril) -> None:
        self._inner = inner
        self._operations = operations
        self._peril = peril

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._in_peril(found) if name in self._operations else found

    def _in_peril(self, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(operation)
        async def perilous(*given: Any, **named: Any) -> Any:
            await self._peril.moment()
            result = await operation(*given, **named)
            await self._peril.moment()
            return result

        return perilous


class Survivor:
    """See the module's docstring. `start` before use, `stop` at the end."""

    def __init__(self, service: Service, **settings: Any) -> None:
        self.clock = ManualClock(MORNING)
        self.log = RecordingBus(self.clock)
        self.lives = 0
        self._service = replace(service, router=APIRouter())
        self._settings = service.settings.load(**settings)
        self._consumed = {topic.name for topic in service.consumes}
        self._folder = TemporaryDirectory()
        self._read = 0
        self._partitions: dict[Partition, list[Record]] = defaultdict(list)
        self._committed: dict[Partition, int] = defaultdict(int)
        self._peril = Peril()
        self.running: Running

    async def start(self) -> None:
        """Begin to live, on what the life before has left."""
        self._peril = Peril()
        self.lives += 1
        store = SqliteStore(Path(self._folder.name) / "store.db", self._service.kinds)
        self.running = Running(
            self._service,
            self._settings,
            cast("Bus", _Perilous(self.log, ON_THE_BUS, self._peril)),
            cast("Store", _Perilous(store, IN_THE_STORE, self._peril)),
            self.clock,
            VERIFIER,
        )
        await self.running.start(consume=False)

    async def stop(self) -> None:
        """End it, without a trace."""
        await self.running.stop(drain=0)
        self._folder.cleanup()

    async def moment(self) -> None:
        """Go on, or be killed here: for what a test puts in the place of the outside world."""
        await self._peril.moment()

    def die_at(self, moment: int) -> None:
        """Let the process die at that moment from now; 0 lets it live."""
        self._peril.left = moment

    async def tell(self, *events: Event[Any]) -> None:
        """Publish events of other services; clocks' travel on the first topic that is consumed."""
        first = self._service.consumes[0].name
        messages = [
            encode(event, first if event.data.TOPIC is None else event.data.TOPIC.name)
            for event in events
        ]
        await self.log.publish(messages)

    def partitions(self) -> list[Partition]:
        """Return all that there are, whether read to their ends or not."""
        for record in self.log.records[self._read :]:
            if record.topic in self._consumed:
                self._partitions[record.topic, record.key or ""].append(record)
        self._read = len(self.log.records)
        return list(self._partitions)

    def unread(self, partition: Partition) -> int:
        """Return how many records are not committed."""
        return len(self._partitions[partition]) - self._committed[partition]

    async def read(self, partition: Partition, count: int, *, commits: bool = True) -> None:
        """Handle the next records as one batch; they count as read if it lives to commit them."""
        first = self._committed[partition]
        batch = self._partitions[partition][first : first + count]
        if batch and await self._lives_through(self._handle(batch)) and commits:
            self._committed[partition] = first + len(batch)

    def rewind(self, partition: Partition, by: int) -> None:
        """Forget that the last records were read."""
        self._committed[partition] = max(0, self._committed[partition] - by)

    async def scan(self) -> None:
        """Carry out what is due."""
        await self._lives_through(self._fire())

    async def follow(self, steps: Iterable[Step]) -> None:
        """Go through some steps; `which` counts partitions, those with unread records to read."""
        for what, which, number, commits in steps:
            known = self.partitions()
            unread = [name for name in known if self.unread(name)]
            if what == "die":
                self.die_at(number)
            elif what == "scan":
                await self.scan()
            elif what == "go_back" and known:
                self.rewind(known[which % len(known)], number)
            elif what == "read" and unread:
                await self.read(unread[which % len(unread)], number, commits=commits)

    async def finish(self) -> None:
        """Survive, read everything to its end and carry out everything that is due."""
        self.die_at(0)
        while True:
            await self.scan()
            waiting = [name for name in self.partitions() if self.unread(name)]
            if not waiting:
                return
            for partition in waiting:
                await self.read(partition, 500)

    async def advance(self, **delta: float) -> None:
        """Finish, and again whenever something falls due within a timedelta's arguments."""
        until = self.clock.now() + timedelta(**delta)
        await self.finish()
        while (due := await self.running.scheduler.next_due()) is not None and due <= until:
            assert due > self.clock.now(), "what is due is not carried out"
            self.clock.move_to(due)
            await self.finish()
        self.clock.move_to(until)

    async def every(self, kind: type[A]) -> Sequence[A]:
        """Return everything of a kind that is stored, at most 1,000."""
        return (await self.running.store.find(kind, limit=1_000)).items

    async def state(
        self, *kinds: type[Aggregate | Fact], without: Iterable[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """Return what is stored of these kinds, by id, without what tells how it came about."""
        hidden = {*BOOKKEEPING, *without}
        return {
            f"{kind.__name__} {item.id}": item.model_dump(mode="json", exclude=hidden)
            for kind in kinds
            for item in await self.every(kind)
        }

    def published(self) -> list[Event[EventData]]:
        """Return each event that the service has published, once; a repeat must be the same."""
        return [event for _, event in self._published()]

    def check_sequences(self) -> None:
        """Every aggregate's events came in the order of their sequence, none twice."""
        last: dict[tuple[str, str], str] = {}
        for topic, event in self._published():
            if event.sequence is not None:
                name = topic, event.subject
                assert last.get(name, "") < event.sequence, (event.type, event.subject)
                last[name] = event.sequence

    def _published(self) -> Sequence[tuple[str, Event[EventData]]]:
        first: dict[str, tuple[Record, Event[EventData]]] = {}
        for record in self.log.records:
            if event_type(record.headers) is None:
                continue
            event = decode(record)
            if event.source == f"/rapport/{self._service.name}":
                before, _ = first.setdefault(event.id, (record, event))
                assert (before.topic, before.key) == (record.topic, record.key), event.id
                assert before.value == record.value, event.id
        return [(record.topic, event) for record, event in first.values()]

    async def _handle(self, records: Sequence[Record]) -> None:
        await self.running.pipeline.handle(records)
        await self.running.relay.idle()

    async def _fire(self) -> None:
        while await self.running.scheduler.fire(self.clock.now()):
            await self.running.scheduler.settle_effects()
        await self.running.relay.idle()

    async def _lives_through(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something; where that kills the process, start the next one and return False."""
        working = asyncio.create_task(work)
        dying = asyncio.create_task(self._peril.has_struck.wait())
        try:
            await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not self._peril.has_struck.is_set():
                await working
                return True
        finally:
            working.cancel()
            dying.cancel()
            await asyncio.gather(working, dying, return_exceptions=True)
        await self.running.stop(drain=0)
        await self.start()
        return False


def happening(data: EventData, id: str, **attributes: Any) -> Event[EventData]:
    """Return an event of another service, known by `id`; it happened when stories begin."""
    key = getattr(data, data.KEY) if data.KEY else id
    event = Event(
        id=id,
        source="/test",
        type=data.TYPE,
        subject=key,
        time=MORNING,
        data=data,
        partitionkey=key,
        correlationid=id,
    )
    return event._replace(**attributes)
