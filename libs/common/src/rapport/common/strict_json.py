"""JSON from strangers: strict, bounded, and exact about what is wrong.

What is right costs one pass of jiter. What jiter refuses is read once more, slowly, to name the
fields at fault: a key given twice, half a character, bytes that are not UTF-8, NaN. In a batch
such a fault concerns only its own item; where the text is no JSON at all, the position is told.
No reason repeats a value.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import jiter

from rapport.common.errors import FieldProblem, Malformed, TooLarge

MAX_DEPTH: Final = 32
"""How many arrays and objects may lie within each other."""

MAX_CONTAINERS: Final = 250_000
"""How many arrays and objects a document may have: each takes some 100 bytes, however short."""

MAX_PROBLEMS: Final = 50
"""How many problems are told at once."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TOO_DEEP: Final = f"is nested deeper than {MAX_DEPTH} levels"


def parse_json(body: bytes) -> Any:
    """Return the value that `body` holds.

    Raises `Malformed` for what is not JSON (with line and column), for nesting over 32 levels, and,
    naming each field, for keys given twice, NaN and Infinity, broken UTF-8 and lone surrogates.
    """
    try:
        value = _parse(body)
    except ValueError as error:
        value = _read_slowly(body, error)
        raise _refusal(value) or _not_json(error) from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _too_deep(value):
        raise _nested_too_deep()
    return value


def parse_array(body: bytes, limit: int) -> Iterator[Any]:
    """Return the items of the JSON array `body`; an item at fault as the `Malformed` that it is.

    Raises `Malformed` where the whole is not a JSON array, `TooLarge` for more than `limit` items.
    """
    suspect = False
    try:
        items = _parse(body)
    except ValueError as error:
        suspect = True
        items = _read_slowly(body, error)
    if not isinstance(items, list):
        raise Malformed("the batch is not a JSON array", [FieldProblem("", "must be an array")])
    if len(items) > limit:
        raise TooLarge(f"the batch holds {len(items)} items; at most {limit} are taken at once")
    return (
        (_refusal(item) if suspect else None) or (_nested_too_deep() if _too_deep(item) else item)
        for item in items
    )


def pointer_to(location: Iterable[str | int]) -> str:
    """Return the RFC 6901 JSON pointer to `location`; long names are cut, broken ones repaired."""
    return "".join(f"/{_step(step)}" for step in location)


def _step(step: str | int) -> str:
    readable = str(step)[:100].encode(errors="replace").decode()
    return readable.replace("~", "~0").replace("/", "~1")


def _parse(body: bytes) -> Any:
    """Read it at once; raises `TooLarge` for what would take many times its size in memory."""
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS:
        raise TooLarge(f"the JSON has over {MAX_CONTAINERS:,} objects and arrays")
    return jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")


class _Flaw(NamedTuple):
    """Stands where a value was that JSON does not allow."""

    reason: str


def _read_slowly(body: bytes, refusal: ValueError) -> Any:
    """Return what the standard library makes of `body`, with a `_Flaw` in each place at fault.

    Raises `Malformed` with the position of `refusal` where this reader gives up as well.
    """
    try:
        return json.loads(
            body.decode(errors="surrogateescape"),
            object_pairs_hook=_object,
            parse_constant=lambda _: _Flaw("is NaN or Infinity, which JSON does not know"),
        )
    except (ValueError, RecursionError):
        raise _not_json(refusal) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        times = Counter(key for key, _ in pairs)
        members.update({key: _Flaw("is given twice") for key in times if times[key] > 1})
    return members


def _refusal(value: Any) -> Malformed | None:
    flaws = list(islice(_flaws(value), MAX_PROBLEMS))
    return Malformed("the JSON breaks the rules in places", flaws) if flaws else None


def _flaws(value: Any) -> Iterator[FieldProblem]:
    open_values: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while open_values:
        location, value = open_values.pop()
        match value:
            case _Flaw(reason):
                yield FieldProblem(pointer_to(location), reason)
            case str() if _SURROGATE.search(value):
                yield FieldProblem(pointer_to(location), "is not valid Unicode (UTF-8)")
            case dict():
                for key in filter(_SURROGATE.search, value):
                    yield FieldProblem(pointer_to((*location, key)), "has a name that is not UTF-8")
                open_values += [((*location, key), value[key]) for key in reversed(value)]
            case list():
                open_values += [((*location, i), value[i]) for i in reversed(range(len(value)))]


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
        ]
    return any(isinstance(item, dict | list) for item in level)


def _nested_too_deep() -> Malformed:
    return Malformed("the JSON is nested too deep", [FieldProblem("", _TOO_DEEP)])


def _not_json(error: ValueError) -> Malformed:
    """Tell jiter's words and position, but not the name of a key."""
    words = str(error)
    if words.startswith("recursion limit"):
        return _nested_too_deep()
    words = re.sub('^Detected duplicate key ".*"(?= at line)', "duplicate key", words, flags=re.S)
    return Malformed("the body is not JSON", [FieldProblem("", f"is not JSON: {words}")])
