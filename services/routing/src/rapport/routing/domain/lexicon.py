"""Lexicons: the words of one language that tell what a message is about.

A lexicon is a YAML file that anybody who knows the language can better. Under each value of each
aspect it lists terms as strong, fair or weak evidence. A term is a word or a phrase; `*` at its end
stands for any ending. Terms are compared in the form that `rapport.common.text.normalise` gives,
and a space, a hyphen or an apostrophe in a term may be missing in the text: "knock off" also finds
"knock-off" and "knockoff", "می خواهم" also "میخواهم". The longest term wins, so a phrase takes its
words with it; `ignore` lists phrases in which words do not mean what they say ("fire sale").
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapport.common.events.vocabulary import (
    ComplaintType,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)
from rapport.common.text import normalise


def _term(text: str) -> str:
    term = normalise(text)
    if not any(character.isalnum() for character in term):
        raise ValueError("is no word")
    if "*" in term[:-1]:
        raise ValueError("has * elsewhere than at its end")
    return term


Term = Annotated[str, AfterValidator(_term)]
"""A word or phrase in comparable form, with `*` at its end for any ending."""

AnyValue = TypeVar("AnyValue", bound=StrEnum)

Strength = Literal["strong", "fair", "weak"]

WEIGHTS: Final[Mapping[Strength, float]] = {"strong": 3.0, "fair": 2.0, "weak": 1.0}
"""What a term adds to the evidence for its value, by the list it stands in."""

Terms = dict[Strength, tuple[Term, ...]]

_DERIVED: Final = frozenset({"other", "none", "both", "low", "normal"})


def _own(value: AnyValue) -> AnyValue:
    if value in _DERIVED:
        raise ValueError("follows from what is found and has no words of its own")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grammar(_Part):
    """How the language denies and stresses.

    A word of `deny_next` denies the terms that follow it, one of `deny_previous` the term before
    it, within `reach` characters of the same clause; a word of `turn` ends a clause as commas do.
    `emphasise` and `soften` weigh on the next term. In a language written without spaces
    `whole_words` is false: its terms are found anywhere.
    """

    whole_words: bool = True
    reach: Annotated[int, Field(ge=1, le=60)]
    deny_next: tuple[Term, ...] = ()
    deny_previous: tuple[Term, ...] = ()
    turn: tuple[Term, ...] = ()
    emphasise: tuple[Term, ...] = ()
    soften: tuple[Term, ...] = ()


class Lexicon(_Part):
    """The words of one language, by what they tell."""

    language: Language
    grammar: Grammar
    ignore: tuple[Term, ...] = ()
    complaint_type: dict[Annotated[ComplaintType, AfterValidator(_own)], Terms] = {}
    need: dict[Annotated[Need, AfterValidator(_own)], Terms] = {}
    sentiment: dict[Sentiment, Terms] = {}
    trust_cause: dict[Annotated[TrustCause, AfterValidator(_own)], Terms] = {}
    severity: dict[Annotated[Severity, AfterValidator(_own)], Terms] = {}

    def entries(self) -> Iterator[tuple[Term, StrEnum, float]]:
        """Yield every term with a value that it speaks for, and its weight there."""
        aspects = chain(
            self.complaint_type.items(),
            self.need.items(),
            self.sentiment.items(),
            self.trust_cause.items(),
            self.severity.items(),
        )
        for value, terms in aspects:
            for strength, listed in terms.items():
                for term in listed:
                    yield term, value, WEIGHTS[strength]
