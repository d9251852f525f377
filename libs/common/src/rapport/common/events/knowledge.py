"""Topic rapport.knowledge: what may be said, in which words and languages, with whose approval."""

from typing import Literal

from pydantic import Field

from rapport.common.events.envelope import EventData, Value, event
from rapport.common.events.topics import KNOWLEDGE
from rapport.common.events.vocabulary import Language

Purpose = Literal["holding", "update", "closing", "proactive"]


class Wording(Value):
    """A subject line and a text in one language, exactly as they are sent."""

    subject: str
    text: str


@event("rapport.article.published.v1", KNOWLEDGE, key="article_id")
class ArticlePublished(EventData):
    """A version of a knowledge article can be found and suggested from now on."""

    article_id: str
    article_version: int
    title: dict[Language, str]
    text: dict[Language, str]
    paraphrases: dict[Language, tuple[str, ...]] = Field(default_factory=dict)
    product: str | None = None
    topics: tuple[str, ...] = ()
    by: str


@event("rapport.article.retired.v1", KNOWLEDGE, key="article_id")
class ArticleRetired(EventData):
    """An article is no longer true and is found no more."""

    article_id: str
    by: str


@event("rapport.key_message.published.v1", KNOWLEDGE, key="key_message_id")
class KeyMessagePublished(EventData):
    """What everyone says about a matter, from now on in this version."""

    key_message_id: str
    message_version: int
    text: dict[Language, str]
    product: str | None = None
    topics: tuple[str, ...] = ()
    by: str


@event("rapport.key_message.superseded.v1", KNOWLEDGE, key="key_message_id")
class KeyMessageSuperseded(EventData):
    """An earlier version of a key message must not be used any more."""

    key_message_id: str
    message_version: int
    superseded_by: int


@event("rapport.key_message.retired.v1", KNOWLEDGE, key="key_message_id")
class KeyMessageRetired(EventData):
    """A key message is over."""

    key_message_id: str
    by: str


class StatementEvent(EventData):
    """What every statement event carries; `hash` is the SHA-256 of all its wordings."""

    statement_id: str
    hash: str
    purpose: Purpose
    crisis_id: str | None = None


@event("rapport.statement.submitted.v1", KNOWLEDGE, key="statement_id")
class StatementSubmitted(StatementEvent):
    """The author asks for approval: `quorum` approvals from each named group."""

    by: str
    quorum: dict[str, int]
    languages: tuple[Language, ...]


@event("rapport.statement.approval_recorded.v1", KNOWLEDGE, key="statement_id")
class StatementApprovalRecorded(StatementEvent):
    """Somebody other than the author approved exactly these bytes for a group."""

    by: str
    group: str


@event("rapport.statement.approved.v1", KNOWLEDGE, key="statement_id")
class StatementApproved(StatementEvent):
    """Every group's quorum is reached."""

    approvals: tuple[str, ...]


@event("rapport.statement.rejected.v1", KNOWLEDGE, key="statement_id")
class StatementRejected(StatementEvent):
    """An approver said no, with a reason for the author."""

    by: str
    reason: str


@event("rapport.statement.released.v1", KNOWLEDGE, key="statement_id")
class StatementReleased(StatementEvent):
    """The statement goes out, byte for byte as approved, in every language.

    It is for every person linked to the crisis and every member of the stakeholder groups named.
    `break_glass` is why it went out without the approvals that it needs, where it did.
    """

    by: str
    wordings: dict[Language, Wording]
    groups: tuple[str, ...]
    break_glass: str | None = None


@event("rapport.statement.superseded.v1", KNOWLEDGE, key="statement_id")
class StatementSuperseded(StatementEvent):
    """A later statement for the same purpose took this one's place."""

    superseded_by: str
