"""A part of the index that is built once: which of its entries have which terms, and how much.

The weight of a term in an entry is BM25F's (Robertson & Zaragoza 2009, "The Probabilistic Relevance
Framework: BM25 and Beyond", section 3.6): occurrences are weighed by field, each field's against
its own usual length, and their sum saturates. Usual lengths are constants here, so an entry's
weights depend on nothing but itself and are stored as they will be added up.

An entry can leave a segment, never join it; `merged` forgets those that have left.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rapport.common.text import normalise
from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.terms import Integers, fold, terms_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Field(NamedTuple):
    """How much an occurrence in a field weighs, and how many characters the field usually has."""

    weight: float
    usual_length: int


TITLE: Final = Field(3.0, 40)
TAGS: Final = Field(2.0, 40)
PARAPHRASES: Final = Field(2.0, 300)
TEXT: Final = Field(1.0, 800)

SATURATION: Final = 2.0
"""BM25's k1: the weighed occurrences at which a term has half of its full weight."""

LENGTH_NORMALISATION: Final = 0.75
"""BM25's b: from 0, a long field's occurrences weigh the same, to 1, less in proportion."""


class Postings(NamedTuple):
    """The rows that have each term, term after term, with the term's weight in each.

    `terms` ascend and are distinct; the first `counts[0]` rows and weights belong to the first.
    """

    terms: Integers
    counts: Integers
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]


class Segment:
    """Entries, no two of the same id and language, and where each term occurs among them."""

    def __init__(self, entries: Sequence[Entry], postings: Postings | None = None) -> None:
        terms, counts, self._rows, self._weights = postings or _postings(entries)
        self.entries = entries
        self.live: Mask = np.ones(len(entries), np.bool_)
        self._terms = np.append(terms, np.iinfo(np.int64).max)  # the last stands for the unknown
        self._counts = np.append(counts, 0)
        self._ends = np.cumsum(self._counts)
        self._starts = self._ends - self._counts
        self._row_of = {(entry.id, entry.language): row for row, entry in enumerate(entries)}
        self._languages = _grouped(entry.language for entry in entries)
        self._kinds = _grouped(entry.kind for entry in entries)
        self._products = _grouped(product_key(entry.product) for entry in entries)

    @classmethod
    def merged(cls, segments: Sequence["Segment"]) -> Self:
        """Return one segment of all entries that several still have."""
        entries = [
            segment.entries[row] for segment in segments for row in np.flatnonzero(segment.live)
        ]
        return cls(entries, _merged([segment._compact() for segment in segments]))

    def __len__(self) -> int:
        """Return how many entries it still has."""
        return len(self._row_of)

    def discard(self, id: str, language: str) -> None:
        """Let go of an entry, if it is here; nothing about it counts any more."""
        row = self._row_of.pop((id, language), None)
        if row is not None:
            self.live[row] = False
            self._counts[self.places(_postings([self.entries[row]]).terms)] -= 1

    def places(self, terms: Integers) -> Integers:
        """Return where terms are kept, for `counts` and `scores`."""
        places = np.searchsorted(self._terms, terms)
        places[self._terms[places] != terms] = len(self._terms) - 1
        return places

    def counts(self, places: Integers) -> Integers:
        """Return in how many entries each term occurs."""
        return self._counts[places]

    def scores(self, places: Integers, importance: Floats) -> Floats:
        """Return the sum of weight times importance of the terms that each row has."""
        scores = np.zeros(len(self.entries))
        spans = zip(self._starts[places], self._ends[places], importance, strict=True)
        for start, end, factor in spans:
            scores[self._rows[start:end]] += factor * self._weights[start:end]
        return scores

    def of_language(self, language: str) -> Mask:
        """Return which rows are in a language."""
        return self._mask(self._languages, language)

    def of_kind(self, kind: str) -> Mask:
        return self._mask(self._kinds, kind)

    def of_product(self, product: str | None) -> Mask:
        """Return which rows are about a product; None is no product in particular."""
        return self._mask(self._products, product_key(product))
