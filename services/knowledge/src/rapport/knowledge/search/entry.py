"""What can be found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One text in one language that may be said; `id` and `language` together name it.

    `kind` is article, key_message or statement.
    `paraphrases` are questions that people asked and this entry answered: the words of those who
    ask are not the words of those who write, so they find it better than its title does.
    """

    id: str
    kind: str
    language: str
    title: str
    text: str
    paraphrases: tuple[str, ...] = ()
    product: str | None = None
    tags: tuple[str, ...] = ()
