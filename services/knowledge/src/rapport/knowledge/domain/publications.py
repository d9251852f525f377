"""What is published in versions: the latest one alone holds, until the publication is retired."""

from datetime import datetime
from typing import ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from rapport.common.aggregate import Aggregate
from rapport.common.events.envelope import Instant
from rapport.common.events.topics import KNOWLEDGE, Topic
from rapport.knowledge.domain.words import Name, Topics


class Content(BaseModel):
    """What a publication says; subclasses add the words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: Name | None = None
    topics: Topics = ()


C = TypeVar("C", bound=Content)


class Publication(Aggregate, Generic[C]):
    """Something that anybody may use as it stands; `edition` counts its published versions."""

    TOPIC: ClassVar[Topic | None] = KNOWLEDGE
    ORDER: ClassVar[str] = "created_at"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("product",), ("retired",), ("created_at",))

    content: C
    edition: int = 0
    retired: bool = False
    created_at: Instant
    published_at: Instant
    published_by: str

    @property
    def product(self) -> str | None:
        """The product that it is about."""
        return self.content.product

    @classmethod
    def publish(
        cls, current: Self | None, id: str, content: C, by: str, at: datetime
    ) -> Self | None:
        """Return the publication with `content` as its next version, be it retired or not.

        None where that is what it says already: the same words again are no new version.
        """
        replaced = None if current is None or current.retired else current.edition
        if current is None:
            current = cls(id=id, content=content, created_at=at, published_at=at, published_by=by)
        elif replaced is not None and current.content == content:
            return None
        current.content, current.retired = content, False
        current.published_at, current.published_by = at, by
        current.edition += 1
        current._announce(replaced)
        return current

    def retire(self, by: str) -> Self | None:
        """End it, and return it; None where it has ended already."""
        if self.retired:
            return None
        self.retired = True
        self._announce_end(by)
        return self

    def _announce(self, replaced: int | None) -> None:
        """Say that this version is in force, and which one is not any more."""
        raise NotImplementedError

    def _announce_end(self, by: str) -> None:
        """Say that no version is in force any more."""
        raise NotImplementedError
