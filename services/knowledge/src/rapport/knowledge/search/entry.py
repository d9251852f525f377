"""What can be found."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["article", "key_message", "statement"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One text in one language that may be said; `id` and `language` together name it.

    `paraphrases` are questions that people asked and this entry answered: the words of those who
    ask are not the words of those who write, so they find it better than its title does.
    """

    id: str
    kind: Kind
    language: str
    title: str
    text: str
    paraphrases: tuple[str, ...] = ()
    product: str | None = None
    tags: tuple[str, ...] = ()
