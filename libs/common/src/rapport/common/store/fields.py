"""The fields that a kind declares, and how an adapter stores, finds and pages by them.

A declared field is text, a number, a boolean, a datetime or None. Adapters keep it beside the
document as text, a number, 0 or 1, or microseconds since 1970, so that all of them find and sort
alike, to the microsecond. A cursor is the place of a page's last item: opaque, and checked when it
comes back.
"""

import json
import types
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import isnan
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import FieldProblem, Invalid
from rapport.common.store.port import Range, Where

Primitive = str | int | float | None
Condition = Primitive | list[Primitive] | Range

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INT64: Final = 2**63


def microseconds(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970, UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """A field's name, its type (str, int, float, bool or datetime) and whether it may be None."""

    name: str
    type: type
    optional: bool

    def encode(self, value: Any) -> Primitive:
        """Return `value` as adapters store it; raises Invalid where it is of another type."""
        if value is None:
            return None
        try:
            return _ENCODERS[self.type](value)
        except (TypeError, ValueError, OverflowError):
            problem = FieldProblem(f"/{self.name}", f"expected {_NAMES[self.type]}")
            raise Invalid(f"{self.name} is not {_NAMES[self.type]}", [problem]) from None

    def decode(self, stored: Primitive) -> Any:
        """Return what `encode` got; enumerations come back as their plain text."""
        if stored is None:
            return None
        if self.type is datetime:
            return moment(int(stored))
        return self.type(stored)


class Declaration:
    """What a kind declares: its fields by name, and which of them its lists are in order of.

    Each of `indexes` goes on with the order and the id, so a page is read from where it starts.

    Raises TypeError for a declared field that is missing, is of no such type, or orders lists and
    may be None.
    """

    def __init__(self, kind: type[Aggregate | Fact]) -> None:
        names = chain(("id", kind.ORDER), *kind.INDEXES, getattr(kind, "FIELDS", ()))
        self.kind = kind
        self.fields = {name: _resolve(kind, name) for name in dict.fromkeys(names)}
        self.order = self.fields[kind.ORDER]
        if self.order.optional:
            raise TypeError(f"{kind.__name__}.{kind.ORDER} orders lists and may not be None")
        looked_by = [*kind.INDEXES, (kind.ORDER,)] if kind.LISTED else kind.INDEXES
        columns = [tuple(dict.fromkeys((*fields, kind.ORDER, "id"))) for fields in looked_by]
        self.indexes = [names for names in dict.fromkeys(columns) if names != ("id",)]

    def field(self, name: str) -> DeclaredField:
        """Return a declared field; raises Invalid where there is none of that name."""
        found = self.fields.get(name)
        if found is None:
            problem = FieldProblem(f"/{name}", "not a field to look by")
            raise Invalid(f"{self.kind.COLLECTION} is not found by {name}", [problem])
        return found

    def summed(self, name: str) -> DeclaredField:
        """Return a declared field that can be summed; raises Invalid where it is no number."""
        field = self.field(name)
        if field.type not in (int, float, bool):
            raise Invalid(f"{name} has no sum", [FieldProblem(f"/{name}", "expected a number")])
        return field

    def conditions(self, where: Where | None) -> Iterator[tuple[str, Condition]]:
        """Yield each field's name and condition with all values as stored; raises Invalid."""
        for name, wanted in (where or {}).items():
            field = self.field(name)
            if isinstance(wanted, Range):
                yield name, Range(field.encode(wanted.start), field.encode(wanted.end))
            elif isinstance(wanted, list | tuple | set | frozenset):
                yield name, [field.encode(value) for value in wanted]
            else:
                yield name, field.encode(wanted)

    def cursor(self, place: Primitive, id: str) -> str:
        """Return the cursor behind an item: its stored order field and its id."""
        return urlsafe_b64encode(json.dumps([place, id]).encode()).decode().rstrip("=")

    def place(self, cursor: str) -> tuple[Primitive, str]:
        """Return what `cursor` got; raises Invalid where that is not a cursor of this kind."""
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            place, id = json.loads(urlsafe_b64decode(padded))
            stored_as = _STORED_AS[self.order.type]
            if type(place) is not stored_as:
                raise TypeError
            return _ENCODERS[stored_as](place), _text(id)
        except (TypeError, ValueError, OverflowError, RecursionError):
            problem = FieldProblem("/cursor", "not a cursor of this list")
            raise Invalid("the cursor is not one of this list", [problem]) from None


def _resolve(kind: type[Aggregate | Fact], name: str) -> DeclaredField:
    field = kind.model_fields.get(name)
    annotation = field.annotation if field else _returned(kind, name)
    found = set(_alternatives(annotation))
    optional = types.NoneType in found
    stored = {_storable(kind, name, item) for item in found - {types.NoneType}}
    if stored == {int, float}:
        stored = {float}
    if len(stored) != 1:
        raise TypeError(f"{kind.__name__}.{name} is of no single type to look by")
    return DeclaredField(name, stored.pop(), optional)


def _returned(kind: type, name: str) -> Any:
    attribute = getattr(kind, name, None)
    if not isinstance(attribute, property) or attribute.fget is None:
        raise TypeError(f"{kind.__name__} declares {name} and has no such field or property")
    return get_type_hints(attribute.fget).get("return")


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Name the types that an annotation allows: without unions, marks and literals around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin is Literal:
        yield from map(type, get_args(annotation))
    elif origin in (Union, types.UnionType):
        for item in get_args(annotation):
            yield from _alternatives(item)
    else:
        yield annotation


def _storable(kind: type, name: str, found: Any) -> type:
    if found is AwareDatetime:
        return datetime
    for candidate in (str, bool, int, float, datetime):
        if isinstance(found, type) and issubclass(found, candidate):
            return candidate
    raise TypeError(f"{kind.__name__}.{name} is neither text, number, boolean nor datetime")


def _text(value: Any) -> str:
    text = str.__str__(value)  # the plain text of an enumeration's member, too
    text.encode()
    return text


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    if not -_INT64 <= value < _INT64:
        raise OverflowError
    return int(value)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    if isnan(value):
        raise ValueError
    return float(value)


def _boolean(value: Any) -> int:
    if not isinstance(value, bool):
        raise TypeError
    return int(value)


_ENCODERS: Final[dict[type, Callable[[Any], str | int | float]]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    datetime: microseconds,
}
_NAMES: Final = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime: "a datetime with its time zone",
}
_STORED_AS: Final[dict[type, type]] = {str: str, int: int, float: float, bool: int, datetime: int}
