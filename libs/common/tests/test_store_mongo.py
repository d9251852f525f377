"""MongoDB keeps the store's promises through both drivers; its own are indexes, upgrades, trouble.

The server is any that speaks MongoDB's protocol: `make test` starts one and names it.
"""

import asyncio
import gc
import os
import secrets
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import bson
import pytest
import structlog
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener, CommandStartedEvent

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import Invalid, PermanentError, TemporaryError
from rapport.common.events.codec import Message
from rapport.common.settings import Settings
from rapport.common.store import Change
from rapport.common.store.mongo import MongoStore, open_mongo
from rapport.common.store.mongo import prepare as preparing
from rapport.common.store.mongo.client import Driver

from .contract.store import (
    KINDS,
    NEVER,
    NEW_YEAR,
    Damage,
    DurableStoreContract,
    Item,
    ItemByTime,
    Opener,
    Place,
    Sale,
    Story,
    Turn,
    after,
    ids,
    message,
    save,
    told,
)

URI = os.environ.get("RAPPORT_TEST_MONGODB", "")
DRIVERS: list[Driver] = ["pymongo", "motor"]

needs_server = pytest.mark.skipif(
    not URI, reason="no MongoDB-protocol server: `make test` starts one"
)
pytestmark = pytest.mark.filterwarnings(
    # PyMongo's monitor, cancelled while it connects, forgets its socket.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module", autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """They are collected here, where they are known, and not in another test."""
    yield
    gc.collect()


@pytest.fixture
def name() -> Iterator[str]:
    """A database that nobody else uses, dropped afterwards."""
    name = f"test_{secrets.token_hex(8)}"
    yield name
    with MongoClient[dict[str, Any]](URI) as client:
        client.drop_database(name)


@needs_server
class TestPyMongo(DurableStoreContract):
    DRIVER: ClassVar[Driver] = "pymongo"

    @pytest.fixture
    def opener(self, name: str) -> Opener:
        return partial(MongoStore, URI, name, driver=self.DRIVER)

    @pytest.fixture
    def source(self, name: str) -> str:
        return (
            "from rapport.common.store.mongo import MongoStore\n"
            f"store = MongoStore({URI!r}, {name!r}, kinds, driver={self.DRIVER!r})"
        )

    @pytest.fixture
    def damage(self, database: Database[dict[str, Any]]) -> Damage:
        return lambda id: database["story"].update_one({"_id": id}, {"$set": {"document": "?"}})


class TestMotor(TestPyMongo):
    DRIVER = "motor"


@pytest.fixture
def database(name: str) -> Iterator[Database[dict[str, Any]]]:
    """What the store has written, as the server sees it."""
    with MongoClient[dict[str, Any]](URI) as client:
        yield client[name]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
async def store(name: str, driver: Driver) -> AsyncIterator[MongoStore]:
    store = MongoStore(URI, name, KINDS, driver=driver)
    await store.start()
    yield store
    await store.stop()


# One write for many


@needs_server
async def test_who_lost_a_race_is_known_wherever_it_is_in_the_batch(store: MongoStore) -> None:
    stories = [Story(id=f"s{number}") for number in range(40)]
    await save(store, *stories[:20])
    changes = [
        told(story.model_copy(update={"version": story.version + (number % 3 == 0)}), f"e{number}")
        for number, story in enumerate(stories)
    ]
    expected = [number % 3 != 0 for number in range(40)]
    assert await store.save_many(changes) == expected
    outboxes = await store.outboxes(Story, [story.id for story in stories])
    assert sorted(outboxes) == sorted(f"s{number}" for number in range(40) if expected[number])


@needs_server
async def test_changes_of_one_aggregate_follow_each_other(store: MongoStore) -> None:
    first, same, next = Story(id="a"), Story(id="a"), Story(id="a", version=1, owner="next")
    assert await store.save_many([told(first, "e1"), told(same, "e2"), told(next, "e3")]) == [
        True,
        False,
        True,
    ]
    follower = Story(id="b", version=1, owner="ben")
    assert await store.save_many([told(Story(id="b"), "e1"), told(follower, "e2")]) == [True, True]
    assert await store.get(Story, "b") == follower
    assert [event for event, _ in (await store.outboxes(Story, ["b"]))["b"]] == ["e1", "e2"]


@needs_server
async def test_clearing_beside_saves_loses_and_mixes_nothing(store: MongoStore) -> None:
    story = Story(id="a")
    published: list[str] = []

    async def relay() -> None:
        while len(published) < 30:
            for id, outbox in (await store.outboxes(Story, ["a"])).items():
                head = [event for event, _ in outbox[:2]]
                await store.clear_outboxes(Story, {id: head})
                published.extend(head)

    async def save_often() -> None:
        for number in range(10):
            events = [f"e{number}{part}" for part in "abc"]
            assert await store.save_many([told(story, *events)]) == [True]

    async with asyncio.timeout(60):
        await asyncio.gather(relay(), save_often())
    assert published == [f"e{number}{part}" for number in range(10) for part in "abc"]
    assert await store.waiting(Story, NEVER) == []


@needs_server
async def test_what_is_too_large_for_a_document_is_refused_before_anything_is_written(
    store: MongoStore,
) -> None:
    large = Message("topic", "key", b"x" * (256 * 1024), ())
    fine, known = Story(id="fine"), Story(id="known")
    await save(store, known)
    for odd in (
        Change(Story(id="odd", text="x" * 17_000_000)),
        Change(Story(id="odd"), [(f"e{number}", large) for number in range(70)]),
        Change(known, [(f"e{number}", large) for number in range(70)]),
    ):
        with pytest.raises(PermanentError, match="over 16 MiB"):
            await store.save_many([Change(fine), odd])
    with pytest.raises(PermanentError):
        await store.save_many([Change(fine), Change(known, [("\ud800", message("x"))])])
    assert list(await store.get_many(Story, ["fine", "odd", "known"])) == ["known"]


@needs_server
async def test_an_outbox_that_fills_its_document_is_trouble_that_passes(store: MongoStore) -> None:
    story = Story(id="a")
    messages = [
        [(f"e{turn}-{number}", Message("t", "k", b"x" * (256 * 1024), ())) for number in range(30)]
        for turn in range(3)
    ]
    assert await store.save_many([Change(story, messages[0])]) == [True]
    assert await store.save_many([Change(story, messages[1])]) == [True]
    with pytest.raises(TemporaryError, match="refuses to write"):
        await store.save_many([Change(story, messages[2])])
    await store.clear_outboxes(Story, {"a": [event for event, _ in messages[0]]})
    assert await store.save_many([Change(story, messages[2])]) == [True]


@needs_server
async def test_a_tombstone_keeps_nothing(
    store: MongoStore, database: Database[dict[str, Any]]
) -> None:
    await save(store, Story(id="a", owner="Ana Example", wakes=NEW_YEAR))
    assert await store.delete(Story, "a")
    assert database["story"].find_one({"_id": "a"}) == {"_id": "a", "version": -1}
    assert ids(await store.find(Story, {"region": None})) == []


# Indexes


@needs_server
async def test_what_is_declared_is_indexed(
    store: MongoStore, database: Database[dict[str, Any]]
) -> None:
    kinds = (Story, Place, Sale, Turn)
    indexes = {kind: database[kind.COLLECTION].index_information() for kind in kinds}
    assert {name for name in indexes[Story] if name != "_id_"} == {
        "rapport(owner,state,told_at,id)",
        "rapport(state,told_at,id)",
        "rapport(region,told_at,id)",
        "rapport(urgent,told_at,id)",
        "rapport(score,told_at,id)",
        "rapport(length,told_at,id)",
        "rapport(told_at,id)",
        "rapport(shape)",
        "rapport(next_due,id)",
        "rapport(waiting_since,id)",
    }
    assert indexes[Story]["rapport(state,told_at,id)"]["key"] == [
        ("fields.state", 1),
        ("fields.told_at", 1),
        ("_id", 1),
    ]
    assert sorted(indexes[Place]) == [
        "_id_",
        "rapport(next_due,id)",
        "rapport(shape)",
        "rapport(waiting_since,id)",
    ]
    assert "rapport(product,sold_at,id)" in indexes[Sale]
    assert [name for name in indexes[Turn] if "place" in name] == ["rapport(story,place,id)"]


@needs_server
async def test_what_falls_due_or_waits_is_read_from_its_index(
    name: str, database: Database[dict[str, Any]]
) -> None:
    asked: list[dict[str, Any]] = []

    class Listening(CommandListener):
        def started(self, event: CommandStartedEvent) -> None:
            if event.command_name == "find":
                asked.append(dict(event.command["filter"]))

        def succeeded(self, event: object) -> None: ...

        def failed(self, event: object) -> None: ...

    store = MongoStore(URI, name, [Story], event_listeners=[Listening()])
    await store.start()
    try:
        await store.due(Story, NEW_YEAR)
        await store.next_due([Story])
        await store.waiting(Story, NEW_YEAR)
    finally:
        await store.stop()
    for wanted in asked:
        wanted.pop("schema", None)  # looked at in what the index found
        plan = database["story"].find(wanted).explain()["queryPlanner"]["winningPlan"]
        [by] = wanted
        assert plan["inputStage"]["indexName"] == f"rapport({by},id)"
    assert [list(wanted) for wanted in asked] == [["next_due"], ["next_due"], ["waiting_since"]]


# Upgrades


class Visit(Fact):
    COLLECTION = "visit"

    page: str = "home"


class VisitByPage(Visit):
    FIELDS = ("page",)
    INDEXES = (("page",),)


@asynccontextmanager
async def opened(name: str, *kinds: type[Aggregate] | type[Fact]) -> AsyncIterator[MongoStore]:
    store = MongoStore(URI, name, kinds)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def items(count: int) -> list[Item]:
    return [
        Item(id=f"i{n:02}", name=f"n{n}", made_at=after(days=-n), parts=["x"] * (n % 2))
        for n in range(count)
    ]


@needs_server
async def test_fields_declared_later_are_filled_from_the_documents(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "FILL_DOCUMENTS", 10)
    async with opened(name, Item, Visit) as old:
        await save(old, *items(41))
        await old.delete(Item, "i40")
        await old.insert_facts([Visit(id="v1"), Visit(id="v2", page="help")])
    async with opened(name, ItemByTime, VisitByPage) as new:
        page = await new.find(ItemByTime, {"size": 1}, limit=2)
        assert ids(page) == ["i39", "i37"]
        assert [tally.count for tally in await new.tally(ItemByTime, ["size"])] == [20, 20]
        assert ids(await new.find(VisitByPage, {"page": "help"})) == ["v2"]
    async with opened(name, Item) as back:
        assert ids(await back.find(Item, {"name": "n7"})) == ["i07"]


@needs_server
@pytest.mark.parametrize("number", [1, 21])
async def test_damaged_documents_stop_no_upgrade(
    name: str, database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(preparing, "FILL_DOCUMENTS", 10)
    async with opened(name, Item) as old:
        await save(old, *items(41))
    damaged = {"_id": {"$in": [f"i{n:02}" for n in range(number)]}}
    database["item"].update_many(damaged, {"$set": {"document": "{"}})
    with structlog.testing.capture_logs() as logs:
        async with opened(name, ItemByTime) as new:
            assert ids(await new.find(ItemByTime, {"size": 1}, limit=2)) == ["i39", "i37"]
            with pytest.raises(PermanentError, match="does not fit"):
                await new.get(ItemByTime, "i00")
    assert [log["event"] for log in logs].count("store.damaged") == number


@needs_server
async def test_an_older_process_at_work_stays_right_and_what_it_writes_is_filled_at_the_next_start(
    name: str,
) -> None:
    async with opened(name, Item) as old:
        [item, *_] = stored = items(3)
        await save(old, *stored)
        async with opened(name, ItemByTime):
            assert ids(await old.find(Item, {"name": "n2"})) == ["i02"]
            item.parts = ["x", "x"]
            await save(old, item)
        async with opened(name, ItemByTime) as new:
            assert ids(await new.find(ItemByTime, {"size": 2})) == ["i00"]
            assert await new.get(ItemByTime, "i00") == ItemByTime(**item.model_dump())


@needs_server
async def test_what_newer_code_wrote_is_not_filled_by_older_code(name: str) -> None:
    class Newest(Item):
        SCHEMA = 2
        INDEXES = ()

    async with opened(name, Newest) as newest:
        await save(newest, Newest(id="a"))
    async with opened(name, Item) as older:
        assert ids(await older.find(Item, {"name": ""})) == []
        with pytest.raises(TemporaryError, match="newer code"):
            await older.get(Item, "a")


@needs_server
async def test_an_index_that_is_declared_no_longer_is_reported_and_stays(
    name: str, database: Database[dict[str, Any]]
) -> None:
    async with opened(name, Item):
        pass
    database["item"].create_index("name", name="of_an_operator")
    with structlog.testing.capture_logs() as logs:
        async with opened(name, ItemByTime):
            pass
    warned = [(log["event"], log["collection"], log["index"]) for log in logs]
    assert warned == [("store.index_changed", "item", "rapport(name,id)")]
    there = database["item"].index_information()
    assert {"rapport(name,id)", "of_an_operator", "rapport(size,made_at,id)"} <= there.keys()


@needs_server
async def test_an_index_of_ours_that_somebody_changed_is_reported(
    name: str, database: Database[dict[str, Any]]
) -> None:
    database["item"].create_index("fields.name", name="rapport(name,id)")
    with structlog.testing.capture_logs() as logs:
        async with opened(name, Item):
            pass
    assert [log["index"] for log in logs] == ["rapport(name,id)"]


# Trouble


@needs_server
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('{"id": "a", "count": "Ana Example"}', "a stored story does not fit: /count: int_parsing"),
        ("Ana Example", "a stored story does not fit: the whole: json_invalid"),
        (5, "a stored story is damaged"),
    ],
)
async def test_a_document_that_does_not_fit_says_where_without_its_content(
    store: MongoStore, database: Database[dict[str, Any]], broken: object, reason: str
) -> None:
    await save(store, Story(id="a", wakes=NEW_YEAR), Story(id="b", wakes=NEW_YEAR))
    database["story"].update_one({"_id": "a"}, {"$set": {"document": broken}})
    with pytest.raises(PermanentError) as refused:
        await store.get(Story, "a")
    assert refused.value.reason == reason
    with structlog.testing.capture_logs() as logs:
        assert [story.id for story in await store.due(Story, NEVER)] == ["b"]
    assert [(log["event"], log["id"]) for log in logs] == [("store.damaged", "a")]


@needs_server
async def test_what_the_server_refuses_is_told_without_its_content(
    store: MongoStore, database: Database[dict[str, Any]]
) -> None:
    database["story"].create_index("fields.owner", unique=True, name="of_an_operator")
    await save(store, Story(id="a", owner="Ana Example"))
    database.command("collMod", "story", validator={"version": {"$lt": 2}})
    story = await store.get(Story, "a")
    assert story is not None
    with pytest.raises(TemporaryError) as refused:
        await store.save_many([Change(story)])
    assert refused.value.reason == "MongoDB refuses to write: code 121"
    assert "Ana" not in "".join(traceback.format_exception(refused.value))


@needs_server
async def test_no_document_has_an_id_that_is_no_text(store: MongoStore) -> None:
    with pytest.raises(PermanentError, match="cannot be asked"):
        await store.get(Story, "\ud800")


@needs_server
async def test_a_list_of_nothing_is_empty(store: MongoStore) -> None:
    await store.save_many([told(Story(id="a", wakes=NEW_YEAR), "e1")])
    assert await store.due(Story, NEVER, limit=0) == []
    assert await store.waiting(Story, NEVER, limit=0) == []


@needs_server
async def test_stopping_finishes_what_was_asked_for(name: str, driver: Driver) -> None:
    store = MongoStore(URI, name, KINDS, driver=driver)
    await store.start()
    saves = [asyncio.create_task(store.save_many([Change(Story(id=f"s{n}"))])) for n in range(5)]
    await asyncio.sleep(0)
    await store.stop()
    assert await asyncio.gather(*saves) == [[True]] * 5
    with pytest.raises(TemporaryError, match="closed"):
        await store.get(Story, "s1")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_a_server_that_is_not_there_is_trouble(driver: Driver) -> None:
    uri = f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=100"
    store = MongoStore(uri, "nowhere", KINDS, driver=driver)
    async with asyncio.timeout(30):
        with pytest.raises(TemporaryError, match="ServerSelectionTimeoutError"):
            await store.start()
    with pytest.raises(TemporaryError, match="closed"):
        await store.get(Story, "a")


@asynccontextmanager
async def server(hello: dict[str, Any] | None) -> AsyncIterator[str]:
    """A server that only ever answers with this document, or never; its URI."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_bytes = bson.encode(hello or {})
        try:
            while True:
                length, request, _, code = struct.unpack("<iiii", await reader.readexactly(16))
                await reader.readexactly(length - 16)
                is_message = code == 2013
                body = struct.pack("<ib", 0, 0) if is_message else struct.pack("<iqii", 8, 0, 0, 1)
                reply = body + with_bytes
                answer = 2013 if is_message else 1
                if hello is not None:
                    writer.write(struct.pack("<iiii", 16 + len(reply), 0, request, answer) + reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=500"


PRIMARY: dict[str, Any] = {"ok": 1, "isWritablePrimary": True, "maxWireVersion": 17}


@pytest.mark.parametrize("wire_version", [6, 13])
async def test_a_server_that_is_too_old_is_refused_by_name(
    driver: Driver, wire_version: int
) -> None:
    async with server(PRIMARY | {"maxWireVersion": wire_version}) as uri:
        with pytest.raises(PermanentError, match=r"6\.0 or later"):
            await MongoStore(uri, "old", KINDS, driver=driver).start()


async def test_a_server_that_takes_no_writes_is_trouble(driver: Driver) -> None:
    async with server(PRIMARY | {"isWritablePrimary": False, "secondary": True}) as uri:
        with pytest.raises(TemporaryError, match="not the primary"):
            await MongoStore(uri, "secondary", KINDS, driver=driver).start()


async def test_a_server_that_does_not_answer_is_trouble(driver: Driver) -> None:
    async with server(None) as uri, asyncio.timeout(30):
        with pytest.raises(TemporaryError):
            await MongoStore(uri, "silent", KINDS, driver=driver).start()


def test_two_kinds_cannot_share_a_collection() -> None:
    class Copy(Story):
        pass

    with pytest.raises(TypeError, match="share"):
        MongoStore("mongodb://127.0.0.1/", "shared", [Story, Copy])


# Settings


@needs_server
async def test_each_service_has_a_database_of_its_own(
    name: str, database: Database[dict[str, Any]], driver: Driver
) -> None:
    place, _, service = name.partition("_")
    uri = URI.replace("/?", f"/{place}?")
    store = open_mongo(Settings(store=uri, store_driver=driver), service, KINDS)
    await store.start()
    await save(store, Story(id="a"))
    await store.stop()
    assert database["story"].count_documents({}) == 1


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"store": "mongodb://127.0.0.1:27017/a b"}, "RAPPORT_STORE"),
        ({"store": "mongodb://127.0.0.1:27017/" + "x" * 60}, "RAPPORT_STORE"),
        ({"store": "mongodb://user:secret@word@127.0.0.1/"}, "RAPPORT_STORE"),
        ({"store": "mongodb://127.0.0.1:99999/"}, "RAPPORT_STORE"),
        ({"store_ca_file": Path("/absent/ca.pem")}, "RAPPORT_STORE_CA_FILE"),
        ({"store_certificate_file": Path("/absent")}, "RAPPORT_STORE_CERTIFICATE_FILE"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        open_mongo(Settings(**({"store": "mongodb://127.0.0.1/"} | settings)), "routing", KINDS)
    assert [problem.pointer for problem in refused.value.problems] == [wrong]
    assert "secret" not in refused.value.reason


async def test_what_the_driver_refuses_stops_the_start(driver: Driver) -> None:
    store = MongoStore("mongodb://127.0.0.1/", "odd", KINDS, driver=driver, tlsCAFile="/absent")
    with pytest.raises(PermanentError, match="options"):
        await store.start()
