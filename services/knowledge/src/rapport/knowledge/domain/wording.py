"""A statement's words: one source wording, its translations, and the hashes that tie them down.

A translation names the hash of the source wording that it translates (A4), so that it goes stale,
for all to see, when the source changes. The hash of a whole statement is what approvers approve and
what deliveries repeat (A3).
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rapport.common.events.knowledge import Purpose, Wording
from rapport.common.events.vocabulary import Language
from rapport.knowledge.domain.words import MOST_GROUPS, Line, Name, Text, WrittenLanguage

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hexadecimal."""


def digest(words: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON as RFC 8785 writes it: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(words, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(canonical.encode()).hexdigest()


def statement_hash(wordings: Mapping[Language, Wording]) -> str:
    """Return the digest of all wordings: of `{language: {"subject": ..., "text": ...}}`."""
    return digest({language: dict(wording) for language, wording in wordings.items()})


class Variant(BaseModel):
    """The words in one language; a translation `translates` the source wording of that hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Line
    text: Text
    translates: Digest | None = None

    @property
    def wording(self) -> Wording:
        """The words alone, as they are sent."""
        return Wording(subject=self.subject, text=self.text)

    @property
    def hash(self) -> str:
        """What a translation of this names: the digest of `{"subject": ..., "text": ...}`."""
        return digest(dict(self.wording))


class Draft(BaseModel):
    """What an author writes: for what purpose and for whom, and the words in each language.

    It goes to everyone linked to the crisis and to every member of the stakeholder groups named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Purpose
    crisis_id: Name | None = None
    groups: Annotated[tuple[Name, ...], Field(max_length=MOST_GROUPS)] = ()
    source_language: WrittenLanguage
    wordings: dict[WrittenLanguage, Variant]

    @model_validator(mode="after")
    def _has_a_source_and_somebody_to_tell(self) -> Self:
        source = self.wordings.get(self.source_language)
        if source is None:
            raise ValueError(f"there is no wording in {self.source_language}, the source language")
        if source.translates is not None:
            raise ValueError(f"{self.source_language} is the source, which translates nothing")
        if self.crisis_id is None and not self.groups:
            raise ValueError("it goes to nobody: name a crisis or stakeholder groups")
        return self

    @property
    def released(self) -> dict[Language, Wording]:
        """The words alone in each language, as they are sent."""
        return {language: variant.wording for language, variant in sorted(self.wordings.items())}

    @property
    def stale(self) -> list[Language]:
        """The languages whose variant does not translate the source wording as it is now."""
        source = self.wordings[self.source_language].hash
        return [
            language
            for language, variant in sorted(self.wordings.items())
            if language != self.source_language and variant.translates != source
        ]
