"""The MongoDB store against its own driver: the same documents, written without an outbox.

The baseline is what any program would write with `bulk_write`: documents of the same content under
the same indexes, as durable as ours; a change replaces the version that it was read as. Ours also
appends three messages to each document, tells which item lost its race, and keeps the index of what
waits. The server is the one that RAPPORT_TEST_MONGODB names, else one of our own for the time.
"""

import asyncio
from time import perf_counter
from typing import Any, ClassVar, Final

from pymongo import AsyncMongoClient, InsertOne, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.write_concern import WriteConcern

from benchmarks import real_servers
from benchmarks.harness import Row, compare_async, print_table
from benchmarks.store import MESSAGES, Desk, Ticket
from rapport.common.events.ids import random_id
from rapport.common.store.fields import microseconds
from rapport.common.store.mongo import MongoStore

BATCH: Final = 200
STORED: Final = 2_000

_FIELDS: Final = ("state", "owner", "thread", "product", "severity")


class Copy(Ticket):
    """The same tickets in another collection, with the same indexes: the baseline's."""

    COLLECTION: ClassVar[str] = "copies"


class PlainDriver:
    """The baseline; its methods return how many tickets per second they did."""

    def __init__(self, collection: AsyncCollection[dict[str, Any]], desk: Desk) -> None:
        self._collection = collection
        self._desk = desk
        self._tickets: list[Ticket] = []

    async def create(self) -> float:
        """Insert new tickets."""
        self._tickets = self._desk.tickets()
        began = perf_counter()
        await self._write([InsertOne(_document(ticket)) for ticket in self._tickets])
        return BATCH / (perf_counter() - began)

    async def update(self) -> float:
        """Replace tickets that have been given to somebody else."""
        for ticket in self._tickets:
            ticket.owner = self._desk.owner()
        began = perf_counter()
        for ticket in self._tickets:
            ticket.version += 1
        await self._write([_replacement(ticket) for ticket in self._tickets])
        return BATCH / (perf_counter() - began)

    async def _write(self, operations: list[Any]) -> None:
        result = await self._collection.bulk_write(operations, ordered=False)
        assert result.inserted_count + result.matched_count == BATCH


def run() -> list[Row]:
    """Measure everything and return the lines of the report; none where there is no server."""
    with real_servers.mongodb() as uri:
        return asyncio.run(_run(uri)) if uri else []


async def _run(uri: str) -> list[Row]:
    database = f"bench_{random_id()}"
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    store = MongoStore(uri, database, [Ticket, Copy])
    desk = Desk(store, BATCH)
    try:
        await desk.open(STORED)
        copies = client[database].get_collection(
            Copy.COLLECTION, write_concern=WriteConcern("majority", j=True)
        )
        plain = PlainDriver(copies, Desk(store, BATCH))
        return [
            await compare_async(
                f"MongoDB: save {BATCH} new, {MESSAGES} messages each",
                "bulk_write of the same, no outbox",
                desk.create,
                plain.create,
                at_least=0.85,
            ),
            await compare_async(
                f"MongoDB: change {BATCH}, {MESSAGES} messages each",
                "bulk_write of the same, no outbox",
                desk.update,
                plain.update,
                at_least=0.85,
            ),
        ]
    finally:
        await desk.close()
        await client.drop_database(database)
        await client.close()


def _document(ticket: Ticket) -> dict[str, Any]:
    return {
        "_id": ticket.id,
        "version": ticket.version,
        "schema": ticket.SCHEMA,
        "document": ticket.model_dump_json(),
        "fields": {name: getattr(ticket, name) for name in _FIELDS}
        | {"opened_at": microseconds(ticket.opened_at)},
        "next_due": microseconds(ticket.wakes_at),
    }


def _replacement(ticket: Ticket) -> ReplaceOne[dict[str, Any]]:
    read_as = {"_id": ticket.id, "version": ticket.version - 1}
    return ReplaceOne(read_as, _document(ticket))


def main() -> None:
    print_table(run())


if __name__ == "__main__":
    main()
