"""What comes in other people's form: documents read by a mapping, and CloudEvents around them.

A CloudEvent's `type` says how to read its data: ours (`rapport.feedback.submitted.v1`) is a
submission as it is, any other needs a mapping that serves it. Problems point into the item, which
is a CloudEvent's data; where a mapping took the field from somewhere else, they say from where.
"""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rapport.common.errors import FieldProblem, Invalid, Malformed
from rapport.common.strict_json import parse_json
from rapport.intake.domain import mapping as mappings
from rapport.intake.domain.submission import Submission, problems_of, read_submission
from rapport.intake.domain.translation import apply_all, origin_of

SUBMITTED: Final = "rapport.feedback.submitted.v1"
"""The CloudEvents type whose data are a submission."""

_EXERCISE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def exercise_id(value: str) -> str:
    """Return `value` if it can be the id of a drill; raises ValueError with the reason."""
    if not _EXERCISE.fullmatch(value):
        raise ValueError("must be at most 100 letters, digits, dots, dashes and underscores")
    return value


Attribute = Annotated[str, Field(min_length=1, max_length=500)]
Items = Iterator[tuple[int, Submission | Invalid]]
"""Positions in the document, and what each item holds."""


class CloudEvent(BaseModel):
    """The attributes of a CloudEvent that intake reads, and its data; others are kept as sent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Attribute
    datacontenttype: Annotated[str, Field(max_length=200)] = "application/json"
    exercise: Annotated[str, AfterValidator(exercise_id)] | None = None
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
    document: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    document["datacontenttype"] = headers.get("content-type") or "application/json"
    event = read_event(document)
    return event.model_copy(update={"data": parse_json(body) if body else None})


def items_of_event(
    event: CloudEvent, known: Mapping[str, mappings.Mapping], received_at: datetime
) -> Items:
    """Yield what the event brings; raises `Invalid`, naming its type, if nothing serves it."""
    if event.type == SUBMITTED:
        return iter([(0, _read(event.data, received_at))])
    mapping = mappings.serving(known.values(), event.type)
    if mapping is None:
        unknown = FieldProblem("/type", f"{event.type} is served by no mapping")
        raise Invalid("the event cannot be read", [unknown])
    data = event.data if isinstance(event.data, dict) else {}
    whole = data | (event.model_extra or {}) | vars(event)
    return items_of_document(mapping, event.data, received_at, whole)


def items_of_document(
    mapping: mappings.Mapping, document: Any, received_at: datetime, whole: Any = None
) -> Items:
    """Yield what a foreign `document` brings; `whole` is what `$.` paths start at, if not that."""
    for position, result in apply_all(mapping, document, whole):
        if isinstance(result, Invalid):
            yield position, result
        else:
            yield position, _in_their_words(mapping, _read(result, received_at))


def _read(document: object, received_at: datetime) -> Submission | Invalid:
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
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.endswith(("/json", "+json"))


def _decoded(encoded: object) -> bytes:
    try:
        return b64decode(encoded, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        wrong = FieldProblem("/data_base64", "is not Base64")
        raise Malformed("the event cannot be read", [wrong]) from None
