"""The queries of the knowledge service."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

from rapport.common.aggregate import Aggregate
from rapport.common.errors import NotFound
from rapport.common.store.port import Page, Store, Where
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.crises import KnownCrisis
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.domain.statements import State, Statement

Said = Article | KeyMessage | Statement
"""What may be said, and so can be found."""

A = TypeVar("A", bound=Aggregate)

NAMES: Final[dict[type[Aggregate], str]] = {
    Article: "article",
    KeyMessage: "key message",
    Statement: "statement",
    CaseText: "case",
}
PAGE: Final = 200


class Repository:
    """Reads what the service owns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def one(self, kind: type[A], id: str) -> A:
        """Return one aggregate; raises NotFound."""
        found = await self._store.get(kind, id)
        if found is None:
            raise NotFound(f"there is no such {NAMES[kind]}")
        return found

    async def crisis(self, id: str) -> KnownCrisis | None:
        """Return a crisis; None where it has not been heard of."""
        return await self._store.get(KnownCrisis, id)

    async def declared_at(self, statement: Statement) -> datetime | None:
        """Return when the crisis of a statement was declared, None where it is about none."""
        crisis = None if statement.crisis_id is None else await self.crisis(statement.crisis_id)
        return None if crisis is None else crisis.declared_at

    async def in_force_beside(self, statement: Statement) -> Sequence[Statement]:
        """Return what is released for the same purpose of the same crisis."""
        if statement.crisis_id is None:
            return ()
        where = {
            "state": State.RELEASED,
            "purpose": statement.purpose,
            "crisis_id": statement.crisis_id,
        }
        return (await self._store.find(Statement, where)).items

    async def newest(
        self, kind: type[A], where: Where, *, limit: int, cursor: str | None
    ) -> Page[A]:
        """Return a page of those that have all the values given, the newest first; None is any."""
        given = {field: value for field, value in where.items() if value is not None}
        return await self._store.find(kind, given, limit=limit, cursor=cursor, newest_first=True)

    async def some(self, ids: Mapping[type[Said], Sequence[str]]) -> list[Said]:
        """Return those of each kind that are there."""
        found: list[Said] = []
        for kind, wanted in ids.items():
            found += (await self._store.get_many(kind, wanted)).values()
        return found

    async def everything(self) -> AsyncIterator[Sequence[Said]]:
        """Yield all that was ever published, submitted or drafted, page by page."""
        kinds: tuple[type[Said], ...] = (Article, KeyMessage, Statement)
        for kind in kinds:
            cursor: str | None = None
            while True:
                page = await self._store.find(kind, limit=PAGE, cursor=cursor)
                yield page.items
                cursor = page.next
                if cursor is None:
                    break
