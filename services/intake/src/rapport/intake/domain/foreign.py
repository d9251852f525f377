"""What comes in other people's form: documents read by a mapping, and CloudEvents around them.

A CloudEvent's `type` says how to read its data: ours (`rapport.feedback.submitted.v1`) is a
submission as it is, any other needs a mapping that serves it. Problems point into the item, which
is a CloudEvent's data; where a mapping took the field from somewhere else, they say from where.
What is marked `historical`, and what is part of a drill, may say so in the event's attributes.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from rapport.common.errors import FieldProblem, Invalid, Malformed
from rapport.common.strict_json import parse_json
from rapport.intake.domain import mapping as mappings
from rapport.intake.domain.submission import (
    MAX_AHEAD,
    SentAttachment,
    SentContact,
    SentRating,
    SentReach,
    Submission,
    problems_of,
    read_submission,
)
from rapport.intake.domain.translation import Unreadable, apply_all, origin_of

ITEMS_LIMIT: Final = 10_000
"""Items of one document that are gone through, whether the mapping wants them or not."""

SUBMITTED: Final = "rapport.feedback.submitted.v1"
"""The CloudEvents type whose data are a submission."""

STRUCTURED: Final = "application/cloudevents+json"
"""The content type of an event whose attributes lie beside its data, not in headers."""

_EXERCISE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def exercise_id(value: str) -> str:
    """Return `value` if it can be the id of a drill; raises ValueError with the reason."""
    if not _EXERCISE.fullmatch(value):
        raise ValueError("must be at most 100 letters, digits, dots, dashes and underscores")
    return value


def _time(value: str) -> str:
    if not _is_time(value):
        raise ValueError("is not a date and time like 2026-03-18T09:30:00Z")
    return value


def _is_time(value: str) -> bool:
    try:
        return value[4:5] == "-" and _moment(value).tzinfo is not None
    except (ValueError, OverflowError):
        return False


def _moment(time: str) -> datetime:
    return datetime.fromisoformat(time.upper())


def _flag(value: object) -> object:
    """Read what headers have as text."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Attribute = Annotated[str, Field(min_length=1, max_length=500)]
Items = Iterator[tuple[int, Submission | Invalid]]
"""Positions in the document, and what each item holds."""


class CloudEvent(BaseModel):
    """The attributes of a CloudEvent that intake reads, and its data; others are kept as sent.

    `exercise` names the drill that it is part of; `historical` marks an import of the past.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Attribute
    datacontenttype: Annotated[str, Field(max_length=200)] = "application/json"
    time: Annotated[str, Field(max_length=100), AfterValidator(_time)] | None = None
    exercise: Annotated[str, AfterValidator(exercise_id)] | None = None
    historical: Annotated[bool | None, BeforeValidator(_flag)] = None
    data: Any = None


def read_event(document: object) -> CloudEvent:
    """Return the CloudEvent in structured mode that a parsed JSON `document` holds.

    Raises `Invalid` with one problem per attribute at fault, `Malformed` where data are not JSON.
    """
    try:
        event = CloudEvent.model_validate(document, strict=True)
    except ValidationError as error:
        raise Invalid("this is not a CloudEvent 1.0", problems_of(error)) from None
    if not _is_json(event.datacontenttype):
        wrong = FieldProblem("/datacontenttype", "must be JSON")
        raise Invalid("the event cannot be read", [wrong])
    encoded = (event.model_extra or {}).get("data_base64")
    if encoded is None:
        return event
    return event.model_copy(update={"data": parse_json(_decoded(encoded))})


def read_binary_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return the CloudEvent in HTTP's binary mode: attributes in `ce-` headers, data in the body.

    Raises `Invalid` and `Malformed` as `read_event` does.
    """
    attributes = {
        name.removeprefix("ce-"): unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    return _binary(attributes, headers.get("content-type"), body)


def read_record(headers: Iterable[tuple[str, bytes]], value: bytes | None) -> CloudEvent:
    """Return the CloudEvent in a Kafka record, in structured or in binary mode.

    It is structured where the header `content-type` says so; else its attributes are in `ce_`
    headers and its data are the value. Raises `Invalid` and `Malformed` as `read_event` does, also
    for a record without a value.
    """
    if value is None:
        raise Malformed("the record has no value")
    try:
        told = {
            name: text.decode()
            for name, text in headers
            if name == "content-type" or name.startswith("ce_")
        }
    except UnicodeDecodeError:
        raise Malformed("a header of the record is not UTF-8") from None
    content_type = told.pop("content-type", None)
    if _media_type(content_type or "") == STRUCTURED:
        return read_event(parse_json(value))
    attributes = {name.removeprefix("ce_"): text for name, text in told.items()}
    return _binary(attributes, content_type, value)


def _binary(attributes: Mapping[str, str], content_type: str | None, body: bytes) -> CloudEvent:
    event = read_event({**attributes, "datacontenttype": content_type or "application/json"})
    return event.model_copy(update={"data": parse_json(body) if body else None})


def items_of_event(
    event: CloudEvent, known: Mapping[str, mappings.Mapping], received_at: datetime
) -> Items:
    """Yield what the event brings.

    Raises `Invalid` for an event of the future, and, naming its type, if nothing serves it.
    """
    if event.time and _moment(event.time) > received_at + MAX_AHEAD:
        late = FieldProblem("/time", "is more than a day in the future")
        raise Invalid("the event cannot be read", [late])
    past = bool(event.historical)
    if event.type == SUBMITTED:
        return iter([(0, _read(event.data, received_at, past))])
    mapping = mappings.serving(known.values(), event.type)
    if mapping is None:
        unknown = FieldProblem("/type", f"{event.type} is served by no mapping")
        raise Invalid("the event cannot be read", [unknown])
    data = event.data if isinstance(event.data, dict) else {}
    attributes = {name: value for name, value in vars(event).items() if value is not None}
    whole = data | (event.model_extra or {}) | attributes
    return items_of_document(mapping, event.data, received_at, whole, past)


def items_of_document(
    mapping: mappings.Mapping,
    document: Any,
    received_at: datetime,
    whole: Any = None,
    past: bool = False,
) -> Items:
    """Yield what a foreign `document` brings, all of it historical if it is of the `past`.

    `whole` is what `$.` paths start at, if not the document. Raises `TooLarge` for one with more
    than `ITEMS_LIMIT` items.
    """
    for position, result in apply_all(mapping, document, whole, ITEMS_LIMIT):
        if isinstance(result, Invalid):
            yield position, result
        else:
            yield position, _in_their_words(mapping, _read(result, received_at, past))


def what_is_wrong(refusal: Invalid) -> str:
    """Return the reason with each field at fault, for those who were not told by an answer.

    A name that is not one of ours, nor of a mapping's, is part of what was sent: it becomes `...`.
    """
    problems = "; ".join(_shown(refusal, problem) for problem in refusal.problems[:_MAX_TOLD])
    return f"{refusal.reason}: {problems}" if problems else refusal.reason


def _shown(refusal: Invalid, problem: FieldProblem) -> str:
    pointer = problem.pointer
    if not isinstance(refusal, Unreadable):
        steps = (
            step if step in _OURS or step.isdecimal() else "..." for step in pointer.split("/")
        )
        pointer = "/".join(steps).removeprefix("...")
    return f"{pointer} {problem.reason}".lstrip()


_MAX_TOLD: Final = 5
_OURS: Final = frozenset(
    name
    for kind in (CloudEvent, Submission, SentContact, SentRating, SentReach, SentAttachment)
    for name in (*kind.model_fields, "data_base64")
)


def _read(document: object, received_at: datetime, past: bool) -> Submission | Invalid:
    if past and isinstance(document, dict):
        document = {**document, "historical": True}
    try:
        return read_submission(document, received_at)
    except Invalid as refusal:
        return refusal


def _in_their_words(
    mapping: mappings.Mapping, result: Submission | Invalid
) -> Submission | Invalid:
    """Say where the fields at fault came from."""
    if not isinstance(result, Invalid):
        return result
    return Invalid(
        result.reason,
        [
            FieldProblem(problem.pointer, f"{problem.reason} (taken from {origin})")
            if (origin := origin_of(mapping, problem.pointer))
            else problem
            for problem in result.problems
        ],
    )


def _is_json(content_type: str) -> bool:
    return _media_type(content_type).endswith(("/json", "+json"))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _decoded(encoded: object) -> bytes:
    try:
        return b64decode(encoded, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        wrong = FieldProblem("/data_base64", "is not Base64")
        raise Malformed("the event cannot be read", [wrong]) from None
