"""Applying a mapping: a foreign document in, submission-shaped documents out.

What is empty in the document (nothing, null, spaces) is left out of the submission. A value that
the mapping cannot read is refused in the sender's own names, and never repeated.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast
from zoneinfo import ZoneInfo

from rapport.common.errors import FieldProblem, Invalid, TooLarge
from rapport.common.matching import Conditions
from rapport.common.strict_json import pointer_to
from rapport.intake.domain.mapping import REFERENCE, Mapping, Rule, fold
from rapport.intake.domain.targets import Form, Scalar, as_text, convert, form_of, place

_MAX_DATE: Final = 100
_LATIN_DIGITS: Final = str.maketrans("۰۱۲۳۴۵۶۷۸۹٠١٢٣٤٥٦٧٨٩", "0123456789" * 2)
_POSITION: Final = re.compile(r"-?\d{1,9}")


class Scope(NamedTuple):
    """What paths look into: one item, and with `$.` the whole document that it came in."""

    item: Any
    whole: Any


class Unreadable(Invalid):
    """What the mapping cannot read; the fields at fault have the names that the mapping knows."""


class _Unreadable(Exception):
    """A value at `path` that the mapping cannot take; the document is refused with `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def apply_all(
    mapping: Mapping, document: Any, whole: Any = None, limit: int | None = None
) -> Iterator[tuple[int, dict[str, Any] | Invalid]]:
    """Yield what each item of `document` says: its position in `each`, and its submission or fault.

    Items that the conditions leave out are passed over, without moving the others' positions.
    `whole` is what `$.` paths start at if not the document itself: a CloudEvent around its data.
    Raises `TooLarge` for more than `limit` items, wanted or not.
    """
    whole = document if whole is None else whole
    items = _items(mapping, document)
    if limit is not None and len(items) > limit:
        raise TooLarge(f"the document holds {len(items)} items; at most {limit} are gone through")
    for position, item in enumerate(items):
        if _is_wanted(mapping, Scope(item, whole)):
            try:
                yield position, apply(mapping, item, whole)
            except Invalid as refusal:
                yield position, refusal


def apply(mapping: Mapping, item: Any, whole: Any = None) -> dict[str, Any]:
    """Return the submission-shaped dict of one item; `whole` is what `$.` paths start at.

    Raises `Unreadable` with one problem for each of the sender's fields that cannot be read.
    Whether the result is a valid submission is for `read_submission` to say.
    """
    scope = Scope(item, item if whole is None else whole)
    submission: dict[str, Any] = {}
    problems = []
    for target, constant in mapping.always.items():
        place(submission, target, convert(target, constant))
    for target, rule in mapping.fields.items():
        try:
            value = _value(mapping, target, rule, scope)
        except _Unreadable as error:
            problems.append(FieldProblem(_pointer(item, error.path), error.reason))
        else:
            if value is not None:
                place(submission, target, value)
    if problems:
        raise Unreadable(f"mapping {mapping.name} cannot read the document", problems)
    if "rating" in submission and "value" not in submission["rating"]:
        del submission["rating"]
    return submission


def origin_of(mapping: Mapping, pointer: str) -> str | None:
    """Return the sender's names for the field of a submission that `pointer` points to.

    None where the mapping sets it without looking ("/kind" from `always`), or not at all.
    """
    rule = mapping.fields.get(pointer.removeprefix("/").replace("/", "."))
    return " or ".join(dict.fromkeys(_paths(rule))) if rule else None


def find(document: Any, path: str) -> Any:
    """Return what lies at `path`, None if nothing does.

    A name that is there as it stands is taken as it stands, dots included; otherwise a dot goes
    deeper, a number is a position in a list (from 0; -1 is the last), and * is all of its items.
    """
    if isinstance(document, dict):
        if path in document:
            return document[path]
        name, _, rest = path.partition(".")
        return find(document[name], rest) if rest and name in document else None
    if isinstance(document, list):
        step, _, rest = path.partition(".")
        if step == "*":
            return _every(document, rest)
        if _POSITION.fullmatch(step) and -len(document) <= int(step) < len(document):
            item = document[int(step)]
            return find(item, rest) if rest else item
    return None


def _every(items: list[Any], rest: str) -> list[Any]:
    """Return what `rest` finds in each item, as one list."""
    found = [find(item, rest) if rest else item for item in items]
    return [
        inner
        for item in found
        if item is not None
        for inner in (item if isinstance(item, list) else [item])
    ]


def _pointer(item: Any, path: str) -> str:
    named_as_it_stands = isinstance(item, dict) and path in item
    return pointer_to([path] if named_as_it_stands else path.removeprefix("$.").split("."))


def _look_up(scope: Scope, path: str) -> Any:
    found = find(scope.item, path)
    if found is None and path.startswith("$."):
        found = find(scope.whole, path.removeprefix("$."))
    return _or_nothing(found)


def _or_nothing(value: Any) -> Any:
    return value.strip() or None if isinstance(value, str) else value


def _items(mapping: Mapping, document: Any) -> list[Any]:
    if mapping.each is None:
        return [document]
    found = find(document, mapping.each)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _is_wanted(mapping: Mapping, scope: Scope) -> bool:
    skipped = mapping.skip_when is not None and _hold(mapping.skip_when, scope)
    return not skipped and _hold(mapping.only_when, scope)


def _hold(conditions: Conditions, scope: Scope) -> bool:
    return conditions.hold({path: _look_up(scope, path) for path in conditions.root})


def _value(mapping: Mapping, target: str, rule: Rule, scope: Scope) -> Scalar | None:
    """Return the value of `target` in its form, None if the document has none."""
    value = _evaluate(mapping, rule, scope)
    if value is None:
        return None
    path = next(_paths(rule))
    if form_of(target) is Form.MOMENT:
        return _moment(value, ("iso",), rule.zone or mapping.zone, path)
    try:
        return convert(target, value)
    except ValueError as error:
        raise _Unreadable(path, str(error)) from None


def _evaluate(mapping: Mapping, rule: Rule, scope: Scope) -> Scalar | None:
    path = next(_paths(rule))
    value = _scalar(_taken(mapping, rule, scope), rule, path)
    if value is not None and rule.split is not None:
        value = _part(as_text(value).split(rule.split), rule.part)
    if value is None:
        return rule.otherwise
    if rule.values is not None:
        value = _translated(rule, value, path)
    if value is not None and rule.date is not None:
        value = _moment(value, rule.date, rule.zone or mapping.zone, path)
    return value


def _taken(mapping: Mapping, rule: Rule, scope: Scope) -> Any:
    if rule.path is not None:
        return _look_up(scope, rule.path)
    if rule.template is not None:
        return _filled(rule.template, scope)
    values = (_evaluate(mapping, inner, scope) for inner in rule.first or ())
    return next((value for value in values if value is not None), None)


def _filled(template: str, scope: Scope) -> str | None:
    """Return the template with every {path} replaced; None if one of them is empty."""
    paths = _references(template)
    found = [_scalar(_look_up(scope, path), None, path) for path in paths]
    texts = {
        path: as_text(value) for path, value in zip(paths, found, strict=True) if value is not None
    }
    if len(texts) < len(set(paths)):
        return None
    return REFERENCE.sub(lambda reference: texts[reference[1]], template)


@lru_cache(maxsize=1_000)
def _references(template: str) -> tuple[str, ...]:
    return tuple(REFERENCE.findall(template))


def _scalar(value: Any, rule: Rule | None, path: str) -> Scalar | None:
    if isinstance(value, list) and rule is not None and rule.join is not None:
        parts = [_scalar(_or_nothing(item), None, path) for item in value]
        value = rule.join.join(as_text(part) for part in parts if part is not None) or None
    if isinstance(value, list):
        raise _Unreadable(path, "is a list: say join, or a position such as .0")
    if isinstance(value, dict):
        raise _Unreadable(path, "holds fields of its own: name one of them")
    return cast("Scalar | None", value)


def _part(parts: list[str], part: int) -> str | None:
    return parts[part].strip() or None if -len(parts) <= part < len(parts) else None


def _translated(rule: Rule, value: Scalar, path: str) -> Scalar | None:
    key = fold(as_text(value))
    if key in rule.table:
        return rule.table[key]
    if "otherwise" in rule.model_fields_set:
        return rule.otherwise
    raise _Unreadable(path, "has a value that the mapping's table does not list")


def _moment(value: Scalar, formats: tuple[str, ...], zone: str | None, path: str) -> str:
    """Return the moment in UTC as ISO 8601, read by the first format that fits."""
    text = as_text(value).translate(_LATIN_DIGITS)
    for pattern in formats if len(text) <= _MAX_DATE else ():
        moment = _read_moment(text, pattern)
        if moment is None:
            continue
        if moment.tzinfo is None:
            if zone is None:
                raise _Unreadable(path, "tells no time zone, and the mapping names none")
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        return moment.astimezone(UTC).isoformat()
    raise _Unreadable(path, f"is not a date like {' or '.join(formats)}")


def _read_moment(text: str, pattern: str) -> datetime | None:
    """Return what `pattern` reads in `text`; None where it does not fit, or a year of 1 or 9999."""
    try:
        match pattern:
            case "iso":
                moment = datetime.fromisoformat(text)
            case "unix":
                moment = datetime.fromtimestamp(float(text), UTC)
            case "unix_ms":
                moment = datetime.fromtimestamp(float(text) / 1_000, UTC)
            case _:
                moment = datetime.strptime(text, pattern)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if 1 < moment.year < 9999 else None


def _paths(rule: Rule) -> Iterator[str]:
    """Name every path that a rule may look at, in order."""
    if rule.path is not None:
        yield rule.path
    if rule.template is not None:
        yield from _references(rule.template)
    for inner in rule.first or ():
        yield from _paths(inner)
