"""MongoDB as a store: a collection per kind, an aggregate and its outbox in one document.

A save is one document write, so state and outbox change together without a transaction. A batch is
one bulk write per collection, whose errors name the items that lost their race (see `Shape.save`).
Every write waits until a majority has it on disk; reads ask the primary for what a majority has.
Calls end in bounded time: within 5 seconds where no server is there, within 20 and one more try
where one does not answer.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import FieldProblem, Invalid, TemporaryError
from rapport.common.events.codec import Message
from rapport.common.settings import PREFIX, Settings
from rapport.common.store.fields import microseconds, moment
from rapport.common.store.mongo import queries
from rapport.common.store.mongo.client import (
    Client,
    Database,
    Document,
    Driver,
    aggregated,
    check,
    connect,
    disconnect,
    durable,
    trouble,
    write_each,
)
from rapport.common.store.mongo.prepare import prepare
from rapport.common.store.mongo.shape import (
    FOUND,
    Shape,
    Write,
    clear,
    messages_of,
    tombstone,
)
from rapport.common.store.port import A, Change, Page, Stored, Tally, Where

T = TypeVar("T")

LONGEST_NAME: Final = 63
"""Bytes of a database's name."""

_FORBIDDEN: Final = frozenset('/\\. "$*<>:|?\0')


class MongoStore:
    """A store of `kinds` in one database; see the port for the promises.

    `options` go to the driver's client and win over those of the URI.
    """

    def __init__(
        self,
        uri: str,
        database: str,
        kinds: Sequence[type[Aggregate] | type[Fact]],
        *,
        driver: Driver = "pymongo",
        **options: Any,
    ) -> None:
        self._shapes: dict[type, Shape] = {kind: Shape(kind) for kind in kinds}
        if len({shape.name for shape in self._shapes.values()}) < len(self._shapes):
            raise TypeError("two kinds share a collection")
        self._uri = uri
        self._name = database
        self._driver: Driver = driver
        self._options = options
        self._client: Client | None = None
        self._database: Database | None = None
        self._at_work = 0
        self._idle = asyncio.Event()

    async def start(self) -> None:
        """Connect, create the indexes that are missing, fill fields that were declared since.

        Raises PermanentError where the server is older than 6.0.
        """
        self._client = connect(self._uri, self._driver, self._options)
        self._database = durable(self._client, self._name)
        try:
            async with self._trying() as database:
                await check(self._client)
                for shape in self._shapes.values():
                    await prepare(database[shape.name], shape)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Finish the calls under way and close."""
        client, self._client, self._database = self._client, None, None
        if client is None:
            return
        while self._at_work:
            self._idle.clear()
            await self._idle.wait()
        await disconnect(client)

    async def get(self, kind: type[A], id: str) -> A | None:
        """Return one aggregate, None where there is none."""
        return (await self.get_many(kind, [id])).get(id)

    async def get_many(self, kind: type[A], ids: Sequence[str]) -> dict[str, A]:
        """Return those of `ids` that are there, in one read."""
        shape = self._shapes[kind]
        asked = {"_id": {"$in": list(ids)}} | shape.live
        rows = await self._find(shape, asked, FOUND, limit=len(ids))
        return {row["_id"]: shape.read(row) for row in rows}

    async def find(
        self,
        kind: type[Stored],
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page[Stored]:
        """Return a page in the kind's declared order, ties by id."""
        shape = self._shapes[kind]
        declared = shape.declared
        after = queries.behind(declared, cursor, newest_first=newest_first)
        rows = await self._find(
            shape,
            queries.matching(declared, where, after, shape.live),
            FOUND | {queries.path(declared.order.name): 1},
            sort=queries.sorting(declared, newest_first=newest_first),
            limit=limit + 1,
        )
        items = shape.reader.each((row["_id"], row) for row in rows[:limit])
        if len(rows) <= limit:
            return Page(items)
        last = rows[limit - 1]
        return Page(items, declared.cursor(queries.placed(declared, last), last["_id"]))

    async def tally(
        self,
        kind: type[Aggregate] | type[Fact],
        by: Sequence[str] = (),
        where: Where | None = None,
        *,
        sums: Sequence[str] = (),
    ) -> list[Tally]:
        """Count, and sum the fields of `sums`, per group of the declared fields `by`."""
        shape = self._shapes[kind]
        fields = [shape.declared.field(name) for name in by]
        matched = queries.matching(shape.declared, where, shape.live)
        stages = queries.tally(shape.declared, by, matched, sums)

        def to_tally(row: Document) -> Tally:
            pairs = zip(fields, row["_id"], strict=True)
            totals = tuple(float(row[f"sum{place}"]) for place in range(len(sums)))
            return Tally(tuple(field.decode(value) for field, value in pairs), row["count"], totals)

        async with self._trying() as database:
            rows = await aggregated(database[shape.name], stages)
        if not rows and not by:
            return [Tally((), 0, (0.0,) * len(sums))]
        return list(map(to_tally, rows))

    async def save_many(self, changes: Sequence[Change]) -> list[bool]:
        """Save each change; True where it was saved, False where another writer was first."""
        now = time.time_ns() // 1_000
        writes = [self._shapes[type(item.aggregate)].save(item, now) for item in changes]
        outcome: dict[int, bool] = {}
        for places in _rounds(changes):
            by_kind: dict[type, list[int]] = defaultdict(list)
            for place in places:
                by_kind[type(changes[place].aggregate)].append(place)
            outcome |= await self._write_together(by_kind, writes)
        for place, saved in outcome.items():
            if saved:
                changes[place].aggregate.version += 1
        return [outcome[place] for place in range(len(changes))]

    async def insert_facts(self, facts: Sequence[Fact]) -> set[str]:
        """Insert `facts` of one or several kinds; return the ids that were new."""
        distinct: dict[tuple[type, str], Fact] = {}
        for fact in facts:
            distinct.setdefault((type(fact), fact.id), fact)
        by_kind: dict[type, list[int]] = defaultdict(list)
        writes = []
        for place, ((kind, _), fact) in enumerate(distinct.items()):
            by_kind[kind].append(place)
            writes.append(self._shapes[kind].insert(fact))
        outcome = await self._write_together(by_kind, writes)
        return {id for place, (_, id) in enumerate(distinct) if outcome[place]}

    async def due(self, kind: type[A], now: datetime, *, limit: int = 200) -> list[A]:
        """Return aggregates whose `next_due` is not after `now`, the most overdue first.

        Those of newer code are left to it.
        """
        shape = self._shapes[kind]
        asked = {
            "next_due": {"$lte": microseconds(now)},
            "schema": {"$lte": kind.SCHEMA},
        }
        sort = [("next_due", 1), ("_id", 1)]

        async def ask(most: int) -> list[tuple[str, Document]]:
            rows = await self._find(shape, asked, FOUND, sort=sort, limit=most)
            return [(row["_id"], row) for row in rows]

        return await shape.reader.first(limit, ask)

    async def next_due(self, kinds: Sequence[type[Aggregate]]) -> datetime | None:
        """Return when the next item of any of `kinds` falls due."""
        sort = [("next_due", 1), ("_id", 1)]
        firsts = [
            self._find(self._shapes[kind], queries.IS_DUE, {"next_due": 1}, sort=sort, limit=1)
            for kind in kinds
        ]
        found = [row["next_due"] for rows in await _all(firsts) for row in rows]
        return moment(min(found)) if found else None

    async def delete(self, kind: type[Aggregate], id: str) -> bool:
        """Replace an aggregate by a tombstone; False while its outbox is not empty."""
        [done] = await self._write(self._shapes[kind], [tombstone(id)])
        return done

    async def outboxes(
        self, kind: type[Aggregate], ids: Sequence[str]
    ) -> dict[str, list[tuple[str, Message]]]:
        """Return the outboxes, head first, of those of `ids` that have messages waiting."""
        asked = {"_id": {"$in": list(ids)}} | queries.IS_WAITING
        rows = await self._find(self._shapes[kind], asked, {"outbox": 1}, limit=len(ids))
        return {row["_id"]: messages_of(row) for row in rows}

    async def clear_outboxes(
        self, kind: type[Aggregate], published: Mapping[str, Sequence[str]]
    ) -> None:
        """Remove exactly the named event ids from the named aggregates' outboxes."""
        writes = [clear(id, events) for id, events in published.items() if events]
        if writes:
            await self._write(self._shapes[kind], writes)

    async def waiting(
        self, kind: type[Aggregate], before: datetime, *, limit: int = 500
    ) -> list[str]:
        """Return ids of aggregates whose outbox holds something saved before `before`."""
        asked = {"waiting_since": {"$lt": microseconds(before)}}
        sort = [("waiting_since", 1), ("_id", 1)]
        rows = await self._find(self._shapes[kind], asked, {"_id": 1}, sort=sort, limit=limit)
        return [row["_id"] for row in rows]

    @asynccontextmanager
    async def _trying(self) -> AsyncIterator[Database]:
        """Lend the database to one call, whose troubles become our own errors."""
        if self._database is None:
            raise TemporaryError("the store is closed")
        self._at_work += 1
        try:
            with trouble():
                yield self._database
        finally:
            self._at_work -= 1
            self._idle.set()

    async def _find(
        self,
        shape: Shape,
        asked: Document,
        fields: Mapping[str, int],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int,
    ) -> list[Document]:
        """Return up to `limit` documents, in one round trip unless they are over 16 MB."""
        async with self._trying() as database:
            if limit <= 0:  # which would mean all of them
                return []
            found = database[shape.name].find(
                asked, fields, sort=sort, limit=limit, batch_size=limit + 1
            )
            return await found.to_list(None)

    async def _write(self, shape: Shape, writes: Sequence[Write]) -> list[bool]:
        async with self._trying() as database:
            return await write_each(database[shape.name], writes)

    async def _write_together(
        self, by_kind: Mapping[type, Sequence[int]], writes: Sequence[Write]
    ) -> dict[int, bool]:
        """Carry out `writes`, a bulk for each kind; return each one's outcome by its place."""
        bulks = [
            self._write(self._shapes[kind], [writes[place] for place in places])
            for kind, places in by_kind.items()
        ]
        outcomes = await _all(bulks)
        return {
            place: saved
            for places, outcome in zip(by_kind.values(), outcomes, strict=True)
            for place, saved in zip(places, outcome, strict=True)
        }


def open_mongo(
    settings: Settings, service: str, kinds: Sequence[type[Aggregate] | type[Fact]]
) -> MongoStore:
    """Return the store of a service in the database that `RAPPORT_STORE` names with its own name.

    Raises Invalid naming the setting that is wrong.
    """
    parts = urlsplit(settings.store)
    database = f"{unquote(parts.path.strip('/')) or 'rapport'}_{service}"
    # Without its path: the driver would look for our user in a database of that name.
    uri = parts._replace(path="/").geturl()
    _check(settings, uri, database)
    options: dict[str, Any] = {"appname": f"rapport-{service}"}
    if settings.store_username is not None:
        options["username"] = settings.store_username
    if settings.store_password is not None:
        options["password"] = settings.store_password.get_secret_value()
    if settings.store_ca_file is not None:
        options |= {"tls": True, "tlsCAFile": str(settings.store_ca_file)}
    if settings.store_certificate_file is not None:
        options |= {"tls": True, "tlsCertificateKeyFile": str(settings.store_certificate_file)}
    return MongoStore(uri, database, kinds, driver=settings.store_driver, **options)


def _check(settings: Settings, uri: str, database: str) -> None:
    if _FORBIDDEN & set(database) or len(database.encode()) > LONGEST_NAME:
        raise _wrong("STORE", "expected a name that a database can have behind the hosts")
    if uri.startswith("mongodb:"):  # the other scheme is read with the help of a name server
        try:
            parse_uri(uri)
        except (PyMongoError, ValueError):
            raise _wrong("STORE", "expected mongodb://HOST:PORT/NAME?...") from None
    for name in ("store_ca_file", "store_certificate_file"):
        file = getattr(settings, name)
        if file is not None and not file.is_file():
            raise _wrong(name, "there is no such file")


def _wrong(name: str, reason: str) -> Invalid:
    problem = FieldProblem(f"{PREFIX}{name}".upper(), reason)
    return Invalid(f"wrong settings: {problem.pointer}: {reason}", [problem])


def _rounds(changes: Sequence[Change]) -> list[list[int]]:
    """Return places of `changes` for one bulk write after the other: an id's second comes later."""
    times: Counter[tuple[type, str]] = Counter()
    rounds: list[list[int]] = []
    for place, change in enumerate(changes):
        name = type(change.aggregate), change.aggregate.id
        if times[name] == len(rounds):
            rounds.append([])
        rounds[times[name]].append(place)
        times[name] += 1
    return rounds


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Return all results; the first failure is raised once every call has ended."""
    if len(calls) == 1:
        return [await calls[0]]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
