"""Reading: from a text and a lexicon to the evidence in it.

All terms of a lexicon are one regular expression, factored by common beginnings, so that a text is
read in one pass whatever the number of terms. What is found is then taken in order: a denial turns
the terms near it, an emphasis weighs on the next one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from rapport.common.events.vocabulary import Need, Sentiment
from rapport.routing.domain.lexicon import Lexicon

EMPHASIS: Final = 1.5
"""What an emphasising word multiplies the next term's weight with."""

UNDERSTATEMENT: Final = 0.5
"""The same for a softening word, and for a bad word that is denied: "not bad" is faint praise."""

_CLAUSE_END: Final = re.compile("[.,;:!?()،؛؟。、…]")
_JOINTS: Final = str.maketrans("", "", " -'")
_PATTERN_OF: Final = {" ": "[ -]?", "-": "[ -]?", "'": "'?", "*": r"\w*"}

AnyValue = TypeVar("AnyValue", bound=StrEnum)


class Evidence:
    """What speaks for each value of each aspect; a value tells its aspect by its type.

    A reason given twice counts once, at its heaviest: who repeats a word does not outweigh who tells
    more.
    """

    def __init__(self) -> None:
        self._reasons: defaultdict[type[StrEnum], dict[StrEnum, dict[str, float]]] = defaultdict(dict)

    def add(self, value: StrEnum, weight: float, reason: str) -> None:
        """Count a reason for a value."""
        reasons = self._reasons[type(value)].setdefault(value, {})
        reasons[reason] = max(weight, reasons.get(reason, 0.0))

    def weight(self, value: StrEnum) -> float:
        """Return the weight of all reasons for a value."""
        return sum(self._reasons[type(value)].get(value, {}).values())

    def weights(self, aspect: type[AnyValue]) -> dict[AnyValue, float]:
        """Return the weight of each value of an aspect that has any."""
        return {value: self.weight(value) for value in aspect if value in self._reasons[aspect]}

    def reasons(self, *values: StrEnum) -> tuple[str, ...]:
        """Return the reasons for some values, the heaviest first."""
        found: dict[str, float] = {}
        for value in values:
            found |= self._reasons[type(value)].get(value, {})
        return tuple(sorted(found, key=found.__getitem__, reverse=True))

    def __bool__(self) -> bool:
        return bool(self._reasons)


@dataclass(slots=True)
class _Entry:
    """What a term does wherever it is found."""

    speaks_for: list[tuple[StrEnum, float]] = field(default_factory=list)
    denies_next: bool = False
    denies_previous: bool = False
    turns: bool = False
    factor: float = 1.0


@dataclass(slots=True)
class _Found:
    """A term in a text: from where to where, and what the words around it do to it."""

    entry: _Entry
    start: int
    end: int
    factor: float
    denied: bool


class Reader:
    """Reads texts of one language."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._reach = lexicon.grammar.reach
        self._entries = _entries(lexicon)
        self._pattern = _pattern(self._entries, whole_words=lexicon.grammar.whole_words)

    def read(self, text: str) -> Evidence:
        """Return the evidence in a normalised text."""
        evidence = Evidence()
        for found in self._find(text):
            for value, weight in found.entry.speaks_for:
                ...
        return evidence
