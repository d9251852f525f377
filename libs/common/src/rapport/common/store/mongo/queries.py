"""The reading questions, as MongoDB takes them: conditions on declared fields, pages, tallies.

What an aggregate is looked by is asked with `LIVE`. The index of the list order is limited to it,
and tombstones lack what other indexes begin with, so no read steps over them.

That a number is there is asked as a range, and filters are flat: not every server takes an index
for `$exists`, or looks into `$and` for one.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

from rapport.common.store.fields import Condition, Declaration, Primitive
from rapport.common.store.mongo.client import Document
from rapport.common.store.port import Range, Where

LIVE: Final[Document] = {"schema": {"$lte": math.inf}}
IS_DUE: Final[Document] = {"next_due": {"$lte": math.inf}}
IS_WAITING: Final[Document] = {"waiting_since": {"$lte": math.inf}}

_OWN: Final = {"id": "_id", "version": "version", "next_due": "next_due"}


def path(name: str) -> str:
    """Return where a declared field is in a document."""
    return _OWN.get(name, f"fields.{name}")


def matching(declared: Declaration, where: Where | None, *terms: Document) -> Document:
    """Return the filter for what `where` and all of `terms` ask for; raises Invalid."""
    asked = [(path(name), _wanted(condition)) for name, condition in declared.conditions(where)]
    found = [{name: wanted} for name, wanted in asked if wanted != {}]
    found.extend(term for term in terms if term)
    named = Counter(name for term in found for name in term)
    if any(times > 1 for times in named.values()):
        return {"$and": found}
    return {name: wanted for term in found for name, wanted in term.items()}


def behind(declared: Declaration, cursor: str | None, *, newest_first: bool) -> Document:
    """Return the filter for what follows a cursor; raises Invalid.

    The first bound is where an index is entered, the others tell apart what shares that place.
    """
    if cursor is None:
        return {}
    place, id = declared.place(cursor)
    order, beyond = path(declared.order.name), "$lt" if newest_first else "$gt"
    if order == "_id":
        return {"_id": {beyond: id}}
    further: list[Document] = [{order: {beyond: place}}, {"_id": {beyond: id}}]
    return {order: {f"{beyond}e": place}, "$or": further}


def sorting(declared: Declaration, *, newest_first: bool) -> list[tuple[str, int]]:
    """Return what a kind's lists are sorted by."""
    way = -1 if newest_first else 1
    return [(name, way) for name in dict.fromkeys((path(declared.order.name), "_id"))]


def placed(declared: Declaration, found: Document) -> Primitive:
    """Return the place of a document in its kind's lists, for a cursor."""
    place: Any = found
    for step in path(declared.order.name).split("."):
        place = place[step]
    return cast(Primitive, place)


def tally(
    declared: Declaration, by: Sequence[str], matched: Document, sums: Sequence[str]
) -> list[Document]:
    """Return the stages that count groups, in order of their values; raises Invalid.

    A group answers its `_id`, a list of the values, and `count`, `sum0`, `sum1` and so on.
    """
    group: Document = {"_id": [f"${path(declared.field(name).name)}" for name in by]}
    totals = {
        f"sum{place}": {"$sum": f"${path(declared.summed(name).name)}"}
        for place, name in enumerate(sums)
    }
    return [{"$match": matched}, {"$group": group | {"count": {"$sum": 1}} | totals}, *_BY_GROUP]


_BY_GROUP: Final[list[Document]] = [{"$sort": {"_id": 1}}]


def _wanted(condition: Condition) -> Any:
    if isinstance(condition, Range):
        bounds = {"$gte": condition.start, "$lt": condition.end}
        return {operator: bound for operator, bound in bounds.items() if bound is not None}
    return {"$in": condition} if isinstance(condition, list) else condition
