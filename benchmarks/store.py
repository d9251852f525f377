"""The SQLite store against plain SQL on the same disk, and against itself with little stored.

The first baseline is what any program would write: the same documents and messages, `executemany`,
one transaction, `synchronous=FULL`, one index (the primary key). Ours also compares and swaps,
packs each message's headers and keeps nine indexes, which is three quarters of its time where the
disk is quick. The second baseline is our own rate with 10,000 stored.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import ClassVar, Final

from benchmarks.harness import Row, compare_async, print_table
from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.codec import Message
from rapport.common.events.envelope import Instant
from rapport.common.events.ids import random_id
from rapport.common.store import Change, Store
from rapport.common.store.sqlite import SqliteStore

BATCH: Final = 500
MESSAGES: Final = 3
FEW: Final = 10_000
MANY: Final = 200_000
RECENT: Final = 5_000
SEED: Final = 20_261_122

_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_HEADERS: Final = tuple((f"ce_attribute{number}", b"x" * 24) for number in range(12))
_VALUE: Final = b"x" * 600


class Ticket(Aggregate):
    """Like a case: two kilobytes of document, a handful of indexes, a clock."""

    COLLECTION: ClassVar[str] = "tickets"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("state",),
        ("owner", "state"),
        ("thread",),
        ("product", "opened_at"),
        ("severity",),
    )
    ORDER: ClassVar[str] = "opened_at"

    state: str = "open"
    owner: str
    thread: str
    product: str
    severity: int
    opened_at: Instant
    wakes_at: Instant
    text: str

    def due(self) -> Iterable[Due]:
        """Name the ticket's clock."""
        return (Due("clock", self.wakes_at),)


class Desk:
    """A store with many tickets; its methods return how many tickets per second they did."""

    def __init__(self, store: Store, batch: int = BATCH) -> None:
        self._random = Random(SEED)
        self._store = store
        self._batch = batch
        self._ids: list[str] = []

    async def open(self, stored: int) -> None:
        """Start, and store that many tickets."""
        await self._store.start()
        while len(self._ids) < stored:
            await self._store.save_many([Change(ticket) for ticket in self.tickets()])

    async def close(self) -> None:
        """Stop the store."""
        await self._store.stop()

    def tickets(self) -> list[Ticket]:
        """Return a batch of new tickets."""
        return [self._ticket() for _ in range(self._batch)]

    def owner(self) -> str:
        """Return somebody who may own a ticket."""
        return f"person-{self._random.randrange(100)}"

    async def create(self) -> float:
        """Save new tickets with their messages."""
        return await self._save([_change(ticket) for ticket in self.tickets()])

    async def update(self) -> float:
        """Save tickets of late that have been given to somebody else."""
        recent = self._random.sample(self._ids[-RECENT:], self._batch)
        found = await self._store.get_many(Ticket, recent)
        for ticket in found.values():
            ticket.owner = self.owner()
            ticket.wakes_at += timedelta(hours=1)
        return await self._save([_change(ticket) for ticket in found.values()])

    async def get(self) -> float:
        """Load tickets of any age."""
        ids = self._random.sample(self._ids, self._batch)
        began = perf_counter()
        await self._store.get_many(Ticket, ids)
        return self._batch / (perf_counter() - began)

    async def _save(self, changes: list[Change]) -> float:
        began = perf_counter()
        assert all(await self._store.save_many(changes))
        seconds = perf_counter() - began
        published = {item.aggregate.id: [event for event, _ in item.messages] for item in changes}
        await self._store.clear_outboxes(Ticket, published)
        return self._batch / seconds

    def _ticket(self) -> Ticket:
        opened_at = _BEGINNING + timedelta(seconds=len(self._ids))
        self._ids.append(random_id())
        return Ticket(
            id=self._ids[-1],
            owner=self.owner(),
            thread=random_id(),
            product=f"product-{self._random.randrange(200)}",
            severity=self._random.randrange(4),
            opened_at=opened_at,
            wakes_at=opened_at + timedelta(days=1),
            text="a word " * 250,
        )


class PlainSql:
    """The baseline: the same rows without any of it."""

    def __init__(self, path: Path, desk: Desk) -> None:
        self._desk = desk
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE ticket (id TEXT PRIMARY KEY, document TEXT)")
        self._connection.execute("CREATE TABLE message (id TEXT, headers BLOB, value BLOB)")

    def create(self) -> float:
        """Insert new tickets with their messages."""
        tickets = self._desk.tickets()
        headers = b"".join(value for _, value in _HEADERS)
        began = perf_counter()
        messages = [(ticket.id, headers, _VALUE) for ticket in tickets for _ in range(MESSAGES)]
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO ticket VALUES (?, ?)",
            [(ticket.id, ticket.model_dump_json()) for ticket in tickets],
        )
        self._connection.executemany("INSERT INTO message VALUES (?, ?, ?)", messages)
        self._connection.execute("COMMIT")
        return BATCH / (perf_counter() - began)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def run() -> list[Row]:
    """Measure everything and return the lines of the report."""
    with TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> list[Row]:
    async with AsyncExitStack() as opened:
        few = await opened.enter_async_context(_desk(folder / "few.db", FEW))
        many = await opened.enter_async_context(_desk(folder / "many.db", MANY))
        plain = opened.enter_context(closing(PlainSql(folder / "plain.db", few)))
        grown = f"{FEW:,} stored"
        return [
            await compare_async(
                f"save {BATCH} new, {MESSAGES} messages each",
                "executemany, nothing else",
                few.create,
                plain.create,
                at_least=0.25,
            ),
            await compare_async(
                f"the same, {MANY:,} stored", grown, many.create, few.create, at_least=0.7
            ),
            await compare_async(
                f"change {BATCH}, {MANY:,} stored", grown, many.update, few.update, at_least=0.7
            ),
            await compare_async(
                f"get {BATCH}, {MANY:,} stored", grown, many.get, few.get, at_least=0.6
            ),
        ]


@asynccontextmanager
async def _desk(path: Path, stored: int) -> AsyncIterator[Desk]:
    desk = Desk(SqliteStore(path, [Ticket]))
    await desk.open(stored)
    try:
        yield desk
    finally:
        await desk.close()


def _change(ticket: Ticket) -> Change:
    messages = [Message("tickets", ticket.id, _VALUE, _HEADERS) for _ in range(MESSAGES)]
    return Change(ticket, [(random_id(), message) for message in messages])


def main() -> None:
    print_table(run())


if __name__ == "__main__":
    main()
