"""Many submissions in one body: the good ones go through, each bad one is told by its index.

A batch is a JSON array or NDJSON (one JSON object a line, empty lines skipped). Broken syntax
spoils a whole array, but only its own line of NDJSON.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from itertools import islice

from rapport.common.errors import Invalid, TooLarge
from rapport.common.strict_json import parse_array, parse_json
from rapport.intake.domain.submission import Submission, read_submission


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One item: its place in the batch from 0, its line from 1 (NDJSON only), what it holds."""

    index: int
    line: int | None
    result: Submission | Invalid


def read_array(body: bytes, received_at: datetime, limit: int) -> Iterator[BatchItem]:
    """Yield the items of a JSON array.

    Raises, before the first item, `Malformed` for what is no array and `TooLarge` for more than
    `limit` items.
    """
    return (
        BatchItem(index, None, _read(document, received_at))
        for index, document in enumerate(parse_array(body, limit))
    )


def read_lines(body: bytes, received_at: datetime, limit: int) -> Iterator[BatchItem]:
    """Yield the items of NDJSON. Raises `TooLarge` before the first for more than `limit` items."""
    lines = list(islice(_filled_lines(body), limit + 1))
    if len(lines) > limit:
        raise TooLarge(f"the batch holds over {limit} items; at most {limit} are taken at once")
    return (
        BatchItem(index, number, _read_line(line, received_at))
        for index, (number, line) in enumerate(lines)
    )


def _filled_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold something, each with its number."""
    for number, line in enumerate(BytesIO(body), 1):
        if line.strip():
            yield number, line.removesuffix(b"\n")


def _read_line(line: bytes, received_at: datetime) -> Submission | Invalid:
    try:
        return _read(parse_json(line), received_at)
    except Invalid as refusal:
        return refusal


def _read(document: object, received_at: datetime) -> Submission | Invalid:
    if isinstance(document, Invalid):
        return document
    try:
        return read_submission(document, received_at)
    except Invalid as refusal:
        return refusal
