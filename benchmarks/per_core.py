"""What the whole line makes of a core, against the sum of what its stages cost by themselves.

The system is a process of its own, as `rapport up` has it. It takes complaints in, more than it can
work off meanwhile, until each has its case and its owner has been told; what counts is the
processor time that it used, of all its threads. The services' own functions (what intake makes of a
submission, decisions, facts, and what they prepare for a batch) have their part of it, measured
where they are called, and the rest is done again by bare loops: a bare route of Starlette takes the
complaints in; each record is decoded once for each service that is concerned, each message that
followed gets its id, is encoded and appended to a table, 500 at once; each version of an aggregate
and each fact is written as the row that it is, in a table with the same indexes, 200 at once, and
each version but the first is read before. No outboxes, no groups, no retries, nobody waits for
anybody.
"""

import asyncio
import multiprocessing
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time, thread_time
from typing import Any, Final

import httpx2
import uvloop

from benchmarks.bus import Table as Log
from benchmarks.harness import Row, compare_async, print_table
from benchmarks.intake import bare_starlette
from benchmarks.open_loop import offer
from benchmarks.stored import complaints, installation, request, set_up
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.events.codec import Message, Record, decode, encode, event_type
from rapport.common.events.envelope import Event
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import FEEDBACK, TOPICS
from rapport.common.handling import Declared, DueHandler, EventHandler, FactHandler, Prepare
from rapport.common.runtime import Service
from rapport.common.serving import listening, run_on_loop
from rapport.common.store.sqlite import SqliteStore
from rapport.common.store.sqlite.store import CACHE_KIB
from rapport.common.store.sqlite.table import Table
from rapport.common.store.sqlite.worker import insert_many
from rapport.common.telemetry import configure_logs
from rapport.intake import domain as intake
from rapport.standalone.system import SERVICES, System

ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))
COMPLAINTS: Final = int(os.environ.get("COMPLAINTS", "1000"))
PER_SECOND: Final = float(os.environ.get("PER_SECOND", "2000"))
CONNECTIONS: Final = 64
AT_ONCE: Final = 200
PAUSE: Final = 0.05

SAME_DURABILITY: Final = ("journal_mode = WAL", "synchronous = FULL", f"cache_size = -{CACHE_KIB}")

Quiet = Callable[[], Any]
Served = AbstractAsyncContextManager[tuple[int, str, Quiet]]


class Own:
    """Counts the processor time, in seconds, that the services' own functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, service: Service) -> Service:
        """Return a service of which decisions, facts and what is prepared for them are counted."""
        return replace(service, declared=[self._timed(item) for item in service.declared])

    def _timed(self, declared: Declared) -> Declared:
        match declared:
            case EventHandler() | DueHandler():
                prepare = declared.prepare and self._prepared(declared.prepare)
                return replace(declared, decide=self.counted(declared.decide), prepare=prepare)
            case FactHandler():
                facts, prepare = declared.facts, declared.prepare
                counted = self.counted(lambda *given: list(facts(*given)))
                return replace(declared, facts=counted, prepare=prepare and self._prepared(prepare))
        return declared

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is counted."""

        def counted(*arguments: Any) -> Any:
            began = thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += thread_time() - began

        return counted

    def _prepared(self, prepare: Prepare) -> Prepare:
        async def counted(*arguments: Any) -> Any:
            return await _Steps(self, prepare(*arguments).__await__())

        return counted


class _Steps:
    """Something awaited, each step of which is counted; what others do meanwhile is not."""

    def __init__(self, own: Own, steps: Generator[Any, Any, Any]) -> None:
        self._next = own.counted(steps.send)

    def __await__(self) -> Generator[Any, Any, Any]:
        waited = None
        while True:
            try:
                asked = self._next(waited)
            except StopIteration as done:
                return done.value
            waited = yield asked


OWN: Final = Own()


@asynccontextmanager
async def whole(folder: Path) -> AsyncIterator[tuple[int, str, Quiet]]:
    """The system; gives its port, a token, and what waits until nothing is on its way."""
    SERVICES.update({name: OWN.timed(service) for name, service in SERVICES.items()})
    setattr(intake, "admit", OWN.counted(intake.admit))  # noqa: B010 (for mypy)
    async with installation(folder) as up:
        async with httpx2.AsyncClient(base_url=up.url) as http:
            await set_up(up, http)
        yield int(up.url.rpartition(":")[2]), up.token("shop", "publisher"), lambda: _quiet(up)


@asynccontextmanager
async def bare_route(folder: Path) -> AsyncIterator[tuple[int, str, Quiet]]:
    """The bare route, which is done when it has answered."""
    async with bare_starlette(folder) as app, listening(app, "127.0.0.1", 0) as port:
        yield port, "none", lambda: asyncio.sleep(0)


async def _quiet(up: System) -> None:
    while True:
        if await up.quiet():
            return
        await asyncio.sleep(PAUSE)


def serve(served: Callable[[Path], Served], folder: str, parent: Connection) -> None:
    """Serve; tell, whenever asked and nothing is on its way, the processor time used so far.

    Tells how much of it the services' own functions took, too.
    """
    configure_logs("ERROR")

    async def serving() -> None:
        async with served(Path(folder)) as (port, token, quiet):
            parent.send((port, token))
            while await asyncio.to_thread(parent.recv):
                await quiet()
                parent.send((process_time(), OWN.seconds))

    run_on_loop(serving())


class Server:
    """A process that serves one of the two."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._port, self._token = pipe.recv()
        self._complaints = complaints("core")

    async def seconds(self) -> tuple[float, float]:
        """Send complaints; return the processor time that all of what follows took, for each.

        The second is what the services' own functions took of it.
        """
        sent = [request(self._token, item) for item in islice(self._complaints, COMPLAINTS)]
        before, decided_before = await self._used()
        answers = await offer(self._port, sent, PER_SECOND, COMPLAINTS / PER_SECOND, CONNECTIONS)
        assert answers.seconds.keys() == {202}, answers.seconds.keys()
        used, decided = await self._used()
        number = len(answers.seconds[202])
        return (used - before) / number, (decided - decided_before) / number

    async def _used(self) -> tuple[float, float]:
        self._pipe.send(True)
        used, decided = await asyncio.to_thread(self._pipe.recv)
        return used, decided


@contextmanager
def server(served: Callable[[Path], Served], folder: Path) -> Iterator[Server]:
    """Run one of the two in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=serve, args=(served, str(folder), theirs), daemon=True)
    process.start()
    yield Server(ours)
    ours.send(False)
    process.join()


class Done:
    """All that an installation has done, and for how many `complaints` it was."""

    def __init__(self, records: Sequence[Record], stored: dict[Table, list[Any]]) -> None:
        self._records = records
        self._stored = stored
        self.complaints = 0
        self._followed: list[tuple[Event[Any], str]] = []
        for record in records:
            event = decode(record)
            if isinstance(event.data, FeedbackReceived):
                self.complaints += 1
            else:
                self._followed.append((event, record.topic))
        self._kinds: list[set[str]] = []
        for service in SERVICES.values():
            on = {handler.event.TYPE for handler in service.only(EventHandler)}
            facts = [event.TYPE for fact in service.only(FactHandler) for event in fact.events]
            self._kinds.append(on.union(facts))

    @classmethod
    async def of(cls, folder: Path) -> "Done":
        """Read it from the log and the stores, with which nobody works."""
        bus = EmbeddedBus(folder / "bus.db")
        await bus.start()
        ends = await bus.ends(list(TOPICS))
        before = dict.fromkeys(ends, -1)
        records = [
            record async for some in bus.tail(list(TOPICS), before, until=ends) for record in some
        ]
        await bus.stop()
        stored = {}
        for name, service in SERVICES.items():
            store = SqliteStore(folder / f"{name}.db", service.kinds)
            await store.start()
            for kind in service.kinds:
                stored[Table(kind)] = await _all(store, kind)
            await store.stop()
        return cls(records, stored)

    def stages(self, folder: Path) -> dict[str, float]:
        """Do it again, stage by stage; return the processor time of each, per complaint."""
        stages: dict[str, Callable[[Path], None]] = {
            "decode": self._decode,
            "id and encode": self._encode,
            "append": self._append,
            "store": self._store,
        }
        found = {}
        for name, work in stages.items():
            began = process_time()
            work(folder)
            found[name] = (process_time() - began) / self.complaints
        return found

    def _decode(self, folder: Path) -> None:
        for kinds in self._kinds:
            for record in self._records:
                if event_type(record.headers) in kinds:
                    decode(record)

    def _encode(self, folder: Path) -> None:
        for event, topic in self._followed:
            derived_id(event.id, "bench", event.type, event.subject, "followed")
            encode(event, topic)

    def _append(self, folder: Path) -> None:
        with closing(Log(folder / "log.db")) as log:
            log.append(
                [Message(record.topic, *record[4:]) for record in self._records if _follows(record)]
            )

    def _store(self, folder: Path) -> None:
        with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as connection:
            for pragma in SAME_DURABILITY:
                connection.execute(f"PRAGMA {pragma}")
            for table, items in self._stored.items():
                table.prepare(connection)
                for first in range(0, len(items), AT_ONCE):
                    _write(connection, table, items[first : first + AT_ONCE])


def _follows(record: Record) -> bool:
    """Tell whether a record is not one that the bare route appends."""
    return record.topic != FEEDBACK.name


def _write(connection: sqlite3.Connection, table: Table, items: Sequence[Any]) -> None:
    """Write every version of `items`, and read each that is not the last before."""
    left = list(items)
    version = 1
    while left:
        connection.execute("BEGIN IMMEDIATE")
        rows = [table.row(item) for item in left]
        changed = table.looked_by if table.is_aggregate else ()
        then = table.upsert(changed) if table.is_aggregate else "ON CONFLICT DO NOTHING"
        insert_many(connection, table.into, rows, then)
        connection.execute("COMMIT")
        left = [item for item in left if getattr(item, "version", 1) > version]
        for item in left:
            query = f"SELECT {table.found} FROM {table.name} WHERE id = ?"
            table.read(connection.execute(query, [item.id]).fetchone())
        version += 1


async def _all(store: SqliteStore, kind: type[Any]) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = await store.find(kind, limit=1_000, cursor=cursor)
        found += page.items
        cursor = page.next
        if cursor is None:
            return found


async def _run(folder: Path) -> list[Row]:
    with server(whole, folder / "sample") as sample:
        await sample.seconds()
    done = await Done.of(folder / "sample")
    stages: list[dict[str, float]] = []
    own: list[float] = []
    decided: list[float] = []
    with server(whole, folder / "whole") as ours, server(bare_route, folder) as bare:

        async def line() -> float:
            used, of_it = await ours.seconds()
            own.append(used)
            decided.append(of_it)
            return 1 / used

        async def loops() -> float:
            with TemporaryDirectory(dir=folder) as own_folder:
                accept, _ = await bare.seconds()
                found = {"accept": accept, "decide": decided[-1]} | done.stages(Path(own_folder))
            stages.append(found)
            return 1 / sum(found.values())

        row = await compare_async(
            "whole line, complaints per second and core",
            "the sum of its stages' bare costs",
            line,
            loops,
            rounds=ROUNDS,
            at_least=0.6,
            meaning="the share of the system's processor time that the work itself needs",
        )
    told = ", ".join(
        f"{name} {median([found[name] for found in stages]) * 1e6:.0f}" for name in stages[0]
    )
    print(f"whole line: {median(own) * 1e6:.0f} µs of a core per complaint; bare, in µs: {told}")
    return [row]


def run() -> list[Row]:
    """Return the row of the report, and print what each stage costs by itself."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "whole").mkdir()
        (Path(folder) / "sample").mkdir()
        return uvloop.run(_run(Path(folder)))


if __name__ == "__main__":
    print_table(run())
