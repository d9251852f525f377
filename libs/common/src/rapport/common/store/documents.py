"""Stored documents: aggregates and facts in JSON, written and read by pydantic."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final

import structlog
from pydantic import ValidationError

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import PermanentError, TemporaryError

UPGRADE_DELAY: Final = 30.0
TOLD_SECONDS: Final = 60.0
MOST_TOLD: Final = 1_000

log = structlog.get_logger(__name__)


def read(kind: type[Aggregate | Fact], schema: int, document: str) -> Any:
    """Return the item of `kind` that was stored with this schema number.

    Raises TemporaryError where newer code wrote it, PermanentError where it does not fit.
    """
    if issubclass(kind, Aggregate) and schema > kind.SCHEMA:
        raise TemporaryError(
            f"{kind.COLLECTION} is stored by newer code (schema {schema})", UPGRADE_DELAY
        )
    try:
        return kind.__pydantic_validator__.validate_json(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = "".join(f"/{step}" for step in first["loc"][:1])
        raise PermanentError(
            f"a stored {kind.COLLECTION} does not fit: {place or 'the whole'}: {first['type']}"
        ) from None


class Reader:
    """Reads many documents of a kind: one that is damaged holds up nobody else.

    It is left out and told in the log by its id, once a minute. `reads` reads one of them; what it
    raises for newer code is raised here, too.
    """

    def __init__(self, reads: Callable[[Any], Any]) -> None:
        self._reads = reads
        self._told: dict[str, float] = {}

    def each(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return the items of rows, which come with their ids."""
        items = []
        for id, row in rows:
            try:
                items.append(self._reads(row))
            except PermanentError as error:
                self._tell(id, error.reason)
        return items

    async def first(
        self, limit: int, ask: Callable[[int], Awaitable[Sequence[tuple[str, Any]]]]
    ) -> list[Any]:
        """Return up to `limit` items; `ask` gives the first so many rows."""
        most = limit
        while True:
            rows = await ask(most)
            items = self.each(rows)
            if len(items) >= limit or len(rows) < most:
                return items[:limit]
            most *= 2

    def _tell(self, id: str, reason: str) -> None:
        now = monotonic()
        if now < self._told.get(id, now):
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[id] = now + TOLD_SECONDS
        log.error("store.damaged", id=id, reason=reason)
