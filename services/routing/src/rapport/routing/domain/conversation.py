"""The conversation behind a case: who speaks, the latest words, and what they are about together.

Each message is judged by itself; together they are about the worst that was said, in the words of
the first where there is no worse. What is kept is bounded: the latest messages, cut where they are
long, and the ids of the last 1,000, by which one that comes again is known.
"""

from typing import Annotated, Final

from pydantic import BaseModel

from rapport.common.events.cases import Because, Subject
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.feedback import Contact, FeedbackReceived, Reach
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)
from rapport.common.people import contact_points
from rapport.routing.domain.assessment import Assessable, Assessment

HEARD_LIMIT: Final = 1_000
MESSAGES_KEPT: Final = 20

TEXT: Final = 4_000
EXCERPT: Final = 280
TITLE: Final = 80
"""Characters that are kept of a message's text, of the excerpt that travels, of a title."""

_KINDS: Final = (
    Kind.PRAISE,
    Kind.MENTION,
    Kind.SURVEY_ANSWER,
    Kind.QUESTION,
    Kind.REQUEST,
    Kind.COMPLAINT,
)
_SENTIMENTS: Final = (Sentiment.POSITIVE, Sentiment.NEUTRAL, Sentiment.NEGATIVE)
_SEVERITIES: Final = tuple(Severity)
_SAYS_LITTLE: Final = (ComplaintType.NONE, ComplaintType.OTHER)


class Message(BaseModel):
    """One message, as those who work on the case read it; the text may be cut."""

    feedback_id: str
    at: Instant
    kind: Kind
    channel: Channel
    text: Annotated[str, Personal(of="contact")]
    url: str | None = None


class Conversation(BaseModel):
    """Who speaks, how to answer, and what was heard; the excerpt is of the message that matters."""

    contact: Annotated[Contact, Personal(of="contact")]
    title: Annotated[str, Personal(of="contact")] = ""
    excerpt: Annotated[str, Personal(of="contact")] = ""
    in_reply_to: str | None = None
    count: int = 0
    heard: list[str] = []
    messages: Annotated[list[Message], Personal(of="contact")] = []

    def has_heard(self, feedback_id: str) -> bool:
        """Tell whether a message is one of the last 1,000 that were heard."""
        return feedback_id in self.heard

    def hear(self, feedback: FeedbackReceived) -> None:
        """Take a message in."""
        self.count += 1
        self.heard = [*self.heard[1 - HEARD_LIMIT :], feedback.feedback_id]
        self.messages = [*self.messages[1 - MESSAGES_KEPT :], _message(feedback)]
        if feedback.contact != self.contact:
            self.contact = _reachable(self.contact, feedback.contact)
        if feedback.channel is Channel.EMAIL:
            self.in_reply_to = feedback.source_ref

    def feature(self, feedback: FeedbackReceived) -> None:
        """Make a message the one that the conversation is shown by."""
        self.excerpt = _line(feedback.text or feedback.subject or "", EXCERPT)
        self.title = _line(feedback.subject or self.excerpt, TITLE)


def _line(text: str, limit: int) -> str:
    return " ".join(text[: 2 * limit].split())[:limit]


def _message(feedback: FeedbackReceived) -> Message:
    return Message(
        feedback_id=feedback.feedback_id,
        at=feedback.occurred_at,
        kind=feedback.kind,
        channel=feedback.channel,
        text=(feedback.text or "")[:TEXT],
        url=feedback.url,
    )


def _reachable(first: Contact, later: Contact) -> Contact:
    """The contact to answer: the first person, with the addresses that they gave since."""
    if first.person in (None, later.person) or not _points(first).isdisjoint(_points(later)):
        return later.model_copy(update={name: value for name, value in first if value})
    return first


def _points(contact: Contact) -> set[str]:
    """Return each contact point: who shares one is the same person."""
    return set(contact_points(contact.email, contact.phone, contact.handles))


def assessable(feedback: FeedbackReceived) -> Assessable:
    """Return what a message is judged by."""
    return Assessable(
        kind=feedback.kind,
        channel=feedback.channel,
        language=feedback.language,
        subject=feedback.subject,
        text=feedback.text,
        rating=None if feedback.rating is None else feedback.rating.share,
        public=feedback.public,
        reach=feedback.reach,
        remedy_sought=feedback.remedy_sought,
    )


def subject_of(feedback: FeedbackReceived, assessment: Assessment) -> Subject:
    """Return what one message is about."""
    return Subject(
        kind=feedback.kind,
        channel=feedback.channel,
        language=feedback.language,
        product=feedback.product,
        brand=feedback.brand,
        region=feedback.region,
        complaint_type=assessment.complaint_type.value,
        need=assessment.need.value,
        sentiment=assessment.sentiment.value,
        trust_cause=assessment.trust_cause.value,
        severity=assessment.severity.value,
        public=feedback.public,
        reach=reach_of(feedback.reach),
    )


def because_of(assessment: Assessment) -> dict[str, Because]:
    """Return how sure each judgement is, and why, by the field of `Subject` that it is about."""
    return {
        field: Because(confidence=judgement.confidence, terms=judgement.because)
        for field, judgement in assessment
    }


def reach_of(reach: Reach) -> int:
    """Return how many people an item may have reached: the largest figure that is known."""
    return max(reach.followers, reach.reposts, reach.views)


def together(first: Subject, later: Subject) -> Subject:
    """Return what two messages of one conversation are about.

    The worst wins of what can be worse (kind, sentiment, severity, reach, public), needs add up,
    and of the rest the first that says something stays.
    """
    return Subject(
        kind=max(first.kind, later.kind, key=_KINDS.index),
        channel=first.channel,
        language=later.language if first.language is Language.UND else first.language,
        product=first.product or later.product,
        brand=first.brand or later.brand,
        region=first.region or later.region,
        complaint_type=_more_telling(first.complaint_type, later.complaint_type),
        need=_both(first.need, later.need),
        sentiment=max(first.sentiment, later.sentiment, key=_SENTIMENTS.index),
        trust_cause=(
            later.trust_cause if first.trust_cause is TrustCause.NONE else first.trust_cause
        ),
        severity=max(first.severity, later.severity, key=_SEVERITIES.index),
        public=first.public or later.public,
        reach=max(first.reach, later.reach),
    )


def _more_telling(first: ComplaintType, later: ComplaintType) -> ComplaintType:
    """The first of the two that names a matter; `other` still says more than `none`."""
    if first not in _SAYS_LITTLE:
        return first
    return first if later is ComplaintType.NONE else later


def _both(first: Need, later: Need) -> Need:
    needs = {first, later}
    if needs == {Need.MATERIAL, Need.EMOTIONAL} or Need.BOTH in needs:
        return Need.BOTH
    for need in (Need.MATERIAL, Need.EMOTIONAL, Need.INFORMATION):
        if need in needs:
            return need
    return Need.NONE
