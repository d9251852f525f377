"""The fields that a mapping can fill, and how a foreign value becomes one of ours.

Foreign systems send text where we want a number and numbers where we want text; a table sends
nothing but text. Conversion is exact or refused: nothing is rounded and nothing is guessed.
"""

import re
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final

from pydantic import ValidationError

from rapport.common.strict_json import pointer_to
from rapport.intake.domain.submission import SUBMISSION, problems_of

Scalar = str | int | float | bool


class Form(Enum):
    """What a field holds."""

    TEXT = "text"
    NUMBER = "number"
    COUNT = "whole number"
    FLAG = "true or false"
    MOMENT = "date and time"


FORMS: Final = {
    "rating.value": Form.NUMBER,
    "rating.minimum": Form.NUMBER,
    "rating.maximum": Form.NUMBER,
    "reach.followers": Form.COUNT,
    "reach.reposts": Form.COUNT,
    "reach.views": Form.COUNT,
    "public": Form.FLAG,
    "historical": Form.FLAG,
    "occurred_at": Form.MOMENT,
} | dict.fromkeys(
    (
        *("kind", "channel", "source", "source_ref", "thread_ref", "in_reply_to", "language"),
        *("contact.kind", "contact.name", "contact.email", "contact.phone", "contact.url"),
        *("subject", "text", "product", "region", "brand", "remedy_sought", "url", "outlet"),
    ),
    Form.TEXT,
)
"""Every field by its dotted name; `contact.handles.` and the name of a network comes on top."""

_HANDLE: Final = re.compile(r"contact\.handles\.[a-z0-9_-]{1,40}")
_NUMBER: Final = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
_COUNT: Final = re.compile(r"\d{1,15}")
_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def form_of(target: str) -> Form:
    """Return what field `target` (dotted, such as contact.email) holds.

    Raises ValueError with the nearest name where feedback has no such field.
    """
    if _HANDLE.fullmatch(target):
        return Form.TEXT
    if target not in FORMS:
        near = get_close_matches(target, [*FORMS, "contact.handles.telegram"], n=1)
        raise ValueError("is not a field of feedback" + "".join(f"; is it {n}?" for n in near))
    return FORMS[target]


def as_text(value: Scalar) -> str:
    """Return a scalar as text: true and false as JSON writes them, numbers as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def convert(target: str, value: Scalar) -> Scalar:
    """Return `value` in the form of field `target`; raises ValueError with the reason."""
    match form_of(target):
        case Form.NUMBER:
            return _number(value)
        case Form.COUNT:
            return _count(value)
        case Form.FLAG:
            return _flag(value)
        case _:
            return as_text(value)


def _number(value: Scalar) -> float:
    text = as_text(value)
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a number like 4 or 4.5")
    return float(text)


def _count(value: Scalar) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = as_text(value)
    if not _COUNT.fullmatch(text):
        raise ValueError("is not a whole number")
    return int(text)


def _flag(value: Scalar) -> bool:
    flag = _FLAGS.get(as_text(value).casefold())
    if flag is None:
        raise ValueError("is not true or false, yes or no, 1 or 0")
    return flag


def place(document: dict[str, Any], target: str, value: Scalar) -> None:
    """Put `value` at the dotted `target` of the submission-shaped `document`."""
    *parents, name = target.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value


def check_constant(target: str, value: Scalar) -> None:
    """Raise ValueError where no submission could have `value` in field `target`."""
    document: dict[str, Any] = {"kind": "complaint", "channel": "other", "text": "-"}
    if target.startswith("rating."):
        document["rating"] = {"value": 0, "minimum": 0, "maximum": 1}
    place(document, target, convert(target, value))
    try:
        SUBMISSION.validate_python(document)
    except ValidationError as error:
        where = pointer_to(target.split("."))
        for problem in problems_of(error):
            if problem.pointer == where:
                raise ValueError(problem.reason) from None
