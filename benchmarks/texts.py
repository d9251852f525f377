"""Articles, questions and complaints to measure with, made up from phrases in three languages.

The phrases are in `phrases.yaml`. The same seed gives the same texts. Made-up model names give each
text words of its own, as order numbers, names and places do in life.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml

LANGUAGES: Final = ("en", "zh", "fa")

ARTICLE_LENGTHS: Final = (400, 1_500)
CASE_LENGTHS: Final = (250, 700)
"""Characters, from and to."""


@dataclass(frozen=True, slots=True)
class Article:
    """A title and a text, both about one product."""

    title: str
    text: str


class Writer:
    """Writes in one language; with the same seed the same texts in the same order."""

    def __init__(self, language: str, seed: int) -> None:
        self._phrases = _phrases()[language]
        self._random = Random(f"{language} {seed}")

    def article(self) -> Article:
        """Return an article of 400 to 1,500 characters."""
        words = self._words()
        title = self._sentence("titles", words)
        return Article(title, self._text("advice", words["product"], ARTICLE_LENGTHS))

    def question(self) -> str:
        """Return a question of one sentence, as somebody types it into a search box."""
        return self._sentence("questions", self._words())

    def case(self) -> str:
        """Return a complaint of 250 to 700 characters."""
        return self._text("complaints", self._words()["product"], CASE_LENGTHS)

    def _text(self, templates: str, product: str, lengths: tuple[int, int]) -> str:
        """Return sentences that stay with a product and wander in everything else."""
        text, length = "", self._random.randint(*lengths)
        while len(text) < length:
            sentence = self._sentence(templates, self._words() | {"product": product})
            text += self._phrases["space"] + sentence if text else sentence
        return text[: lengths[1]]

    def _sentence(self, templates: str, words: dict[str, str]) -> str:
        template: str = self._random.choice(self._phrases[templates])
        return template.format(**words, model=self._model())

    def _words(self) -> dict[str, str]:
        lists: dict[str, Sequence[str]] = self._phrases["words"]
        return {name: self._random.choice(words) for name, words in lists.items()}

    def _model(self) -> str:
        name = "".join(
            self._random.choices(self._phrases["syllables"], k=self._random.choice((2, 3)))
        )
        return f"{name}{self._phrases['space']}{self._random.randint(10, 999)}"


@cache
def _phrases() -> dict[str, Any]:
    path = Path(__file__).with_name("phrases.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
