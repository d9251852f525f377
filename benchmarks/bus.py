"""The embedded bus against plain SQL on the same disk, with the same durability.

Publishing: 256 publishers at once, one message a call, each waiting for its own; the baseline
writes the same messages as rows of one table, 500 to an `executemany` and a commit, and waits for
nobody. Reading: a new group gets everything from the start; the baseline fetches the same messages
as rows.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from benchmarks.harness import Row, compare_async, print_table, rate
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.events import Event, Message, Record, encode, random_id
from rapport.common.events.codec import pack
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.topics import FEEDBACK
from rapport.common.serving import run_on_loop

PUBLISHERS: Final = 256
CALLS: Final = 120
ROUNDS: Final = 9
BATCH: Final = 500
STORED: Final = 50_000

_NOW: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)
_TEXT: Final = "The lamp came broken and nobody picks up the phone."
_SAME_DURABILITY: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4000;
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        topic TEXT, partition INTEGER, timestamp INTEGER, key TEXT, value BLOB, headers BLOB
    );
"""


class Table:
    """The baseline: a table with a row for each message."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(_SAME_DURABILITY)

    def append(self, messages: Sequence[Message]) -> float:
        """Write `messages`, a commit for every 500; return how many per second."""
        rows = [_row(message) for message in messages]
        return rate(len(rows), partial(self._append, rows))

    def read(self) -> float:
        """Fetch all rows; return how many per second."""
        began = perf_counter()
        rows = self._connection.execute("SELECT * FROM records ORDER BY id")
        count = 0
        while found := rows.fetchmany(BATCH):
            count += len(found)
        return count / (perf_counter() - began)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _append(self, rows: Sequence[tuple[object, ...]]) -> None:
        for first in range(0, len(rows), BATCH):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows[first : first + BATCH]
            )
            self._connection.execute("COMMIT")


def run() -> list[Row]:
    """Measure on the event loop that the services run on."""
    with TemporaryDirectory() as folder:
        return run_on_loop(_rows(Path(folder)))


async def _rows(folder: Path) -> list[Row]:
    publishing, reading = EmbeddedBus(folder / "publish.db"), EmbeddedBus(folder / "read.db")
    await publishing.start()
    await reading.start()
    with (
        closing(Table(folder / "append.db")) as appended,
        closing(Table(folder / "select.db")) as selected,
    ):
        stored = _messages(STORED)
        for first in range(0, STORED, BATCH):
            await reading.publish(stored[first : first + BATCH])
        selected.append(stored)
        del stored
        messages = _messages(PUBLISHERS * CALLS)
        rows = [
            await compare_async(
                "bus: 256 publishers at once",
                "executemany of 500 rows",
                partial(_publish, publishing, messages),
                partial(appended.append, messages),
                rounds=ROUNDS,
                at_least=0.5,
            ),
            await compare_async(
                "bus: reading from the start",
                "SELECT of the same messages",
                partial(_read, reading),
                selected.read,
                rounds=ROUNDS,
                at_least=0.5,
            ),
        ]
    await publishing.stop()
    await reading.stop()
    return rows


async def _publish(bus: EmbeddedBus, messages: Sequence[Message]) -> float:
    async def publisher(own: Sequence[Message]) -> None:
        for message in own:
            await bus.publish([message])

    publishers = [publisher(messages[number::PUBLISHERS]) for number in range(PUBLISHERS)]
    began = perf_counter()
    await asyncio.gather(*publishers)
    return len(messages) / (perf_counter() - began)


async def _read(bus: EmbeddedBus) -> float:
    count = 0
    done = asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        nonlocal count
        count += len(records)
        if count == STORED:
            done.set()

    began = perf_counter()
    subscription = await bus.subscribe(random_id(), [FEEDBACK.name], handle)
    await done.wait()
    seconds = perf_counter() - began
    await subscription.stop()
    return STORED / seconds


def _messages(count: int) -> list[Message]:
    return [encode(_event(f"{number}")) for number in range(count)]


def _event(name: str) -> Event[FeedbackReceived]:
    case = random_id()
    data = FeedbackReceived(
        feedback_id=random_id(),
        reference=f"RP-{name}",
        case_id=case,
        client="shop",
        kind="complaint",
        channel="email",
        language="en",
        text=_TEXT,
        occurred_at=_NOW,
        received_at=_NOW,
    )
    return Event(
        id=data.feedback_id,
        source="/rapport/intake",
        type=data.TYPE,
        subject=case,
        time=_NOW,
        data=data,
        partitionkey=case,
        correlationid=data.feedback_id,
        causationid=data.feedback_id,
    )


def _row(message: Message) -> tuple[object, ...]:
    headers = pack(message.headers)
    timestamp = int(_NOW.timestamp() * 1000)
    return message.topic, 0, timestamp, message.key, message.value, headers.names + headers.values


if __name__ == "__main__":
    print_table(run())
