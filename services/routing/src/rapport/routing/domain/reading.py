"""Reading: from a text and a lexicon to the evidence that is in it.

All terms of a lexicon are one regular expression, factored by common beginnings, so that a text is
read in one pass whatever the number of terms. What is found is then taken in order: a denial turns
the terms near it, an emphasis weighs on the next one. Reasons are told in the lexicon's words and
never in those of the text, so they hold no personal data.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar, cast

from rapport.common.events.vocabulary import Need, Sentiment
from rapport.routing.domain.lexicon import Lexicon

EMPHASIS: Final = 1.5
"""What an emphasising word multiplies the next term's weight with."""

FAINT: Final = 0.5
"""The same for a softening word, and for a bad word that is denied: "not bad" is faint praise."""

_CLAUSE_END: Final = re.compile("[.,;:!?()،؛؟。、…]")
_JOINTS: Final = str.maketrans("", "", " -'")
_LOOSE: Final = {" ": "[ -]?", "-": "[ -]?", "'": "'?", "*": r"\w*"}

AnyValue = TypeVar("AnyValue", bound=StrEnum)


class Evidence:
    """What speaks for each value of each aspect; a value tells its aspect by its type.

    A reason given twice counts once, at its heaviest: who repeats a word does not outweigh who
    tells more.
    """

    def __init__(self) -> None:
        self._reasons: defaultdict[type[StrEnum], dict[StrEnum, dict[str, float]]]
        self._reasons = defaultdict(dict)

    def __bool__(self) -> bool:
        return any(self._reasons.values())

    def add(self, value: StrEnum, weight: float, reason: str) -> None:
        """Count a reason for a value."""
        reasons = self._reasons[type(value)].setdefault(value, {})
        reasons[reason] = max(weight, reasons.get(reason, 0.0))

    def of(self, value: StrEnum) -> Mapping[str, float]:
        """Return the reasons for a value and their weights."""
        return self._reasons[type(value)].get(value, {})

    def about(self, aspect: type[StrEnum]) -> list[tuple[str, float]]:
        """Return the reasons for any value of an aspect and their weights."""
        return [found for reasons in self._reasons[aspect].values() for found in reasons.items()]

    def weights(self, aspect: type[AnyValue]) -> dict[AnyValue, float]:
        """Return the weight of each value of an aspect for which anything speaks."""
        reasons = cast("dict[AnyValue, dict[str, float]]", self._reasons[aspect])
        return {value: sum(found.values()) for value, found in reasons.items()}

    def reasons(self, *values: StrEnum) -> tuple[str, ...]:
        """Return the reasons for some values, the heaviest first."""
        found: dict[str, float] = {}
        for value in values:
            found.update(self.of(value))
        return tuple(sorted(found, key=found.__getitem__, reverse=True))


@dataclass(slots=True)
class _Entry:
    """A term and what it does wherever it stands."""

    term: str
    speaks_for: list[tuple[StrEnum, float]] = field(default_factory=list)
    denies_next: bool = False
    denies_previous: bool = False
    turns: bool = False
    factor: float = 1.0


@dataclass(slots=True)
class _Found:
    """A term in a text, from where to where, and what the words around it do to it."""

    entry: _Entry
    start: int
    end: int
    reason: str
    factor: float = 1.0
    denied: bool = False


class Reader:
    """Reads texts of one language."""

    def __init__(self, lexicon: Lexicon) -> None:
        entries = _entries(lexicon)
        self._entries = {_key(term): entry for term, entry in entries.items()}
        self._reach = lexicon.grammar.reach
        self._pattern = _pattern(entries, whole_words=lexicon.grammar.whole_words)

    def read(self, text: str) -> Evidence:
        """Return the evidence in a normalised text."""
        evidence = Evidence()
        for found in self._find(text):
            for value, weight in found.entry.speaks_for:
                if found.denied:
                    _add_denied(evidence, value, weight * found.factor, found.reason)
                else:
                    evidence.add(value, weight * found.factor, found.reason)
        return evidence

    def _find(self, text: str) -> list[_Found]:
        terms: list[_Found] = []
        emphasis = denial = previous = None
        for match in self._pattern.finditer(text):
            entry = self._entry(match.group())
            found = _Found(entry, *match.span(), reason=entry.term)
            if entry.turns:
                denial = previous = None
            if entry.denies_previous and previous and self._near(text, previous, found):
                previous.denied, previous.reason = True, f"{previous.entry.term} … {entry.term}"
            if entry.speaks_for:
                if emphasis and self._near(text, emphasis, found):
                    found.factor = emphasis.entry.factor
                if denial and self._near(text, denial, found):
                    found.denied, found.reason = True, f"{denial.entry.term} … {entry.term}"
                terms.append(found)
                previous, emphasis = found, None
            if entry.denies_next:
                denial = found
            if entry.factor != 1.0:
                emphasis = found
        return terms

    def _entry(self, word: str) -> _Entry:
        """Return the entry of a word that the pattern has found: its own or a beginning's."""
        key = _key(word)
        entry = self._entries.get(key)
        while entry is None:
            entry = self._entries.get(key + "*")
            key = key[:-1]
        return entry

    def _near(self, text: str, first: _Found, second: _Found) -> bool:
        distance = second.start - first.end
        return distance <= self._reach and not _CLAUSE_END.search(text, first.end, second.start)


def _add_denied(evidence: Evidence, value: StrEnum, weight: float, reason: str) -> None:
    """A denied feeling turns round, a denied need is still a need, the rest is not there."""
    if value is Sentiment.POSITIVE:
        evidence.add(Sentiment.NEGATIVE, weight, reason)
    elif value is Sentiment.NEGATIVE:
        evidence.add(Sentiment.POSITIVE, weight * FAINT, reason)
    elif isinstance(value, Need):
        evidence.add(value, weight, reason)


def _key(term: str) -> str:
    """What all ways to write a term have in common."""
    return term.translate(_JOINTS)


def _entries(lexicon: Lexicon) -> Mapping[str, _Entry]:
    """Return the entries by term.

    Terms that differ in their joints only share one, and "slow" says what "slow*" says, too.
    """
    by_key: dict[str, _Entry] = {}
    entries: dict[str, _Entry] = {}

    def entry(term: str) -> _Entry:
        entries[term] = by_key.setdefault(_key(term), _Entry(term))
        return entries[term]

    for term, value, weight in lexicon.entries():
        entry(term).speaks_for.append((value, weight))
    for key, word in by_key.items():
        if beginning := by_key.get(key + "*"):
            word.speaks_for += beginning.speaks_for
    grammar = lexicon.grammar
    for term in grammar.deny_next:
        entry(term).denies_next = True
    for term in grammar.deny_previous:
        entry(term).denies_previous = True
    for term in grammar.turn:
        entry(term).turns = True
    for term in grammar.emphasise:
        entry(term).factor = EMPHASIS
    for term in grammar.soften:
        entry(term).factor = FAINT
    for term in lexicon.ignore:
        entry(term).speaks_for.clear()
    return entries


class _Tree(dict[str, "_Tree"]):
    """Terms by their common beginnings; the key "" says that a term ends here."""


def _pattern(terms: Iterable[str], *, whole_words: bool) -> re.Pattern[str]:
    root = _Tree()
    for term in terms:
        branch = root
        for character in (*term, ""):
            branch = branch.setdefault(character, _Tree())
    words = _expression(root) or "(?!)"
    return re.compile(rf"\b{words}(?!\w)" if whole_words else words)


def _expression(tree: _Tree) -> str:
    """Return what matches the terms of a tree, trying longer ones and exact ones first."""
    branches = [
        _LOOSE.get(character, re.escape(character)) + _expression(rest)
        for character, rest in sorted(tree.items(), key=lambda branch: branch[0] == "*")
        if character
    ]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)})" + ("?" if "" in tree else "")
