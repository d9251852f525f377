"""What a text is made of, for the index and for a query alike: its terms.

Where words stand apart, a term is a whole word or three letters of it, its edges included, so that
an ending or a slip of the pen costs a few terms and not the word. In Chinese and Japanese a term is
a character or two in a row, which needs no segmenter. A term is one 64-bit integer, and numpy finds
those of a whole batch of texts at once:

    one character        its code point                 below 2^21
    two characters       two code points                below 2^42
    three letters        three code points              from 2^47
    a word               a hash of its code points      negative
"""

import re
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rapport.common.text import normalise

Integers = NDArray[np.int64]

UNSPACED: Final = "\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts that write words without spaces, as the inside of a regular expression."""

_NOT_IN_WORDS: Final = re.compile(r"[\W_]+")
_SPACE: Final = ord(" ")
_BITS: Final = 21
"""Bits of a Unicode code point."""

_WORD_MARK: Final = np.int64(np.iinfo(np.int64).min)
_MULTIPLIERS: Final[Integers] = np.random.default_rng(1729).integers(1, 2**62, 64) * 2 + 1


def fold(text: str) -> str:
    """Return the words of a text, normalised, with one space between them and around them."""
    return f" {_NOT_IN_WORDS.sub(' ', normalise(text)).strip()} "


@lru_cache(maxsize=50_000)
def fold_word(word: str) -> str:
    """Return what `fold` makes of a single word, without the spaces around."""
    return fold(word).strip()


def terms_of(folded: str) -> tuple[Integers, Integers]:
    """Return the terms of a folded text, each as often as it occurs, and where each begins.

    Positions count characters of the folded text; a term of three letters may begin at the space
    before its word. The order is the same for the same text.
    """
    codes = np.frombuffer(folded.encode("utf-32-le"), np.uint32).astype(np.int64)
    unspaced = _is_unspaced(codes)
    letters = np.where(unspaced, _SPACE, codes)
    found = [*_characters(codes, unspaced), _letters(letters), _words(letters)]
    positions, terms = zip(*found, strict=True)
    return np.concatenate(positions), np.concatenate(terms)


def _is_unspaced(codes: Integers) -> NDArray[np.bool_]:
    return (
        ((codes >= 0x3040) & (codes <= 0x9FFF))
        | ((codes >= 0xF900) & (codes <= 0xFAFF))
        | (codes >= 0x20000)
    )


def _characters(
    codes: Integers, unspaced: NDArray[np.bool_]
) -> tuple[tuple[Integers, Integers], tuple[Integers, Integers]]:
    ones = np.flatnonzero(unspaced)
    pairs = np.flatnonzero(unspaced[:-1] & unspaced[1:])
    return (ones, codes[ones]), (pairs, codes[pairs] << _BITS | codes[pairs + 1])


def _letters(letters: Integers) -> tuple[Integers, Integers]:
    """Three in a row of which the middle one and at least one other are no space."""
    inside = letters != _SPACE
    starts = np.flatnonzero(inside[1:-1] & (inside[:-2] | inside[2:]))
    first, second, third = (letters[starts + i] for i in range(3))
    return starts, first << 2 * _BITS | second << _BITS | third


def _words(letters: Integers) -> tuple[Integers, Integers]:
    """Runs of letters, as multilinear hashes (Lemire & Kaser 2014); a word is read up to 64."""
    inside = letters != _SPACE
    edges = np.flatnonzero(inside[:-1] != inside[1:]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if not len(starts):
        return starts, starts
    at = np.flatnonzero(inside)
    depth = at - np.repeat(starts, lengths)
    begins = np.cumsum(lengths) - lengths
    hashes = np.add.reduceat(letters[at] * _MULTIPLIERS[depth % len(_MULTIPLIERS)], begins)
    return starts, hashes | _WORD_MARK
