"""What a text is made of, for the index and for a query alike: its terms.

Where words stand apart, a term is a whole word or three letters of it, its edges included, so that
an ending or a slip of the pen costs a few terms and not the word. In Chinese and Japanese a term is
a character or two in a row, which needs no segmenter. A term is one 64-bit integer, and numpy finds
those of a whole batch of texts at once:

    a character          its code point                 below 2^21
    two in a row         their code points              below 2^42
    three letters        their code points              from 2^47
    a word               a hash of its code points      negative
"""

import re
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rapport.common.text import normalise

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Occurrences = tuple[Integers, Integers]
"""Where terms begin, in characters of the text, and the terms."""

UNSPACED: Final = "\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts that put no spaces between words, to be put into `[]` of an expression."""

_NOT_IN_WORDS: Final = re.compile(r"[\W_]+")
_SPACE: Final = ord(" ")
_BITS: Final = 21
"""Bits of a code point."""

_WORD: Final = np.int64(np.iinfo(np.int64).min)
_MULTIPLIERS: Final[Integers] = np.random.default_rng(1729).integers(1, 2**62, 64) * 2 + 1


def fold(text: str) -> str:
    """Return the words of a text, normalised, with one space between them and around them."""
    return f" {_NOT_IN_WORDS.sub(' ', normalise(text)).strip()} "


@lru_cache(maxsize=50_000)
def fold_word(word: str) -> str:
    """Return what `fold` makes of one word, without the spaces around."""
    return fold(word).strip()


def terms_of(folded: str) -> Occurrences:
    """Return the terms of a folded text (or several, one after another), each time they occur.

    Three letters may begin at the space before their word. Equal terms come in the order in which
    they begin.
    """
    codes = _codes(folded)
    unspaced = _unspaced(codes)
    letters = np.where(unspaced, _SPACE, codes)
    characters = np.flatnonzero(unspaced)
    found = [
        (characters, codes[characters]),
        _pairs(codes, unspaced),
        _trigrams(letters),
        _words(letters),
    ]
    return (
        np.concatenate([positions for positions, _ in found]),
        np.concatenate([terms for _, terms in found]),
    )


def pairs_of(text: str) -> Occurrences:
    """Return the terms of a text, folded or not, that are two unspaced characters in a row."""
    codes = _codes(text)
    return _pairs(codes, _unspaced(codes))


def found_in(some: Integers, terms: Integers) -> Mask:
    """Return which of some values are among the terms, which ascend."""
    if not len(terms):
        return np.zeros(len(some), np.bool_)
    places = np.searchsorted(terms, some).clip(max=len(terms) - 1)
    found: Mask = terms[places] == some
    return found


def _codes(text: str) -> Integers:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _unspaced(codes: Integers) -> Mask:
    return (
        ((codes >= 0x3040) & (codes <= 0x9FFF))
        | ((codes >= 0xF900) & (codes <= 0xFAFF))
        | (codes >= 0x20000)
    )


def _pairs(codes: Integers, unspaced: Mask) -> Occurrences:
    begins = np.flatnonzero(unspaced[:-1] & unspaced[1:])
    return begins, codes[begins] << _BITS | codes[begins + 1]


def _trigrams(letters: Integers) -> Occurrences:
    """Three in a row whose middle is a letter and whose edges are not both spaces."""
    inside = letters != _SPACE
    begins = np.flatnonzero(inside[1:-1] & (inside[:-2] | inside[2:]))
    first, second, third = letters[begins], letters[begins + 1], letters[begins + 2]
    return begins, first << 2 * _BITS | second << _BITS | third


def _words(letters: Integers) -> Occurrences:
    """Runs of letters, as the sum of each letter times a random number for its place."""
    inside = letters != _SPACE
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    begins, lengths = edges[::2], edges[1::2] - edges[::2]
    at = np.flatnonzero(inside)
    depth = at - np.repeat(begins, lengths)
    parts = letters[at] * _MULTIPLIERS[depth % len(_MULTIPLIERS)]
    return begins, np.add.reduceat(parts, np.cumsum(lengths) - lengths) | _WORD
