"""Articles: common questions, guides to solving a problem, communication practice (S5)."""

from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from rapport.common.events.knowledge import ArticlePublished, ArticleRetired
from rapport.knowledge.domain.publications import Content, Publication
from rapport.knowledge.domain.words import Line, Text, WrittenLanguage

MOST_PARAPHRASES: Final = 20

Paraphrases = Annotated[tuple[Line, ...], Field(max_length=MOST_PARAPHRASES)]


class ArticleContent(Content):
    """What an article says, in each of its languages.

    `paraphrases` are questions as people ask them, which the article answers.
    """

    title: Annotated[dict[WrittenLanguage, Line], Field(min_length=1)]
    text: dict[WrittenLanguage, Text]
    paraphrases: dict[WrittenLanguage, Paraphrases] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole_in_each_language(self) -> Self:
        if self.title.keys() != self.text.keys():
            raise ValueError("title and text need the same languages")
        if not self.paraphrases.keys() <= self.text.keys():
            raise ValueError("there are paraphrases in a language without a text")
        return self


class Article(Publication[ArticleContent]):
    """A piece of knowledge that both sides of the company use."""

    COLLECTION: ClassVar[str] = "articles"

    def _announce(self, replaced: int | None) -> None:
        self.emit(
            ArticlePublished(
                article_id=self.id,
                article_version=self.edition,
                by=self.published_by,
                **dict(self.content),
            )
        )

    def _announce_end(self, by: str) -> None:
        self.emit(ArticleRetired(article_id=self.id, by=by))
