"""What a run has left behind, read from outside: every topic, every store, and what arrived.

Nothing of the system is asked that could be wrong about itself where the bytes can be read: topics
are read to their ends, stores through their own drivers, consumer groups where their offsets lie.
"""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import MongoClient

from chaos.people import Promises
from chaos.poison import given_up_by, is_poison
from chaos.world import World
from rapport.common.bus.port import Position
from rapport.common.events.codec import Message, Record
from rapport.common.events.dead_letters import told
from rapport.common.events.topics import DEAD_LETTERS, TOPICS
from rapport.common.store.fields import microseconds
from rapport.standalone.demo.receivers import Arrival
from rapport.standalone.processes import consumers
from rapport.standalone.system import SERVICES

Json = dict[str, Any]

KEPT: Final = frozenset(
    (
        "feedback_id",
        "case_id",
        "crisis_id",
        "communication_id",
        "notification_id",
        "reply_id",
        "statement_id",
        "request_id",
        "source_ref",
        "recipient",
        "channel",
        "clock",
        "owner",
    )
)
"""The fields of events that are kept."""

UNDER_WAY: Final = ("waiting", "queued", "leased")
"""The states of a message that has not come to its end."""

CARRIED_OUT_WITHIN: Final = timedelta(seconds=2)
"""How long ago something may have fallen due that is just being carried out."""

STAMPED: Final = {"rapport.feedback.received.v1": ("received_at", "occurred_at")}
"""What intake stamps anew when the same message is sent again; all else of an event stays."""


class Told(NamedTuple):
    """An event as a topic has it; `content` is a digest of all that must not change in a repeat."""

    topic: str
    partition: int
    offset: int
    id: str
    type: str
    subject: str
    sequence: str | None
    causation: str | None
    content: str
    data: Mapping[str, Any]


class Letter(NamedTuple):
    """A dead letter: who gave up what and why; `key` is the record's."""

    group: str
    topic: str
    event_id: str | None
    reason: str
    key: str | None


class Stored(NamedTuple):
    """What a store has under an id; `waiting` is how many messages wait in its outbox."""

    id: str
    version: int
    waiting: int
    next_due: int | None
    content: Mapping[str, Any]


@dataclass
class Evidence:
    """See the module's docstring. `groups` has committed offsets and ends, `now` is microseconds.

    `poison` is what others than Rapport put on the bus that nobody can read: by its key, the groups
    that must give it up.
    """

    promises: Promises = field(default_factory=Promises)
    events: Sequence[Told] = ()
    letters: Sequence[Letter] = ()
    stored: Mapping[tuple[str, str], Sequence[Stored]] = field(default_factory=dict)
    groups: Mapping[tuple[str, Position], tuple[int, int]] = field(default_factory=dict)
    arrived: Sequence[Arrival] = ()
    poison: Mapping[str, set[str]] = field(default_factory=dict)
    now: int = 0

    def of(self, service: str, collection: str) -> Sequence[Stored]:
        """Return what a service has in a collection."""
        return self.stored.get((service, collection), ())

    def told(self, type: str) -> Iterator[Told]:
        """Return the events of a type, `rapport.` and `.v1` left out, repeats included."""
        full = f"rapport.{type}.v1"
        return (event for event in self.events if event.type == full)


def digest(content: bytes) -> str:
    """Return a digest of something's content."""
    return blake2b(content, digest_size=12).hexdigest()


def event_of(record: Record) -> Told | None:
    """Return the event that a record carries, None where it is none, or poison."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    if is_poison(record.key) or "ce_id" not in headers or "ce_type" not in headers:
        return None
    try:
        data = json.loads(record.value or b"")
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    type = headers["ce_type"]
    lasting = {name: data[name] for name in data if name not in STAMPED.get(type, ())}
    subject = headers.get("ce_subject", "")
    sequence = headers.get("ce_sequence")
    content = json.dumps([type, subject, sequence, lasting], sort_keys=True)
    return Told(
        record.topic,
        record.partition,
        record.offset,
        headers["ce_id"],
        type,
        subject,
        sequence,
        headers.get("ce_causationid"),
        digest(content.encode()),
        {name: data[name] for name in KEPT & data.keys()},
    )


def letter_of(record: Record) -> Letter:
    """Return a dead letter."""
    data = told(record).data
    reason = f"{data.cause}: {data.reason}"
    return Letter(data.group, data.topic, data.event_id, reason, record.key)


async def read_topics(world: World) -> tuple[list[Told], list[Letter]]:
    """Read every topic from its start to its end."""
    events: list[Told] = []
    letters: list[Letter] = []
    names = list(TOPICS)
    starts, ends = await world.bus.starts(names), await world.bus.ends(names)
    after = {place: start - 1 for place, start in starts.items()}
    until = {place: end for place, end in ends.items() if end > starts[place]}
    if until:
        async with aclosing(world.bus.tail(names, after, until=until)) as reading:
            async for records in reading:
                if records[0].topic == DEAD_LETTERS.name:
                    letters += map(letter_of, records)
                else:
                    events += filter(None, map(event_of, records))
    return events, letters


async def read_groups(world: World) -> dict[tuple[str, Position], tuple[int, int]]:
    """Return what each group has committed in each partition that it reads, and where that ends."""
    committed = await _kafka_offsets(world) if world.kafka else _embedded_offsets(world)
    return {
        (group, place): (committed.get((group, place), 0), end)
        for group, topics in consumers().items()
        for place, end in (await world.bus.ends(topics)).items()
    }


async def _kafka_offsets(world: World) -> dict[tuple[str, Position], int]:
    assert world.kafka is not None
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka.address)
    await admin.start()
    try:
        return {
            (group, (place.topic, place.partition)): found.offset
            for group in consumers()
            for place, found in (await admin.list_consumer_group_offsets(group)).items()
            if isinstance(place, TopicPartition)
        }
    finally:
        await admin.close()


def _embedded_offsets(world: World) -> dict[tuple[str, Position], int]:
    query = """
        SELECT consumers, topic, number, position FROM positions
        JOIN partitions ON partitions.id = positions.partition
    """
    with closing(_open(world.data / "bus.db")) as log:
        return {(group, (topic, number)): at for group, topic, number, at in log.execute(query)}


def read_stores(
    world: World, unfinished_at: int | None = None
) -> dict[tuple[str, str], list[Stored]]:
    """Read everything that every service has stored, or only what is not finished at a time."""
    if world.store is not None:
        return dict(_mongo(world.store.address, unfinished_at))
    return {
        (name, collection): found
        for name in SERVICES
        for collection, found in _sqlite(world.data / f"{name}.db", unfinished_at)
    }


def _mongo(
    address: str, unfinished_at: int | None
) -> Iterator[tuple[tuple[str, str], list[Stored]]]:
    wanted: Json = {"document": {"$exists": True}}
    if unfinished_at is not None:
        wanted["$or"] = [
            {"waiting_since": {"$exists": True}},
            {"next_due": {"$lt": unfinished_at}},
            {"fields.state": {"$in": UNDER_WAY}},
        ]
    with MongoClient[Json](f"mongodb://{address}/?directConnection=true") as client:
        for service in SERVICES:
            database = client[f"rapport_{service}"]
            for collection in database.list_collection_names():
                documents = database[collection].find(wanted)
                yield (
                    (service, collection),
                    [
                        Stored(
                            item["_id"],
                            item.get("version", 0),
                            len(item.get("outbox", ())),
                            item.get("next_due"),
                            json.loads(item["document"]),
                        )
                        for item in documents
                    ],
                )


def _sqlite(path: Path, unfinished_at: int | None) -> Iterator[tuple[str, list[Stored]]]:
    with closing(_open(path)) as store:
        tables = [
            name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        waiting = Counter(store.execute('SELECT collection, aggregate FROM "rapport:outbox"'))
        for table in tables:
            columns = {row[1] for row in store.execute(f'PRAGMA table_info("{table}")')}
            if "document" not in columns:
                continue
            version = "version" if "version" in columns else "0"
            due = "next_due" if "next_due" in columns else "NULL"
            query = f'SELECT id, {version}, {due}, document FROM "{table}"'
            if unfinished_at is not None:
                conditions = [
                    f"{due} < {unfinished_at}",
                    f"""id IN (SELECT aggregate FROM "rapport:outbox"
                    WHERE collection = '{table}')""",
                    *(f"state = '{state}'" for state in UNDER_WAY if "state" in columns),
                ]
                query += f" WHERE {' OR '.join(conditions)}"
            rows = store.execute(query)
            yield (
                table,
                [
                    Stored(id, number, waiting[table, id], at, json.loads(document))
                    for id, number, at, document in rows
                ],
            )


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def poison_among(messages: Iterable[Message]) -> dict[str, set[str]]:
    """Return the poison among what others have published, as `Evidence` has it."""
    return {item.key: given_up_by(item) for item in messages if item.key and is_poison(item.key)}


def left(evidence: Evidence) -> dict[str, int]:
    """Count what is not finished, by what it is; nothing is left out but what nobody waits for."""
    notifications = evidence.of("notification", "notifications")
    stored = [item for found in evidence.stored.values() for item in found]
    counts = {
        "unread records": sum(max(0, end - at) for at, end in evidence.groups.values()),
        "messages in outboxes": sum(item.waiting for item in stored),
        "notifications under way": sum(
            item.content["state"] in UNDER_WAY for item in notifications
        ),
        "overdue items": sum(
            item.next_due is not None and item.next_due < evidence.now for item in stored
        ),
    }
    return {name: number for name, number in counts.items() if number}


async def glance(world: World) -> Evidence:
    """Read just what tells whether the system has come to rest."""
    groups, now = await read_groups(world), microseconds(world.clock.now())
    return Evidence(stored=await asyncio.to_thread(read_stores, world, now), groups=groups, now=now)


async def gather(world: World, promises: Promises) -> Evidence:
    """Read everything, of a system at rest; what falls due meanwhile is not overdue for that."""
    now = world.clock.now() - CARRIED_OUT_WITHIN
    events, letters = await read_topics(world)
    return Evidence(
        promises=promises,
        events=events,
        letters=letters,
        stored=await asyncio.to_thread(read_stores, world),
        groups=await read_groups(world),
        arrived=[*world.outside.mail.arrived, *world.outside.webhooks.arrived],
        poison=poison_among(world.bus.published),
        now=microseconds(now),
    )
