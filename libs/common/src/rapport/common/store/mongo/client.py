"""Two drivers with the same calls: what differs between them, and their errors in our two words.

Motor runs PyMongo in threads, so both take the same options, find alike and raise the same errors.
An error of theirs may quote what was written; none of it goes on from here, its code's name does.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from bson.errors import BSONError
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConfigurationError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from rapport.common.errors import PermanentError, TemporaryError

Driver = Literal["pymongo", "motor"]
Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]
Collection = AsyncCollection[Document]

OLDEST_WIRE_VERSION: Final = 17
"""What MongoDB 6.0 says."""

DEFAULTS: Final = {
    "appname": "rapport",
    "connectTimeoutMS": 5_000,
    "serverSelectionTimeoutMS": 5_000,
    "socketTimeoutMS": 20_000,
    "waitQueueTimeoutMS": 10_000,
}
ACKNOWLEDGED_WITHIN: Final = 15_000
"""Milliseconds that a majority has to get a write to disk."""

_DUPLICATE_KEY: Final = 11_000
_IMMUTABLE_FIELD: Final = 66
_LOST_RACE: Final = {_DUPLICATE_KEY, _IMMUTABLE_FIELD}


def connect(uri: str, driver: Driver, options: Document) -> Client:
    """Return a client of the running event loop, which connects when it is first used.

    `options` win over those of the URI, and these over `DEFAULTS`. Raises PermanentError where the
    driver takes them not.
    """
    named = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query)}
    ours: Document = {name: DEFAULTS[name] for name in DEFAULTS if name.lower() not in named}
    try:
        if driver == "pymongo":
            return AsyncMongoClient(uri, **(ours | options))
        from motor.motor_asyncio import AsyncIOMotorClient

        return cast(Client, AsyncIOMotorClient(uri, **(ours | options)))
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        raise PermanentError(f"the MongoDB client refuses its options: {_named(error)}") from None


async def disconnect(client: Client) -> None:
    """Close a client."""
    closed: Any = client.close()
    if isawaitable(closed):
        await closed


def durable(client: Client, name: str) -> Database:
    """Return a database that acknowledges what a majority has on disk, and reads no less."""
    return client.get_database(
        name,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority", j=True, wtimeout=ACKNOWLEDGED_WITHIN),
    )


async def aggregated(collection: Collection, stages: Sequence[Document]) -> list[Document]:
    """Return what an aggregation pipeline answers."""
    cursor: Any = collection.aggregate(stages)
    if isawaitable(cursor):
        cursor = await cursor
    return cast(list[Document], await cursor.to_list(None))


async def check(client: Client) -> None:
    """Ask for the primary; raises PermanentError where it is too old, TemporaryError for trouble.

    A server that takes no writes is trouble: one that was asked directly, or is being replaced.
    """
    try:
        hello = await client.admin.command("hello")
    except ConfigurationError:
        raise _too_old() from None
    if hello.get("maxWireVersion", 0) < OLDEST_WIRE_VERSION:
        raise _too_old()
    if not hello.get("isWritablePrimary"):
        raise TemporaryError("MongoDB takes no writes: that server is not the primary")


@contextmanager
def trouble() -> Iterator[None]:
    """Turn what a driver raises into our own errors."""
    try:
        yield
    except OperationFailure as error:
        raise TemporaryError(f"MongoDB refuses: {_code(error.details or {})}") from None
    except PyMongoError as error:
        raise TemporaryError(f"MongoDB is in trouble: {_named(error)}") from None
    except BSONError as error:
        raise PermanentError(f"MongoDB's data are damaged: {_named(error)}") from None
    except (UnicodeError, OverflowError) as error:
        raise PermanentError(f"MongoDB cannot be asked for it: {_named(error)}") from None


async def write_each(collection: Collection, operations: Sequence[Any]) -> list[bool]:
    """Carry out writes, each by itself; False where the document is there already, or another.

    Raises TemporaryError where one of them fails for another reason, or may not be durable.
    """
    outcome = [True] * len(operations)
    details: Mapping[str, Any] = {}
    try:
        await collection.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        details = error.details
    for failure in details.get("writeConcernErrors", ()):
        raise TemporaryError(f"MongoDB may not have kept it: {_code(failure)}")
    for failure in details.get("writeErrors", ()):
        if failure["code"] not in _LOST_RACE:
            raise TemporaryError(f"MongoDB refuses to write: {_code(failure)}")
        outcome[failure["index"]] = False
    return outcome


def _code(details: Mapping[str, Any]) -> str:
    return f"{details.get('codeName', 'code')} {details.get('code')}"


def _named(error: Exception) -> str:
    return type(error).__name__


def _too_old() -> PermanentError:
    return PermanentError("the MongoDB server is too old: 6.0 or later is needed")
