"""Threads that own a connection, so that SQLite's work is done off the event loop.

A worker runs jobs: plain functions of a connection. Writes that wait together become one
transaction and so one fsync (group commit); their callers hear of it once that is durable. A write
that fails for a reason of its own fails alone: the others are carried out without it.

With each statement a thread gives the interpreter away and has to get it back from a busy event
loop, up to 5 ms later. Writes therefore put many rows into one statement (`insert_many`).
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from typing import Any, Final, Generic, TypeVar

from rapport.common.errors import PermanentError, TemporaryError

T = TypeVar("T")

ROWS_PER_STATEMENT: Final = 64

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TROUBLE: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Connection], T]
    writes: bool
    future: asyncio.Future[T]


_Outcome = tuple[asyncio.Future[Any], Any, Exception | None]


class Worker:
    """Runs jobs on `threads` threads, each with a connection; a thread takes up to `group` at once.

    Only a worker with one thread may write.
    """

    def __init__(
        self, name: str, connect: Callable[[], Connection], *, threads: int = 1, group: int = 1
    ) -> None:
        self._name = name
        self._connect = connect
        self._count = threads
        self._group = group
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def start(self) -> None:
        """Open the connections; raises TemporaryError or PermanentError where that fails."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._count):
            try:
                connection = await asyncio.to_thread(self._connect)
            except (sqlite3.Error, OSError) as error:
                raise translated(error) from error
            thread = threading.Thread(
                target=self._run, args=(connection,), name=f"{self._name}-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    async def stop(self) -> None:
        """Finish the jobs that were asked for and close the connections."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` and return what it returns."""
        return await self._do(work, writes=False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, maybe twice, in a transaction; return when that is durable."""
        return await self._do(work, writes=True)

    def _do(self, work: Callable[[Connection], T], *, writes: bool) -> asyncio.Future[T]:
        if not self._threads:
            raise TemporaryError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, writes, future))
        return future

    def _run(self, connection: Connection) -> None:
        with closing(connection):
            while jobs := self._take():
                for writes, together in groupby(jobs, key=lambda job: job.writes):
                    carry_out = _write if writes else _read
                    outcomes = carry_out(connection, list(together))
                    self._loop.call_soon_threadsafe(_tell, outcomes)

    def _take(self) -> list[_Job[Any]]:
        """Wait for a job and take those behind it, too; nothing means that it is time to stop."""
        jobs: list[_Job[Any]] = []
        with suppress(Empty):
            while len(jobs) < self._group:
                job = self._jobs.get(block=not jobs)
                if job is None:
                    if jobs:
                        self._jobs.put(None)
                    break
                jobs.append(job)
        return jobs


def translated(error: Exception) -> Exception:
    """Return an error of SQLite in the port's words: trouble passes, damage does not."""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in _TROUBLE or isinstance(error, OSError):
        return TemporaryError(f"the store is in trouble: {_name(error)}")
    if primary in _DAMAGED:
        return PermanentError(f"the store's file is damaged: {_name(error)}")
    return error


def insert_many(
    connection: Connection, into: str, rows: Sequence[Sequence[Any]], then: str = ""
) -> None:
    """Insert `rows` in few statements: `into` has the table and columns, `then` what follows."""
    start, size = 0, ROWS_PER_STATEMENT
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        some = rows[start : start + size]
        statement = f"INSERT INTO {into} VALUES {_places(len(some[0]), size)} {then}"
        connection.execute(statement, list(chain.from_iterable(some)))
        start += size


@cache
def _places(width: int, rows: int) -> str:
    one = f"({','.join('?' * width)})"
    return ",".join([one] * rows)


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def _read(connection: Connection, jobs: Sequence[_Job[Any]]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for job in jobs:
        try:
            outcomes.append((job.future, job.work(connection), None))
        except Exception as error:
            outcomes.append((job.future, None, translated(error)))
    return outcomes


def _write(connection: Connection, jobs: Sequence[_Job[Any]]) -> list[_Outcome]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [job.work(connection) for job in jobs]
        connection.execute("COMMIT")
    except Exception as error:
        with suppress(sqlite3.Error):
            connection.rollback()
        told = translated(error)
        if len(jobs) == 1 or isinstance(told, TemporaryError):
            return [(job.future, None, told) for job in jobs]
        return [outcome for job in jobs for outcome in _write(connection, [job])]
    return [(job.future, result, None) for job, result in zip(jobs, results, strict=True)]


def _tell(outcomes: Sequence[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
