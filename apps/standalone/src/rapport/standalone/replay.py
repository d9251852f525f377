"""Bringing a file of feedback in, through HTTP, as any sender would.

Records are read as they stream by, put into our form by a mapping and sent in batches, a few at a
time on their way. What is of the past stays there: an item with a date is historical, so it is
counted and starts no clock; `as_live` leaves the date out instead, and the item happens now. Ids
come from what was sent, so a second run doubles nothing and is told as already known. An item that
its file does not number is known by what it says: rows that say exactly the same are one message.
"""

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

import httpx2

from rapport.common.errors import FieldProblem, Invalid, PermanentError, TemporaryError
from rapport.intake.domain import Mapping, apply_all, origin_of
from rapport.intake.repository import load_mapping, load_mappings
from rapport.standalone.readers import Record

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
ON_THE_WAY: Final = 3
TRIES: Final = 8
LONGEST_WAIT: Final = 30.0
PASSING: Final = (429, 502, 503, 504)

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


class Candidate(NamedTuple):
    """An item to send, as JSON, and the line of the file that it came from."""

    line: int
    body: bytes


class Refusal(NamedTuple):
    """An item that was refused: its line in the file, the field as the file calls it, and why."""

    line: int
    field: str
    reason: str


@dataclass(slots=True)
class Summary:
    """What became of a file's items up to `line`; `seconds` is how long it took."""

    line: int = 0
    accepted: int = 0
    known: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many items have been dealt with."""
        return self.accepted + self.known + self.refused

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.done / self.seconds if self.seconds else 0.0


def choose_mapping(name: str, folder: Path | None = None) -> Mapping:
    """Return the mapping of a name, or in a file; raises Invalid for what is neither."""
    if Path(name).suffix in (".yaml", ".yml"):
        return load_mapping(Path(name))
    mappings = load_mappings(folder)
    if name not in mappings:
        raise Invalid(f"there is no mapping {name!r}; there are {', '.join(sorted(mappings))}")
    return mappings[name]


async def replay(
    records: Iterator[Record],
    mapping: Mapping,
    *,
    url: str,
    token: str,
    refusals: Path,
    as_live: bool = False,
    limit: int | None = None,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Send what `records` hold; refused items go to the CSV file `refusals`, with line and reason.

    `limit` is the number of records that are read. Raises TemporaryError where the server cannot be
    reached, PermanentError where it refuses a request as a whole (a token that is not good).
    """
    summary = Summary()
    started = monotonic()
    with _Refusals(refusals, summary) as refused:
        candidates = _candidates(islice(records, limit), mapping, as_live, refused)
        async with _sender(url, token) as send:
            async for batch, answer in _in_flight(_batches(candidates), send):
                _settle(batch, answer, mapping, summary, refused)
                summary.seconds = monotonic() - started
                progress(summary)
    summary.seconds = monotonic() - started
    return summary


def _column(place: str) -> str:
    """Return what a JSON pointer into a record points at, as the file's header has it."""
    return place.removeprefix("/").replace("~1", "/").replace("~0", "~")


def _harmless(refusal: Refusal) -> Refusal:
    """Return a refusal whose cells are no formulas to a spreadsheet; a column may be named so."""
    field, reason = (
        f"'{cell}" if cell.startswith(_FORMULAS) else cell
        for cell in (refusal.field, refusal.reason)
    )
    return Refusal(refusal.line, field, reason)


class _Refusals:
    """The refusals file, made when there is something to say; a former one does not stay."""

    def __init__(self, path: Path, summary: Summary) -> None:
        self._path = path
        self._summary = summary
        self._found: list[Refusal] = []

    def __enter__(self) -> "_Refusals":
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._found:
            with self._path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(Refusal._fields)
                writer.writerows(map(_harmless, sorted(self._found)))

    def add(self, line: int, problem: Invalid, field: Callable[[str], str] = _column) -> None:
        """Note every field of one refused item; `field` names it as the file does."""
        self._summary.refused += 1
        for fault in problem.problems or (FieldProblem("", problem.reason),):
            self._found.append(Refusal(line, field(fault.pointer), fault.reason))


def _candidates(
    records: Iterable[Record], mapping: Mapping, as_live: bool, refused: _Refusals
) -> Iterator[Candidate]:
    for record in records:
        if isinstance(record.content, Invalid):
            refused.add(record.line, record.content)
            continue
        try:
            items = [item for _, item in apply_all(mapping, record.content)]
        except Invalid as problem:
            refused.add(record.line, problem)
            continue
        for item in items:
            if isinstance(item, Invalid):
                refused.add(record.line, item)
                continue
            body = json.dumps(_in_time(_numbered(item), as_live), ensure_ascii=False).encode()
            if len(body) > BATCH_BYTES:
                refused.add(record.line, Invalid(f"is longer than {BATCH_BYTES:,} bytes"))
            else:
                yield Candidate(record.line, body)


def _numbered(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with a reference of its own, made from what it says unless it has one."""
    if "source_ref" in item:
        return item
    said = json.dumps(item, sort_keys=True).encode()
    return item | {"source_ref": f"row-{blake2b(said, digest_size=16).hexdigest()}"}


def _in_time(item: dict[str, Any], as_live: bool) -> dict[str, Any]:
    """Return an item as one of the past, or as one of now."""
    if as_live:
        return {name: item[name] for name in item if name not in ("occurred_at", "historical")}
    return item | {"historical": True} if "occurred_at" in item else item


def _batches(candidates: Iterator[Candidate]) -> Iterator[list[Candidate]]:
    batch: list[Candidate] = []
    size = 0
    for candidate in candidates:
        if batch and (len(batch) == BATCH or size + len(candidate.body) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(candidate)
        size += len(candidate.body)
    if batch:
        yield batch


Send = Callable[[list[Candidate]], Any]


async def _in_flight(
    batches: Iterator[list[Candidate]], send: Send
) -> AsyncIterator[tuple[list[Candidate], dict[str, Any]]]:
    """Yield each batch with its answer, in order, while the next ones are on their way."""
    waiting: list[tuple[list[Candidate], asyncio.Task[dict[str, Any]]]] = []
    try:
        for batch in batches:
            waiting.append((batch, asyncio.create_task(send(batch))))
            if len(waiting) == ON_THE_WAY:
                sent, answer = waiting.pop(0)
                yield sent, await answer
        while waiting:
            sent, answer = waiting.pop(0)
            yield sent, await answer
    finally:
        for _, answer in waiting:
            answer.cancel()
        await asyncio.gather(*(answer for _, answer in waiting), return_exceptions=True)


@asynccontextmanager
async def _sender(url: str, token: str) -> AsyncIterator[Send]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Prefer": "known",
    }
    target = f"{url.rstrip('/')}/intake/v1/feedback/batch"
    async with httpx2.AsyncClient(headers=headers, timeout=60) as client:

        async def send(batch: list[Candidate]) -> dict[str, Any]:
            body = b"[" + b",".join(candidate.body for candidate in batch) + b"]"
            return await _insist(client, target, body)

        yield send


async def _insist(client: httpx2.AsyncClient, target: str, body: bytes) -> dict[str, Any]:
    """Post until it is answered: what passes by itself is tried again, which is safe."""
    for tries in range(1, TRIES + 1):
        wait = min(LONGEST_WAIT, 0.1 * 2**tries)
        try:
            response = await client.post(target, content=body)
        except httpx2.TransportError as error:
            if tries == TRIES or isinstance(error, httpx2.ConnectError):
                raise TemporaryError(f"{target} cannot be reached") from None
        else:
            if response.status_code == 207:
                answer: dict[str, Any] = response.json()
                return answer
            if response.status_code not in PASSING:
                raise PermanentError(told_problem(response))
            asked = response.headers.get("retry-after", "")
            wait = min(LONGEST_WAIT, float(asked)) if asked.isdecimal() else wait
        await asyncio.sleep(wait)
    raise TemporaryError(f"{target} has more to do than it can")


def told_problem(response: httpx2.Response) -> str:
    """Return what a refused request was told."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "no problem document came with it"
    return f"the server answered {response.status_code}: {detail}"


def _settle(
    batch: list[Candidate],
    answer: dict[str, Any],
    mapping: Mapping,
    summary: Summary,
    refused: _Refusals,
) -> None:
    def field(pointer: str) -> str:
        return origin_of(mapping, pointer) or pointer

    summary.line = batch[-1].line
    for candidate, item in zip(batch, answer["items"], strict=True):
        problem = item.get("problem")
        if problem is not None:
            faults = [
                FieldProblem(one["pointer"], one["reason"]) for one in problem.get("errors", [])
            ]
            refused.add(candidate.line, Invalid(problem["detail"], faults), field)
        elif item.get("known"):
            summary.known += 1
        else:
            summary.accepted += 1
