"""The forms of what is written here: in which languages, how long, and cleaned of what deceives.

A text is cleaned as it comes in, so what is stored, hashed, approved and sent is one and the same.
The limits keep a publication in every language within one event.
"""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from rapport.common.events.vocabulary import Language
from rapport.common.text import one_line, paragraphs

MOST_TOPICS: Final = 20
MOST_GROUPS: Final = 50


def _determined(language: Language) -> Language:
    if language is Language.UND:
        raise ValueError("what is published is in a known language")
    return language


WrittenLanguage = Annotated[Language, AfterValidator(_determined)]
"""A language that we publish in."""

Text = Annotated[str, AfterValidator(paragraphs), Field(min_length=1, max_length=10_000)]
"""A text of one or many paragraphs."""

Line = Annotated[str, AfterValidator(one_line), Field(min_length=1, max_length=300)]
"""A title, a subject, a question: one line."""

Name = Annotated[str, AfterValidator(one_line), Field(min_length=1, max_length=100)]
"""The name of a product, a topic, a group, a person; the id of a thing of another service."""

Topics = Annotated[tuple[Name, ...], Field(max_length=MOST_TOPICS)]
"""What something is about, in words of one's own."""
