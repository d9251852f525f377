"""The index: a shelf per language, and who may find what on it.

Languages have their own shelves because how much a term tells depends on how many texts of its
language have it. Not for use by several threads at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nsmallest
from typing import Final

import numpy as np

from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.highlight import Range, Snippet, highlight, snippet
from rapport.knowledge.search.shelf import Shelf
from rapport.knowledge.search.terms import Integers, fold, terms_of

LONGEST_QUERY: Final = 10_000
"""Characters of a query that are read."""


@dataclass(frozen=True)
class Hit:
    """An entry that was found and how well it fits, from 0 to 1.

    The score is the share of the query's information that the entry has, so scores of different
    queries compare. What matched is worked out when it is asked for.
    """

    entry: Entry
    score: float
    terms: Integers = field(repr=False, compare=False)

    @cached_property
    def title_ranges(self) -> tuple[Range, ...]:
        """Where the title matched."""
        return highlight(self.entry.title, self.terms)

    @cached_property
    def snippet(self) -> Snippet:
        """The part of the text that matched best."""
        return snippet(self.entry.text, self.terms)


class Index:
    """Entries by id and language, found from the moment they are put."""

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf] = {}

    def __len__(self) -> int:
        """Return the number of entries; one in three languages counts three times."""
        return sum(map(len, self._shelves.values()))

    def put(self, entry: Entry) -> None:
        """Add an entry, in place of the one of the same id and language if there is one."""
        self._shelves.setdefault(entry.language, Shelf()).put(entry)

    def remove(self, id: str, language: str | None = None) -> None:
        """Take an entry out, in one language or in all; from now on nobody finds it."""
        for shelf in self._shelves_for(language):
            shelf.discard(id)

    def search(
        self, query: str, *, language: str | None = None, kind: str | None = None, limit: int = 10
    ) -> list[Hit]:
        """Return the entries that fit a query best, the best first; None is any."""
        return self._best(query, language, kind, None, limit)

    def suggest(
        self,
        text: str,
        *,
        language: str,
        product: str | None = None,
        kind: str | None = None,
        limit: int = 5,
    ) -> list[Hit]:
        """Return what may help with a case: in its language, and rather about its product."""
        return self._best(text, language, kind, product, limit)

    def _best(
        self, text: str, language: str | None, kind: str | None, product: str | None, limit: int
    ) -> list[Hit]:
        terms = np.unique(terms_of(fold(text[:LONGEST_QUERY]))[1])
        hits = [
            Hit(*found)
            for shelf in self._shelves_for(language)
            for found in shelf.best(terms, kind, product, limit)
        ]
        return nsmallest(
            limit, hits, key=lambda hit: (-hit.score, hit.entry.id, hit.entry.language)
        )

    def _shelves_for(self, language: str | None) -> Iterable[Shelf]:
        if language is None:
            return self._shelves.values()
        return filter(None, [self._shelves.get(language)])
