"""SQLite beside an event loop: what is quick is done on the loop, what may take long in threads.

To hand a statement of some microseconds to a thread, and to get the interpreter back from it, costs
many times what the statement does. Threads, with connections of their own, are for what has no
bound (scans and counts) and for a commit, which waits for the disk.

Writes that wait together become one transaction and so one fsync (group commit); their callers hear
of it once that is durable. A write that fails for a reason of its own fails alone: the others are
carried out without it.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from queue import SimpleQueue
from sqlite3 import Connection
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.futures import tell

T = TypeVar("T")

GROUP: Final = 256
BUSY_SECONDS: Final = 5.0
BUSY_PAUSE: Final = 0.01

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


class _Job(NamedTuple):
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]


class Worker:
    """Runs jobs, plain functions of a connection, in threads that own one each."""

    def __init__(self, name: str, connections: Sequence[Connection]) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(
                target=self._run, args=(connection,), name=f"{name}-{number}", daemon=True
            )
            for number, connection in enumerate(connections)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Have `work` run; the future has what it returns or raises, in the port's words."""
        if not self._threads:
            raise TemporaryError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return future

    async def stop(self) -> None:
        """Finish the jobs that were asked for and close the connections."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    def _run(self, connection: Connection) -> None:
        with closing(connection):
            while job := self._jobs.get():
                result, failure = None, None
                try:
                    result = job.work(connection)
                except Exception as error:
                    failure = translated(error)
                self._loop.call_soon_threadsafe(tell, job.future, result, failure)


class Writer:
    """Writes through one connection, group by group; `commits` is where it waits for the disk.

    Without one, for a database in memory, a commit is as quick as anything else.
    """

    def __init__(self, connection: Connection, commits: Worker | None) -> None:
        self._connection = connection
        self._commits = commits
        self._waiting: deque[_Job] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._is_open = True
        connection.execute("PRAGMA busy_timeout = 0")  # `_begin` waits, and lets others go on

    def write(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run `work`, maybe twice, in a transaction; the future is done when that is durable."""
        if not self._is_open:
            raise TemporaryError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(work, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="write")
        return future

    async def stop(self) -> None:
        """Refuse what comes from now on, and carry out all that came before."""
        self._is_open = False
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                number = min(GROUP, len(self._waiting))
                await self._write([self._waiting.popleft() for _ in range(number)])
        finally:
            self._writing = None

    async def _write(self, jobs: Sequence[_Job]) -> None:
        try:
            await self._begin()
            results = [job.work(self._connection) for job in jobs]
            await self._commit()
        except Exception as error:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            told = translated(error)
            if len(jobs) == 1 or isinstance(told, TemporaryError):
                for job in jobs:
                    tell(job.future, None, told)
            else:
                for job in jobs:
                    await self._write([job])
        else:
            for job, result in zip(jobs, results, strict=True):
                tell(job.future, result, None)

    async def _begin(self) -> None:
        """Begin; wait for another process that writes without holding up the loop."""
        until = monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                    raise
                await asyncio.sleep(BUSY_PAUSE)
            else:
                return

    async def _commit(self) -> None:
        if self._commits is None:
            self._connection.execute("COMMIT")
        else:
            await self._commits.run(_commit)


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
    """Insert `rows`, in a transaction: `into` has table and columns, `then` follows the values."""
    if rows:
        places = ",".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {into} VALUES ({places}) {then}", rows)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block writes, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.rollback()
        raise


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def _commit(connection: Connection) -> None:
    connection.execute("COMMIT")
