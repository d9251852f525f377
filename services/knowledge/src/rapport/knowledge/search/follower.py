"""Keeps the catalogue of this process current, whoever publishes.

At the start everything is read from the store; then the topic tells what has changed, and that is
read again: what is shown is what is stored, never older than the event. The positions are taken
before the first reading, so nothing falls in between. After trouble all of it begins again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Final

import structlog

from rapport.common.bus.port import Bus, Position
from rapport.common.clock import Clock
from rapport.common.errors import RapportError
from rapport.common.events.codec import Record
from rapport.common.events.knowledge import (
    ArticlePublished,
    ArticleRetired,
    KeyMessagePublished,
    KeyMessageRetired,
    StatementReleased,
)
from rapport.common.events.topics import KNOWLEDGE
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.domain.statements import Statement
from rapport.knowledge.repository import Repository, Said
from rapport.knowledge.search.catalogue import Catalogue

TOPICS: Final = (KNOWLEDGE.name,)
PAUSE_SECONDS: Final = 5.0

TELLS_OF: Final[dict[str, type[Said]]] = {
    ArticlePublished.TYPE: Article,
    ArticleRetired.TYPE: Article,
    KeyMessagePublished.TYPE: KeyMessage,
    KeyMessageRetired.TYPE: KeyMessage,
    StatementReleased.TYPE: Statement,
}

log = structlog.get_logger(__name__)


class Follower:
    """Reads on behalf of one catalogue from `start` to `stop`."""

    def __init__(
        self, catalogue: Catalogue, repository: Repository, bus: Bus, clock: Clock
    ) -> None:
        self._catalogue = catalogue
        self._repository = repository
        self._bus = bus
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the catalogue is whole, and go on in the background.

        Raises TemporaryError where store or bus cannot be read.
        """
        positions = await self._read_everything()
        self._task = asyncio.create_task(self._follow(positions), name="catalogue")

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _read_everything(self) -> Mapping[Position, int]:
        """Show all there is; return the last offsets from before it was read."""
        ends = await self._bus.ends(TOPICS)
        async for said in self._repository.everything():
            self._catalogue.show(said)
        return {position: end - 1 for position, end in ends.items()}

    async def _follow(self, positions: Mapping[Position, int] | None) -> None:
        """Show what changes until the bus stops."""
        while True:
            try:
                after = positions or await self._read_everything()
                async with aclosing(self._bus.tail(TOPICS, after)) as read:
                    async for records in read:
                        self._catalogue.show(await self._repository.some(told_of(records)))
                return
            except RapportError as trouble:
                log.warning("catalogue.behind", reason=trouble.reason)
            except Exception:
                log.exception("catalogue.behind")
            positions = None
            await self._clock.sleep(PAUSE_SECONDS)


def told_of(records: Iterable[Record]) -> Mapping[type[Said], list[str]]:
    """Return the ids of what events tell of, each once, by kind."""
    ids: dict[type[Said], dict[str, None]] = defaultdict(dict)
    for record in records:
        headers = dict(record.headers)
        kind = TELLS_OF.get(headers.get("ce_type", b"").decode(errors="replace"))
        if kind is not None:
            ids[kind][headers.get("ce_subject", b"").decode(errors="replace")] = None
    return {kind: list(found) for kind, found in ids.items()}
