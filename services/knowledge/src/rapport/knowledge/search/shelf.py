"""The entries of one language: what is on the shelf now, and the best of it for a query.

New entries wait until somebody asks or many have come, then become a segment; segments of like size
merge (O'Neil et al. 1996, "The Log-Structured Merge-Tree"), so a put costs the work on its own text
and, over time, a few copies of its terms. An answer depends on the entries alone, never on the
changes that led to them: how rare a term is counts what is here now, and ties go by id.
"""

from collections.abc import Iterator
from heapq import nsmallest
from typing import Final, NamedTuple

import numpy as np

from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.segment import Floats, Segment
from rapport.knowledge.search.terms import Integers

MOST_TERMS: Final = 64
"""Terms of a query that are looked up: the rarest tell most, and a case has hundreds."""

ENOUGH: Final = 0.99
"""The share of a query's information that is looked up; the rest is in its commonest terms."""

LEAST_SCORE: Final = 0.05
"""An entry that scores less has next to nothing of what was asked."""

TELLING: Final = 0.25
"""A term is worth showing when it tells at least so much, relative to the query's rarest."""

_MOST_WAITING: Final = 500_000
"""Characters that may wait to be indexed."""

_RATIO: Final = 4
"""A segment has at least so many times as many entries as the next one."""


class Found(NamedTuple):
    """An entry, its score from 0 to 1, and the terms that are worth showing in it."""

    entry: Entry
    score: float
    telling: Integers


class Shelf:
    """Entries by id."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._waiting: dict[str, Entry] = {}
        self._waiting_size = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._waiting) + sum(map(len, self._segments))

    def put(self, entry: Entry) -> None:
        """Add an entry, in place of the one with its id if there is one."""
        self.discard(entry.id)
        self._waiting[entry.id] = entry
        self._waiting_size += len(entry.text)
        if self._waiting_size > _MOST_WAITING:
            self._settle()

    def discard(self, id: str) -> None:
        """Take an entry out, if it is here."""
        self._waiting.pop(id, None)
        for segment in self._segments:
            segment.discard(id)

    def best(
        self, terms: Integers, kind: str | None, product: str | None, limit: int
    ) -> list[Found]:
        """Return the entries with most of the information in some terms, the best first."""
        self._settle()
        query = self._query(terms)
        if not len(query.terms):
            return []
        scored = (
            (-score, entry.id, entry)
            for segment in self._segments
            for score, entry in _scored(segment, query, segment.fit(kind, product), limit)
        )
        return [Found(entry, -score, query.telling) for score, _, entry in nsmallest(limit, scored)]

    def _query(self, terms: Integers) -> "_Query":
        counts = np.zeros(len(terms), np.int64)
        for segment in self._segments:
            counts += segment.counts(segment.places(terms))
        information = np.log1p((len(self) - counts + 0.5) / (counts + 0.5))
        by_rarity = np.argsort(counts, kind="stable")
        whole = information[by_rarity[:MOST_TERMS]].sum()
        known = by_rarity[counts[by_rarity] > 0][:MOST_TERMS]
        told = np.cumsum(information[known])
        known = known[: np.searchsorted(told, ENOUGH * told[-1:].sum()) + 1]
        telling = information >= TELLING * information[known].max(initial=0)
        return _Query(terms[known], information[known] / whole, terms[telling])

    def _settle(self) -> None:
        """Make a segment of what waits; merge those that have lost much or are of like size."""
        if self._waiting:
            self._segments.append(Segment(list(self._waiting.values())))
            self._waiting, self._waiting_size = {}, 0
        settled: list[Segment] = []
        for segment in filter(len, self._segments):
            settled.append(Segment.merged([segment]) if segment.is_worn() else segment)
            while len(settled) > 1 and len(settled[-2]) < _RATIO * len(settled[-1]):
                settled[-2:] = [Segment.merged(settled[-2:])]
        self._segments = settled


class _Query(NamedTuple):
    """The terms to look up, the share of the query's information in each, those worth showing.

    What a term tells is BM25's inverse document frequency.
    """

    terms: Integers
    shares: Floats
    telling: Integers


def _scored(
    segment: Segment, query: _Query, fit: Floats, limit: int
) -> Iterator[tuple[float, Entry]]:
    """Yield the best entries of a segment with their scores, and those that tie with the last."""
    scores = segment.scores(segment.places(query.terms), query.shares) * fit
    rows = np.flatnonzero(scores >= LEAST_SCORE)
    if len(rows) > limit:
        bar = np.partition(scores[rows], -limit)[-limit]
        rows = rows[scores[rows] >= bar]
    for row in rows.tolist():
        yield float(scores[row]), segment.entries[row]
