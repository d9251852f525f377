"""What a collection needs before it is used: its indexes, and its documents' declared fields.

Other processes may be at work meanwhile, older and newer ones. So an index that is declared no
longer stays until somebody drops it, and what is saved meanwhile is not overwritten.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pymongo
import structlog
from pymongo import IndexModel

from rapport.common.aggregate import Aggregate
from rapport.common.store.documents import Reader
from rapport.common.store.mongo.client import Collection, Document, write_each
from rapport.common.store.mongo.shape import FOUND, OURS, Shape

INDEX_SECONDS: Final = 600.0
FILL_DOCUMENTS: Final = 500

log = structlog.get_logger(__name__)


async def prepare(collection: Collection, shape: Shape) -> None:
    """Bring indexes and documents to what the kind declares; raises what the driver raises."""
    await _create_indexes(collection, shape)
    lacking = [item for item in await collection.distinct("shape") if shape.lacks(item)]
    if lacking:
        await _fill(collection, shape, lacking)


async def _create_indexes(collection: Collection, shape: Shape) -> None:
    """Create the indexes that are missing; report those of ours that are not declared so."""
    there = _definitions(await collection.index_information())
    for name, definition in there.items():
        if name.startswith(OURS) and definition != shape.indexes.get(name):
            log.warning("store.index_changed", collection=shape.name, index=name)
    missing = [
        IndexModel(definition["key"], name=name, **_options(definition))
        for name, definition in shape.indexes.items()
        if name not in there and definition not in there.values()
    ]
    if missing:
        with pymongo.timeout(INDEX_SECONDS):
            await collection.create_indexes(missing)


async def _fill(collection: Collection, shape: Shape, lacking: Sequence[str]) -> None:
    """Fill declared fields that documents lack, except those of newer code: it declares less.

    A damaged one stays as it is: it is found by its id, as something that is damaged.
    """
    asked: Document = {"shape": {"$in": list(lacking)}}
    if issubclass(shape.kind, Aggregate):
        asked["schema"] = {"$lte": shape.kind.SCHEMA}
    fields = FOUND | {"version": 1, "shape": 1}
    fillings, found = Reader(shape.fill), collection.find(asked, fields)
    while rows := await found.to_list(FILL_DOCUMENTS):
        if writes := fillings.each((row["_id"], row) for row in rows):
            await write_each(collection, writes)


def _definitions(information: Mapping[str, Any]) -> dict[str, Document]:
    return {
        name: {key: value for key, value in index.items() if key not in ("v", "ns")}
        for name, index in information.items()
    }


def _options(definition: Document) -> Document:
    return {name: value for name, value in definition.items() if name != "key"}
