"""Key messages: what PR wants everyone to say about a matter, in support's answers too (S3).

Nobody may say yesterday's version (A5), so each version names the one whose place it takes.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from rapport.common.events.knowledge import (
    KeyMessagePublished,
    KeyMessageRetired,
    KeyMessageSuperseded,
)
from rapport.knowledge.domain.publications import Content, Publication
from rapport.knowledge.domain.words import Text, WrittenLanguage


class KeyMessageContent(Content):
    """What a key message says, in each of its languages."""

    text: Annotated[dict[WrittenLanguage, Text], Field(min_length=1)]


class KeyMessage(Publication[KeyMessageContent]):
    """A message of the company, the same in every channel."""

    COLLECTION: ClassVar[str] = "key_messages"

    def _announce(self, replaced: int | None) -> None:
        if replaced is not None:
            self.emit(
                KeyMessageSuperseded(
                    key_message_id=self.id, message_version=replaced, superseded_by=self.edition
                )
            )
        self.emit(
            KeyMessagePublished(
                key_message_id=self.id,
                message_version=self.edition,
                by=self.published_by,
                **dict(self.content),
            )
        )

    def _announce_end(self, by: str) -> None:
        self.emit(KeyMessageRetired(key_message_id=self.id, by=by))
