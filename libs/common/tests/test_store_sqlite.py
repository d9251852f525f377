"""SQLite keeps the store's promises; its own are indexes, upgrades and one commit for many."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest
import structlog

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.store import Range, Where
from rapport.common.store.sqlite import SqliteStore, queries
from rapport.common.store.sqlite.queries import Query
from rapport.common.store.sqlite.table import Table
from rapport.common.store.sqlite.worker import Worker, Writer, insert_many, transaction

from .contract.store import (
    NEVER,
    NEW_YEAR,
    Damage,
    DurableStoreContract,
    Item,
    ItemByTime,
    Opener,
    Place,
    Sale,
    StoreContract,
    Story,
    Turn,
    after,
    ids,
    save,
)


class TestInMemory(StoreContract):
    @pytest.fixture
    def opener(self) -> Opener:
        return partial(SqliteStore, None)


class TestInAFile(DurableStoreContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "store.db"

    @pytest.fixture
    def opener(self, path: Path) -> Opener:
        return partial(SqliteStore, path)

    @pytest.fixture
    def source(self, path: Path) -> str:
        return (
            "from pathlib import Path\n"
            "from rapport.common.store.sqlite import SqliteStore\n"
            f"store = SqliteStore(Path({str(path)!r}), kinds)"
        )

    @pytest.fixture
    def damage(self, path: Path) -> Damage:
        def damage(id: str) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("UPDATE story SET document = '?' WHERE id = ?", [id])

        return damage


# What is declared is indexed

OF_ONE_DAY = Range(NEW_YEAR, after(days=1))
WHERES: list[tuple[type[Aggregate | Fact], Where, str]] = [
    (Story, {"owner": "ana"}, "owner=?"),
    (Story, {"owner": "ana", "state": "open"}, "owner=? AND state=?"),
    (Story, {"owner": ["ana", None], "state": "open"}, "state=?"),
    (Story, {"owner": ["ana", "ben"], "state": ["open"]}, "owner=? AND state=?"),
    (Story, {"owner": "ana", "told_at": OF_ONE_DAY}, "owner=?"),
    (Story, {"state": "open", "told_at": OF_ONE_DAY}, "state=? AND told_at>? AND told_at<?"),
    (Story, {"told_at": OF_ONE_DAY}, "told_at>? AND told_at<?"),
    (Story, {"region": None}, "region=?"),
    (Story, {"score": Range(1.5, None)}, "score>?"),
    (Story, {"id": ["a", "b"]}, "id=?"),
    (Place, {"id": Range("a", None)}, "id>?"),
    (Sale, {"product": "kettle"}, "product=?"),
    (Sale, {"product": "kettle", "sold_at": OF_ONE_DAY}, "product=? AND sold_at>? AND sold_at<?"),
    (Turn, {"story": "a"}, "story=?"),
]


@pytest.fixture
def connection() -> Iterator[Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for kind in (Story, Place, Sale, Turn):
            Table(kind).prepare(connection)
        yield connection


def plan(connection: Connection, query: Query) -> list[str]:
    """Return how SQLite reads our tables for a query; JSON parameters and constants aside."""
    steps = connection.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.parameters)
    return [
        step
        for *_, step in steps
        if step.startswith(("SCAN", "SEARCH"))
        and "json_each" not in step
        and "CONSTANT" not in step
    ]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("kind", "where", "sought_by"), WHERES)
def test_pages_seek_by_the_declared_index(
    connection: Connection,
    kind: type[Aggregate | Fact],
    where: Where,
    sought_by: str,
    newest_first: bool,
) -> None:
    query = queries.page(Table(kind), where, 10, None, newest_first=newest_first)
    documents, keys = plan(connection, query)
    assert documents.endswith("USING INTEGER PRIMARY KEY (rowid=?)")
    assert keys.endswith(f"({sought_by})")


def test_what_is_listed_within_something_only_has_no_index_of_it_all(
    connection: Connection,
) -> None:
    declared = "SELECT name FROM sqlite_master WHERE tbl_name = 'turn' AND sql LIKE '%INDEX%'"
    assert connection.execute(declared).fetchall() == [("turn(story,place,id)",)]


@pytest.mark.parametrize(
    ("where", "sought_by"),
    [
        ({}, "((told_at,id)%(?,?))"),
        ({"region": "north"}, "(region=? AND (told_at,id)%(?,?))"),
        ({"owner": "ana", "state": "open"}, "(owner=? AND state=? AND (told_at,id)%(?,?))"),
    ],
)
@pytest.mark.parametrize(("newest_first", "beyond"), [(False, ">"), (True, "<")])
def test_pages_begin_where_the_cursor_is(
    connection: Connection, where: Where, sought_by: str, newest_first: bool, beyond: str
) -> None:
    table = Table(Story)
    cursor = table.declared.cursor(0, "a")
    query = queries.page(table, where, 10, cursor, newest_first=newest_first)
    assert plan(connection, query)[1].endswith(sought_by.replace("%", beyond))


@pytest.mark.parametrize(
    ("newest_first", "sought_by"),
    [
        (False, "(state=? AND (told_at,id)>(?,?) AND told_at<?)"),
        (True, "(state=? AND told_at>? AND (told_at,id)<(?,?))"),
    ],
)
def test_a_range_ends_the_page_that_a_cursor_begins(
    connection: Connection, newest_first: bool, sought_by: str
) -> None:
    table = Table(Story)
    where = {"state": "open", "told_at": OF_ONE_DAY}
    cursor = table.declared.cursor(0, "a")
    query = queries.page(table, where, 10, cursor, newest_first=newest_first)
    assert plan(connection, query)[1].endswith(sought_by)


def test_a_list_of_everything_goes_along_its_order(connection: Connection) -> None:
    query = queries.page(Table(Story), None, 10, None, newest_first=True)
    assert plan(connection, query)[1].startswith(
        "SCAN story USING COVERING INDEX story(told_at,id)"
    )


@pytest.mark.parametrize(
    "query",
    [
        queries.by_ids(Table(Story), ["a"]),
        queries.due(Table(Story), 0, 10),
        queries.next_due([Table(Story), Table(Place)]),
        queries.tally(Table(Story), ["state"], {"owner": "ana"}, []),
        queries.tally(Table(Sale), [], {"product": "kettle", "sold_at": OF_ONE_DAY}, ["price"]),
    ],
)
def test_nothing_else_reads_a_whole_table(connection: Connection, query: Query) -> None:
    steps = plan(connection, query)
    assert steps
    assert all(step.startswith("SEARCH") for step in steps), steps


# What a kind may declare


@pytest.mark.parametrize(
    ("fields", "order", "reason"),
    [
        (("nothing",), "id", "no such field or property"),
        (("sequences",), "id", "neither text"),
        (("exercise",), "exercise", "may not be None"),
        (("mixed",), "id", "no single type"),
        (("unnamed",), "id", "neither text"),
        (("document",), "id", "may not declare document"),
    ],
)
def test_a_field_that_cannot_be_looked_by_is_refused_at_once(
    fields: tuple[str, ...], order: str, reason: str
) -> None:
    class Odd(Aggregate):
        COLLECTION = "odd"
        INDEXES = (fields,)
        ORDER = order

        mixed: int | str = 0
        document: str = ""

        @property
        def unnamed(self):  # type: ignore[no-untyped-def]
            return 1

    with pytest.raises(TypeError, match=reason):
        SqliteStore(None, [Odd])


def test_two_kinds_cannot_share_a_collection() -> None:
    class Copy(Story):
        pass

    with pytest.raises(TypeError, match="share"):
        SqliteStore(None, [Story, Copy])


# Upgrades


async def test_fields_declared_later_are_filled_from_the_documents(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old = SqliteStore(path, [Item])
    await old.start()
    await save(
        old,
        *(
            Item(id=f"i{n:03}", name=f"n{n}", made_at=after(days=-n), parts=["x"] * (n % 2))
            for n in range(1_001)
        ),
    )
    await old.stop()

    new = SqliteStore(path, [ItemByTime])
    await new.start()
    page = await new.find(ItemByTime, {"size": 1}, limit=2)
    assert ids(page) == ["i999", "i997"]
    assert (await new.tally(ItemByTime, ["size"]))[1].count == 500
    await new.stop()
    with closing(sqlite3.connect(path)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(item)")}
        indexes = {row[1] for row in connection.execute("PRAGMA index_list(item)")}
    assert columns == {"id", "version", "schema", "next_due", "document", "size", "made_at"}
    assert not any("name" in index for index in indexes)

    back = SqliteStore(path, [Item])
    await back.start()
    assert ids(await back.find(Item, {"name": "n7"})) == ["i007"]
    await back.stop()


async def test_a_damaged_document_stops_no_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old = SqliteStore(path, [Item])
    await old.start()
    await save(old, Item(id="a", parts=["x"]), Item(id="b", parts=["x"]))
    await old.stop()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE item SET document = '{' WHERE id = 'a'")

    new = SqliteStore(path, [ItemByTime])
    with structlog.testing.capture_logs() as logs:
        await new.start()
    assert [(log["event"], log["id"]) for log in logs] == [("store.damaged", "a")]
    assert ids(await new.find(ItemByTime, {"size": 1})) == ["b"]
    with pytest.raises(PermanentError, match="does not fit"):
        await new.get(ItemByTime, "a")
    await new.stop()


# Trouble


async def test_a_document_that_does_not_fit_says_where_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, [Story])
    await store.start()
    await save(store, Story(id="a", wakes=NEW_YEAR), Story(id="b", wakes=NEW_YEAR))
    broken = """UPDATE story SET document = '{"id": "a", "count": "Ana Example"}' WHERE id = 'a'"""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(broken)
    with pytest.raises(PermanentError) as refused:
        await store.get(Story, "a")
    assert refused.value.reason == "a stored story does not fit: /count: int_parsing"
    with structlog.testing.capture_logs() as logs:
        assert [story.id for story in await store.due(Story, NEVER)] == ["b"]
    assert [(log["event"], log["id"]) for log in logs] == [("store.damaged", "a")]
    await store.stop()


async def test_a_damaged_file_is_permanent(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(PermanentError, match="damaged"):
        await SqliteStore(path, [Story]).start()


async def test_a_place_that_cannot_be_opened_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TemporaryError, match="trouble"):
        await SqliteStore(tmp_path / "file" / "store.db", [Story]).start()


# Many writes, one commit


def connect(path: Path) -> Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(connect(tmp_path / "numbers.db")) as connection:
        connection.execute("CREATE TABLE number (value INTEGER PRIMARY KEY, text TEXT)")
    return tmp_path / "numbers.db"


@pytest.fixture
async def statements() -> list[str]:
    return []


@pytest.fixture
async def writer(path: Path, statements: list[str]) -> AsyncIterator[Writer]:
    connection = connect(path)
    connection.set_trace_callback(statements.append)
    commits = Worker("test", [connection])
    writer = Writer(connection, commits)
    yield writer
    await writer.stop()
    await commits.stop()


def insert(value: Any, connection: Connection) -> Any:
    connection.execute("INSERT INTO number (value) VALUES (?)", [value])
    return value


def values(path: Path) -> list[int]:
    with closing(connect(path)) as connection:
        return sorted(value for (value,) in connection.execute("SELECT value FROM number"))


async def together(writer: Writer, *work: Any) -> list[Any]:
    """Have the writer find all of this waiting at once; return results and errors."""
    return await asyncio.gather(*(writer.write(job) for job in work), return_exceptions=True)


async def test_writes_that_wait_together_share_a_transaction(
    writer: Writer, path: Path, statements: list[str]
) -> None:
    assert await together(writer, *(partial(insert, n) for n in range(20))) == list(range(20))
    assert statements.count("COMMIT") == 1
    assert values(path) == list(range(20))


async def test_what_comes_during_a_commit_shares_the_next_one(
    path: Path, statements: list[str]
) -> None:
    connection = connect(path)
    connection.set_trace_callback(statements.append)
    commits = Worker("test", [connection])
    writer = Writer(connection, commits)
    gate = threading.Event()
    held = commits.run(lambda connection: gate.wait())
    first = writer.write(partial(insert, 1))
    await asyncio.sleep(0)
    assert connection.in_transaction
    others = [writer.write(partial(insert, n)) for n in range(2, 9)]
    await asyncio.sleep(0)
    assert not first.done()
    gate.set()
    assert [await job for job in (held, first, *others)] == [True, *range(1, 9)]
    assert statements.count("COMMIT") == 2
    await writer.stop()
    await commits.stop()


async def test_a_write_that_fails_leaves_the_others_alone(writer: Writer, path: Path) -> None:
    first, double, last = await together(
        writer, partial(insert, 1), partial(insert, 1), partial(insert, 2)
    )
    assert (first, last) == (1, 2)
    assert isinstance(double, sqlite3.IntegrityError)
    assert values(path) == [1, 2]


async def test_a_locked_file_is_waited_for_while_the_loop_goes_on(
    writer: Writer, path: Path
) -> None:
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = writer.write(partial(insert, 1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert await waiting == 1


async def test_a_file_that_stays_locked_is_trouble_for_all_and_passes(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapport.common.store.sqlite.worker.BUSY_SECONDS", 0.05)
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        errors = await together(writer, partial(insert, 1), partial(insert, 2))
        assert [type(error) for error in errors] == [TemporaryError] * 2
        assert "SQLITE_BUSY" in str(errors[0])
        other.execute("ROLLBACK")
    assert await together(writer, partial(insert, 1), partial(insert, 2)) == [1, 2]


async def test_a_full_disk_is_trouble_and_passes(path: Path) -> None:
    def fill(connection: Connection) -> None:
        rows = [(number, "x" * 1_000) for number in range(500)]
        insert_many(connection, "number (value, text)", rows)

    connection = connect(path)
    writer = Writer(connection, None)
    connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(TemporaryError, match="SQLITE_FULL"):
        await writer.write(fill)
    assert values(path) == []
    connection.execute("PRAGMA max_page_count = 10000")
    await writer.write(fill)
    assert values(path) == list(range(500))
    connection.close()


async def test_a_cancelled_caller_does_not_disturb_the_writer(writer: Writer, path: Path) -> None:
    waiting = writer.write(partial(insert, 1))
    waiting.cancel()
    assert await writer.write(partial(insert, 2)) == 2
    assert values(path) == [1, 2]


async def test_stopping_finishes_what_was_asked_for(path: Path) -> None:
    connection = connect(path)
    commits = Worker("test", [connection])
    writer = Writer(connection, commits)
    jobs = [writer.write(partial(insert, n)) for n in range(10)]
    await writer.stop()
    assert [job.result() for job in jobs] == list(range(10))
    with pytest.raises(TemporaryError, match="closed"):
        writer.write(partial(insert, 11))
    await commits.stop()
    with pytest.raises(TemporaryError, match="closed"):
        commits.run(lambda connection: None)


def test_rows_are_inserted_as_they_are_or_change_what_is_there(path: Path) -> None:
    with closing(connect(path)) as connection:
        then = "ON CONFLICT (value) DO UPDATE SET text = excluded.text"
        with transaction(connection):
            insert_many(connection, "number (value, text)", [(n, "x") for n in range(100)])
            insert_many(connection, "number (value, text)", [])
            insert_many(connection, "number (value, text)", [(99, "y"), (100, "y")], then)
        found = connection.execute("SELECT text, count(*), sum(value) FROM number GROUP BY text")
        assert found.fetchall() == [("x", 99, 4_851), ("y", 2, 199)]
