"""A part of a shelf that is built once: which of its entries have which terms, and how much.

The weight of a term in an entry is BM25F's (Robertson & Zaragoza 2009, "The Probabilistic Relevance
Framework: BM25 and Beyond", section 3.6): occurrences are weighed by field, each field's against
its own usual length, and their sum saturates. Usual lengths are constants here, so an entry's
weights depend on nothing but itself and are stored as they will be added up.

An entry can leave a segment, never join it; `merged` forgets those that have left.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rapport.common.text import normalise
from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.terms import Integers, Mask, fold, terms_of

Floats = NDArray[np.float64]


class Field(NamedTuple):
    """How much an occurrence in a field counts, and how many characters the field usually has."""

    weight: float
    usual_length: int


TITLE: Final = Field(3.0, 40)
TAGS: Final = Field(2.0, 40)
PARAPHRASES: Final = Field(2.0, 300)
TEXT: Final = Field(1.0, 800)

SATURATION: Final = 2.0
"""BM25's k1: what occurrences count for when their term has half of its full weight."""

LENGTH_NORMALISATION: Final = 0.9
"""BM25's b: from 0, all occurrences count the same, to 1, those in longer fields count for less."""

NO_PRODUCT: Final = 0.8
OTHER_PRODUCT: Final = 0.6
"""What the score of an entry counts that is about no product, or about another than was asked."""

_UNKNOWN: Final = np.iinfo(np.int64).max
"""No text has this term."""


class Postings(NamedTuple):
    """Which rows (numbers of entries) have a term and with what weight, term after term.

    `terms` ascend and are distinct; the first `counts[0]` rows and weights belong to the first
    term, and so on.
    """

    terms: Integers
    counts: Integers
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]


class Segment:
    """Entries with distinct ids, and where each term occurs among them."""

    def __init__(self, entries: Sequence[Entry], postings: Postings | None = None) -> None:
        terms, counts, self._rows, self._weights = postings or _postings(entries)
        self.entries = entries
        self._terms = np.append(terms, _UNKNOWN)
        self._starts = np.concatenate(([0], np.cumsum(counts), [len(self._rows)]))
        self._counts = np.append(counts, 0)
        self._row_of = {entry.id: row for row, entry in enumerate(entries)}
        self._live: Mask = np.ones(len(entries), np.bool_)
        self._kinds = _grouped(entry.kind for entry in entries)
        self._products = _grouped(normalise(entry.product or "") for entry in entries)

    @classmethod
    def merged(cls, segments: Sequence["Segment"]) -> Self:
        """Return one segment of all the entries that several still have."""
        entries: list[Entry] = []
        parts: list[Postings] = []
        for segment in segments:
            parts.append(segment._remaining(len(entries)))
            entries += compress(segment.entries, segment._live)
        return cls(entries, _merged(parts))

    def __len__(self) -> int:
        """Return how many entries it still has."""
        return len(self._row_of)

    def is_worn(self) -> bool:
        """Tell whether more of its entries have left than stayed."""
        return 2 * len(self) < len(self.entries)

    def discard(self, id: str) -> None:
        """Let go of an entry, if it is here; nothing about it counts any more."""
        row = self._row_of.pop(id, None)
        if row is not None:
            self._live[row] = False
            self._counts[self.places(_postings([self.entries[row]]).terms)] -= 1

    def places(self, terms: Integers) -> Integers:
        """Return where terms are kept here, for `counts` and `scores`."""
        places = np.searchsorted(self._terms, terms)
        places[self._terms[places] != terms] = len(self._terms) - 1
        return places

    def counts(self, places: Integers) -> Integers:
        """Return how many entries have each term."""
        return self._counts[places]

    def scores(self, places: Integers, importance: Floats) -> Floats:
        """Return, for each row, the sum of weight times importance of the terms that it has."""
        starts, ends = self._starts[places], self._starts[places + 1]
        spans = list(map(slice, starts.tolist(), ends.tolist()))
        rows = np.concatenate([self._rows[span] for span in spans])
        weights = np.concatenate([self._weights[span] for span in spans])
        parts: Floats = weights * np.repeat(importance, ends - starts)
        return np.asarray(np.bincount(rows, parts, len(self.entries)), np.float64)

    def fit(self, kind: str | None, product: str | None) -> Floats:
        """Return how much of its score each row keeps when a kind and a product are asked for.

        A row of another kind keeps nothing, nor does one that was let go. None is any.
        """
        kept = self._live.astype(np.float64)
        if kind is not None:
            kept *= self._mask(self._kinds, kind)
        if product is not None:
            same = self._mask(self._products, normalise(product))
            none = self._mask(self._products, "")
            kept *= np.select([same, none], [1.0, NO_PRODUCT], OTHER_PRODUCT)
        return kept

    def _mask(self, groups: Mapping[str, Integers], name: str) -> Mask:
        mask = np.zeros(len(self.entries), np.bool_)
        mask[groups.get(name, [])] = True
        return mask

    def _remaining(self, first: int) -> Postings:
        """Return the postings of the entries that it still has, their rows counted from `first`."""
        kept = self._live[self._rows]
        rows = (np.cumsum(self._live) - 1 + first)[self._rows[kept]].astype(np.int32)
        return Postings(self._terms[:-1], self._counts[:-1], rows, self._weights[kept])


def _postings(entries: Sequence[Entry]) -> Postings:
    terms, rows, amounts = _occurrences(entries)
    order = np.argsort(terms, kind="stable")  # so that the rows of a term go on ascending
    terms, rows, amounts = terms[order], rows[order], amounts[order]
    pairs = np.flatnonzero(_begins(terms) | _begins(rows))
    terms, rows, amounts = terms[pairs], rows[pairs], np.add.reduceat(amounts, pairs)
    firsts = np.flatnonzero(_begins(terms))
    counts = np.diff(firsts, append=len(terms))
    weights = amounts / (amounts + SATURATION)
    return Postings(terms[firsts], counts, rows.astype(np.int32), weights.astype(np.float32))


def _occurrences(entries: Sequence[Entry]) -> tuple[Integers, Integers, Floats]:
    """Return each occurrence of a term, its row and what it counts; a term's rows ascend."""
    pieces = [piece for row, entry in enumerate(entries) for piece in _pieces(row, entry)]
    rows, amounts, texts = zip(*pieces, strict=True)
    positions, terms = terms_of("".join(texts))
    piece_of = np.repeat(np.arange(len(pieces)), [len(text) for text in texts])[positions]
    return terms, np.array(rows)[piece_of], np.array(amounts)[piece_of]


def _pieces(row: int, entry: Entry) -> Iterator[tuple[int, float, str]]:
    """Yield an entry's fields, each with its row, what an occurrence counts, its folded text."""
    fields = (
        (TITLE, entry.title),
        (TAGS, " ".join((*entry.tags, entry.product or ""))),
        (PARAPHRASES, " ".join(entry.paraphrases)),
        (TEXT, entry.text),
    )
    for field, text in fields:
        folded = fold(text)
        excess = len(folded) / field.usual_length - 1
        yield row, field.weight / (1 + LENGTH_NORMALISATION * excess), folded


def _merged(parts: Sequence[Postings]) -> Postings:
    """Return the postings of several segments; rows ascend from each to the next."""
    terms = np.concatenate([part.terms for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    starts = np.cumsum(counts) - counts
    order = np.argsort(terms, kind="stable")
    order = order[counts[order] > 0]
    terms, counts, starts = terms[order], counts[order], starts[order]
    moves = starts - (np.cumsum(counts) - counts)
    origin = np.arange(counts.sum()) + np.repeat(moves, counts)
    firsts = np.flatnonzero(_begins(terms))
    return Postings(terms[firsts], np.add.reduceat(counts, firsts), rows[origin], weights[origin])


def _begins(values: Integers) -> Mask:
    """Return which values differ from the one before; the first does."""
    begins = np.ones(len(values), np.bool_)
    begins[1:] = values[1:] != values[:-1]
    return begins


def _grouped(values: Iterable[str]) -> dict[str, Integers]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        rows[value].append(row)
    return {value: np.array(each) for value, each in rows.items()}
