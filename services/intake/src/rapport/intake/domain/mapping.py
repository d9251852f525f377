"""Mappings: how somebody else's table or JSON becomes feedback, as a small YAML file.

    zone: Europe/Berlin                       # where times without a zone were told
    always:                                   # our field: a fixed value
      kind: complaint
      source: helpdesk
    fields:                                   # our field: their column or path
      source_ref: Ticket ID
      contact.email: ticket.requester.email
      subject: {template: "{Product}: {Issue}"}
      text: {first: [Narrative, Issue]}
      channel: {from: Via, values: {Phone: hotline, Mail: email}, otherwise: other}
      occurred_at: {from: Created, date: "%d.%m.%Y %H:%M"}

A mapping is data: it names, picks and renames, and runs nothing. All that can be wrong with it is
found when it is read, with file, line and field. docs/mappings.md teaches the language,
`rapport.intake.domain.translation` speaks it.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rapport.common.matching import Conditions
from rapport.common.policy import parse_yaml
from rapport.common.strict_json import MAX_PROBLEMS
from rapport.intake.domain.targets import Form, Scalar, check_constant, form_of

Location = tuple[str | int, ...]

REFERENCE: Final = re.compile(r"\{([^{}]+)\}")
"""A path in a template."""

ZONED_FORMATS: Final = frozenset({"unix", "unix_ms"})
"""Date formats that name an instant by themselves; the others are "iso" and strptime's."""


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("mapping", "{reason}", {"reason": reason})


def _raise_all(title: str, faults: Iterable[tuple[Location, str]]) -> None:
    found = [
        InitErrorDetails(type=_refusal(reason), loc=location, input=None)
        for location, reason in islice(faults, MAX_PROBLEMS)
    ]
    if found:
        raise ValidationError.from_exception_data(title, found)


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise _refusal("must be text, a number, true or false; a date needs quotes")
    return value


def _scalar_or_nothing(value: object) -> object:
    return None if value is None else _scalar(value)


def _table(value: object) -> object:
    if not isinstance(value, dict) or not value:
        raise _refusal("must be a table like {Phone: hotline, Mail: email}")
    if any(key is None or isinstance(key, bool) for key in value):
        raise _refusal('put quotes around yes, no, on, off and null: "Yes": ...')
    if len({fold(str(key)) for key in value}) < len(value):
        raise _refusal("tells a value twice (case and outer spaces do not count)")
    return {str(key): _scalar_or_nothing(item) for key, item in value.items()}


def fold(value: str) -> str:
    """Return the form in which a table's left side is compared: no outer spaces, any case."""
    return value.strip().casefold()


def _zone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (LookupError, ValueError, OSError):
        raise _refusal("is not a time zone like Europe/Berlin or UTC") from None


def _template(value: str) -> str:
    around = REFERENCE.sub("", value)
    if around == value or "{" in around or "}" in around:
        raise _refusal('must hold names in braces, like "{Product}: {Issue}"')
    return value


def _formats(value: object) -> object:
    formats = value if isinstance(value, list) else [value]
    for pattern in formats:
        _check_format(pattern)
    return tuple(formats)


def _check_format(pattern: object) -> None:
    """Check that a format can be read back and says the whole day."""
    if pattern == "iso" or pattern in ZONED_FORMATS:
        return
    probe = datetime(2013, 11, 29, 22, 22, 5, tzinfo=UTC)
    try:
        told = datetime.strptime(probe.strftime(str(pattern)), str(pattern))
    except ValueError:
        told = None
    if told is None or told.date() != probe.date():
        raise _refusal("must be iso, unix, unix_ms or a format with year, month and day: %Y-%m-%d")


Path = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Template = Annotated[str, Field(strict=True, max_length=500), AfterValidator(_template)]
Zone = Annotated[str, Field(strict=True), AfterValidator(_zone)]
Constant = Annotated[Scalar, PlainValidator(_scalar)]


class Written(BaseModel):
    """Base of what people write: an unknown name is refused with the nearest known one."""

    SHAPE: ClassVar[str] = "must be a table of names and values"

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _knows_every_name(cls, written: object) -> object:
        if not isinstance(written, dict):
            raise _refusal(cls.SHAPE)
        known = [field.alias or name for name, field in cls.model_fields.items()]
        _raise_all(cls.__name__, _unknown_names(written, known))
        return written


def _unknown_names(written: dict[Any, Any], known: list[str]) -> Iterator[tuple[Location, str]]:
    for name in filter(lambda name: name not in known, written):
        near = get_close_matches(str(name), known, n=1)
        if near:
            hint = f"is it {near[0]}?"
        elif written[name] is None:
            hint = "braces without quotes mean something else in YAML: write the name without them"
        else:
            hint = f"known are {', '.join(known)}"
        yield (str(name),), f"is not known here; {hint}"


def _as_rule(written: object) -> object:
    return {"from": written} if isinstance(written, str) else written


class Rule(Written):
    """Where a field's value comes from (one of from, template, first) and what is done to it.

    In this order: `join` a list to a text, take `part` (from 0; -1 is the last) of the text `split`
    at a separator, look it up in `values`, read it as a `date` in `zone`. `otherwise` is the value
    where nothing was found; with `values` also where the table does not list what was found.
    """

    SHAPE = "must be the name of a column, a path, or a rule like {from: Via, otherwise: web}"

    path: Path | None = Field(None, alias="from")
    template: Template | None = None
    first: tuple["RuleOrPath", ...] | None = Field(None, min_length=1, max_length=20)
    join: str | None = None
    split: Annotated[str, Field(min_length=1)] | None = None
    part: int = 0
    values: Annotated[dict[str, Scalar | None], PlainValidator(_table)] | None = None
    otherwise: Annotated[Scalar | None, PlainValidator(_scalar_or_nothing)] = None
    date: Annotated[tuple[str, ...], BeforeValidator(_formats)] | None = None
    zone: Zone | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if [self.path, self.template, self.first].count(None) != 2:
            raise _refusal("needs one of from, template, first")
        if self.split is None and "part" in self.model_fields_set:
            raise _refusal("has a part, but nothing to split at")
        return self

    @cached_property
    def table(self) -> dict[str, Scalar | None]:
        """The `values` by the form in which they are compared."""
        return {fold(key): value for key, value in (self.values or {}).items()}


RuleOrPath = Annotated[Rule, BeforeValidator(_as_rule)]


class Mapping(Written):
    """How one kind of foreign document becomes feedback.

    `name` is the file's. `events` are the CloudEvents types it serves (a final * stands for any
    ending). With `each`, a path to a list, every item there is one feedback; the other paths start
    at the item, or with `$.` at the whole document. An item is left out unless `only_when` holds,
    or where `skip_when` does. A target is set by `always` or by `fields`, not both.
    """

    name: str = ""
    about: str = ""
    events: tuple[Annotated[str, Field(pattern=r"^[^*\s]+\*?$")], ...] = ()
    each: Path | None = None
    only_when: Conditions = Conditions({})
    skip_when: Conditions | None = None
    zone: Zone | None = None
    always: dict[str, Constant] = {}
    fields: dict[str, RuleOrPath] = {}

    @model_validator(mode="after")
    def _can_make_feedback(self) -> Self:
        _raise_all("Mapping", _faults(self))
        return self


def parse_mapping(text: str, name: str) -> Mapping:
    """Return the mapping in the YAML `text` of the file `name`; it is known by the file's stem.

    Raises `Invalid`, whose reason has a line `name:line: field: reason` for each mistake.
    """
    stem = name.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return parse_yaml(text, Mapping, name).model_copy(update={"name": stem})


def serving(mappings: Iterable[Mapping], event_type: str) -> Mapping | None:
    """Return the mapping that serves a CloudEvents type: an exact one, else the longest prefix."""
    candidates = [
        (served == event_type, len(served), mapping)
        for mapping in mappings
        for served in mapping.events
        if served == event_type or (served[-1] == "*" and event_type.startswith(served[:-1]))
    ]
    return max(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def _faults(mapping: Mapping) -> Iterator[tuple[Location, str]]:
    for target, value in mapping.always.items():
        yield from _constant_fault(("always", target), target, value)
        if target in mapping.fields:
            yield ("fields", target), "is set by 'always' as well: take one away"
    for target, rule in mapping.fields.items():
        try:
            form_of(target)
        except ValueError as error:
            yield ("fields", target), str(error)
        else:
            yield from _rule_faults(mapping, ("fields", target), target, rule)
    yield from _missing(mapping)


def _missing(mapping: Mapping) -> Iterator[tuple[Location, str]]:
    targets = {*mapping.always, *mapping.fields}
    for required in ("kind", "channel"):
        if required not in targets:
            yield ("fields", required), "is required: set it in 'always' or in 'fields'"
    if not targets & {"text", "rating.value"}:
        yield ("fields", "text"), "is required (or rating.value)"
    if "rating.value" in targets and not targets >= {"rating.minimum", "rating.maximum"}:
        yield ("fields", "rating.value"), "needs rating.minimum and rating.maximum"


def _rule_faults(
    mapping: Mapping, location: Location, target: str, rule: Rule
) -> Iterator[tuple[Location, str]]:
    if rule.otherwise is not None:
        yield from _constant_fault((*location, "otherwise"), target, rule.otherwise)
    for value, ours in (rule.values or {}).items():
        if ours is not None:
            yield from _constant_fault((*location, "values", value), target, ours)
    if rule.date is not None and form_of(target) is not Form.MOMENT:
        yield (*location, "date"), "belongs to occurred_at alone"
    if _needs_zone(rule) and not (rule.zone or mapping.zone):
        yield (*location, "date"), "tells no time zone: add zone: Europe/Berlin, or UTC"
    if rule.values is None:
        for position, inner in enumerate(rule.first or ()):
            yield from _rule_faults(mapping, (*location, "first", position), target, inner)


def _needs_zone(rule: Rule) -> bool:
    return any(
        "%z" not in pattern and pattern != "iso" and pattern not in ZONED_FORMATS
        for pattern in rule.date or ()
    )


def _constant_fault(
    location: Location, target: str, value: Scalar
) -> Iterator[tuple[Location, str]]:
    try:
        check_constant(target, value)
    except ValueError as error:
        yield location, str(error)
