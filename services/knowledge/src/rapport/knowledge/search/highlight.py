"""Where a text has what was asked for, in characters of the text as its authors wrote it.

A word is marked when at least four tenths of its terms are asked for, so that another ending or a
slip of the pen does not hide it; in Chinese and Japanese, two characters in a row are marked.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from rapport.knowledge.search.terms import (
    UNSPACED,
    Integers,
    fold_word,
    found_in,
    pairs_of,
    terms_of,
)

Range = tuple[int, int]
"""A start and an end (exclusive) in a text, in characters."""

WIDTH: Final = 200
"""Characters of a snippet, at most."""

_LEAD: Final = 40
"""Characters of a snippet before its first match, at most."""

_SHARE: Final = 0.4

_LETTERS: Final = rf"[^\W_{UNSPACED}]+"
_WORD: Final = re.compile(rf"{_LETTERS}(?:[\u200c\u200d\u064b-\u0652]+{_LETTERS})*")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A part of a text: where it starts there, its words, and what matched within the part."""

    start: int
    text: str
    ranges: tuple[Range, ...]


def highlight(text: str, terms: Integers) -> tuple[Range, ...]:
    """Return where a text has some of the terms, as ranges that ascend and do not touch."""
    return _united(sorted(_words(text, terms) + _pairs(text, terms)))


def snippet(text: str, terms: Integers) -> Snippet:
    """Return the part of a text with the most characters that match, cut between words."""
    ranges = highlight(text, terms)
    start, end = _window(text, ranges)
    inside = tuple((a - start, b - start) for a, b in ranges if start <= a and b <= end)
    return Snippet(start, text[start:end], inside)


def _words(text: str, terms: Integers) -> list[Range]:
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [fold_word(text[start:end]) for start, end in spans]
    begins = list(accumulate((len(word) + 1 for word in words), initial=0))
    positions, found = terms_of(" ".join(["", *words, ""]))
    owners = np.searchsorted(begins, positions, side="right") - 1
    asked = np.bincount(owners, found_in(found, terms), len(spans))
    marked = asked >= _SHARE * np.bincount(owners, minlength=len(spans)).clip(1)
    return [span for span, mark in zip(spans, marked, strict=True) if mark]


def _pairs(text: str, terms: Integers) -> list[Range]:
    positions, found = pairs_of(text)
    return [(start, start + 2) for start in positions[found_in(found, terms)].tolist()]


def _united(ranges: Iterable[Range]) -> tuple[Range, ...]:
    united: list[Range] = []
    for start, end in ranges:
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], end)
        else:
            united.append((start, end))
    return tuple(united)


def _window(text: str, ranges: tuple[Range, ...]) -> Range:
    """Return start and end of a snippet that shows as much as one can of the ranges."""
    if not ranges:
        return 0, _cut(text, 0, WIDTH)
    ends = [end for _, end in ranges]
    covered = [0, *accumulate(end - start for start, end in ranges)]

    def shown(first: int) -> int:
        last = bisect_right(ends, ranges[first][0] + WIDTH - _LEAD)
        return covered[max(last, first)] - covered[first]

    best = ranges[max(range(len(ranges)), key=shown)][0]
    earliest = max(0, min(best - _LEAD, len(text) - WIDTH))
    start = text.find(" ", earliest, best) + 1 if earliest else 0
    start = start or earliest
    return start, _cut(text, start, start + WIDTH)


def _cut(text: str, start: int, end: int) -> int:
    """Return the last end of a word before `end`, or `end` where no space is near."""
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start + WIDTH // 2, end + 1)
    return space if space > 0 else end
