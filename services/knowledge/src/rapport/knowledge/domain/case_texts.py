"""What a case is about in the person's own words, kept to suggest answers with, and only as long.

The latest words are kept, up to a limit, and forgotten when the case is closed. Messages may be
heard of twice or out of order; what is kept depends on the messages alone.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, ClassVar, Final, Self

from pydantic import BaseModel, Field

from rapport.common.aggregate import Aggregate
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.vocabulary import Language

LIMIT: Final = 1_500
"""Characters that are kept of a case, at most."""

FORGOTTEN_KEPT: Final = 50
"""Ids of messages that are kept when their words are not."""


class Message(BaseModel):
    """Something that the person said; its text may be cut, to nothing."""

    id: str
    at: Instant
    language: Language
    text: Annotated[str, Personal(of="contact")]


class CaseText(Aggregate):
    """The latest words of one case, newest first; its id is the case's.

    `product` is the one that the person named last, at `named_at` (time and message).
    """

    COLLECTION: ClassVar[str] = "case_texts"

    product: str | None = None
    named_at: tuple[Instant, str] | None = None
    messages: list[Message] = Field(default_factory=list)
    closed_at: Instant | None = None
    forgotten: list[str] = Field(default_factory=list)

    @property
    def language(self) -> Language:
        """The language that the person wrote in last."""
        known = (item.language for item in self.messages if item.language is not Language.UND)
        return next(known, Language.UND)

    @property
    def words(self) -> str:
        """Everything that is kept, to search with."""
        return "\n".join(filter(None, (self.product, *(item.text for item in self.messages))))

    def hear(self, feedback: FeedbackReceived) -> Self | None:
        """Keep a message's words; None where that changes nothing.

        A message is as old as it was when it was first heard, also where its sender sends it once
        more and it is received anew: one from before the last closing stays forgotten.
        """
        known = (item.at for item in self.messages if item.id == feedback.feedback_id)
        at = min([feedback.received_at, *known])
        text = "\n".join(filter(None, (feedback.subject, feedback.text)))
        if not text or feedback.feedback_id in self.forgotten:
            return None
        if self.closed_at is not None and at <= self.closed_at:
            self._remember_forgotten([feedback.feedback_id])
            return self
        message = Message(
            id=feedback.feedback_id, at=at, language=feedback.language, text=text[:LIMIT]
        )
        others = [item for item in self.messages if item.id != message.id]
        kept = list(_latest([message, *others]))
        is_named = self._name(feedback.product, at, message.id)
        if kept == self.messages and not is_named:
            return None
        self.messages = kept
        return self

    def _name(self, product: str | None, at: datetime, message: str) -> bool:
        """Keep the product that a message names, unless a later one named another."""
        if product is None or (self.named_at is not None and (at, message) <= self.named_at):
            return False
        self.product, self.named_at = product, (at, message)
        return True

    def forget(self, at: datetime) -> Self | None:
        """Forget the words: the case was closed; None where there is nothing new in that."""
        if self.closed_at is not None and at <= self.closed_at:
            return None
        self.closed_at = at
        self._remember_forgotten([item.id for item in self.messages if item.at <= at])
        self.messages = [item for item in self.messages if item.at > at]
        if self.named_at is None or self.named_at[0] <= at:
            self.product = self.named_at = None
        return self

    def _remember_forgotten(self, ids: Iterable[str]) -> None:
        """Keep whose words were forgotten, in an order that does not depend on when."""
        self.forgotten = sorted({*self.forgotten, *ids})[-FORGOTTEN_KEPT:]


def _latest(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield the latest messages, newest first; what is beyond the limit is cut from the oldest."""
    room = LIMIT
    newest_first = sorted(messages, key=lambda item: (item.at, item.id), reverse=True)
    for message in islice(newest_first, FORGOTTEN_KEPT):
        text = message.text[:room]
        yield message.model_copy(update={"text": text})
        room -= len(text)
