"""Topic rapport.cases: the life of a case, and how each message was assessed.

Except where marked, these events hold no personal data: analytics counts from them.
"""

from typing import Annotated, Literal

from rapport.common.events.envelope import EventData, Instant, Personal, Value, event
from rapport.common.events.feedback import Contact
from rapport.common.events.topics import CASES
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


class Subject(Value):
    """What a case is about: what rules, criteria, figures and subscriptions match on."""

    kind: Kind
    channel: Channel
    language: Language
    product: str | None = None
    brand: str | None = None
    region: str | None = None
    complaint_type: ComplaintType
    need: Need
    sentiment: Sentiment
    trust_cause: TrustCause
    severity: Severity
    public: bool = False
    reach: int = 0


class Because(Value):
    """How sure an assessment is of one of its words (0 to 1), and the terms that decided."""

    confidence: float
    terms: tuple[str, ...] = ()


class CaseEvent(EventData):
    """What every case event carries."""

    case_id: str


@event("rapport.feedback.classified.v1", CASES, key="case_id")
class FeedbackClassified(CaseEvent):
    """One message was assessed; `because` is keyed by the field of `about` that it explains."""

    feedback_id: str
    about: Subject
    because: dict[str, Because]
    rating: float | None = None
    occurred_at: Instant


@event("rapport.case.noted.v1", CASES, key="case_id")
class CaseNoted(CaseEvent):
    """A conversation is on record and nobody has to act on it."""

    feedback_id: str
    about: Subject


@event("rapport.case.opened.v1", CASES, key="case_id")
class CaseOpened(CaseEvent):
    """A conversation needs work and has its one owner, chosen by `rule`."""

    feedback_id: str
    about: Subject
    owner: str
    team: str
    rule: str
    occurred_at: Instant
    excerpt: Annotated[str, Personal(of="contact")] = ""


@event("rapport.case.feedback_added.v1", CASES, key="case_id")
class CaseFeedbackAdded(CaseEvent):
    """A further message of the same conversation joined its case."""

    feedback_id: str
    about: Subject
    owner: str | None


@event("rapport.case.accepted.v1", CASES, key="case_id")
class CaseAccepted(CaseEvent):
    """The owner has taken the case on."""

    by: str


@event("rapport.case.owner_changed.v1", CASES, key="case_id")
class CaseOwnerChanged(CaseEvent):
    """Another person owns the case from now on."""

    owner: str
    previous: str
    team: str
    reason: Annotated[str, Personal(of="contact")]


@event("rapport.case.referred.v1", CASES, key="case_id")
class CaseReferred(CaseEvent):
    """Another team handles the case for its owner, who stays the owner; back by `return_by`."""

    owner: str
    handler: str
    by: str
    reason: Annotated[str, Personal(of="contact")]
    return_by: Instant


@event("rapport.case.referral_returned.v1", CASES, key="case_id")
class CaseReferralReturned(CaseEvent):
    """A referral came back to the owner, done, or on its own when its time was over."""

    owner: str
    handler: str
    outcome: Annotated[str, Personal(of="contact")]
    expired: bool = False


@event("rapport.case.handover_offered.v1", CASES, key="case_id")
class CaseHandoverOffered(CaseEvent):
    """The owner offers the case to somebody, who must accept until `expires_at`."""

    owner: str
    to: str
    reason: Annotated[str, Personal(of="contact")]
    expires_at: Instant


@event("rapport.case.handover_accepted.v1", CASES, key="case_id")
class CaseHandoverAccepted(CaseEvent):
    """The offered person is the owner from now on."""

    owner: str
    previous: str


@event("rapport.case.handover_declined.v1", CASES, key="case_id")
class CaseHandoverDeclined(CaseEvent):
    """The offered person said no; the owner stays."""

    owner: str
    declined_by: str
    reason: Annotated[str, Personal(of="contact")] = ""


@event("rapport.case.handover_expired.v1", CASES, key="case_id")
class CaseHandoverExpired(CaseEvent):
    """Nobody answered the offer in time; the case is back with its owner."""

    returned_to: str
    offered_to: str


@event("rapport.case.escalated.v1", CASES, key="case_id")
class CaseEscalated(CaseEvent):
    """A lead has been brought in; the owner stays the owner."""

    owner: str
    to: str
    level: int
    reason: Annotated[str, Personal(of="contact")]
    about: Subject


@event("rapport.case.reply_requested.v1", CASES, key="case_id")
class CaseReplyRequested(CaseEvent):
    """The owner answers the person.

    `via` "email" sends it; "elsewhere" records an answer that was given by phone or in the source's
    own channel.
    """

    reply_id: str
    by: str
    via: Literal["email", "elsewhere"]
    contact: Contact
    language: Language
    subject: Annotated[str, Personal(of="contact")]
    text: Annotated[str, Personal(of="contact")]
    in_reply_to: str | None = None


@event("rapport.case.crisis_linked.v1", CASES, key="case_id")
class CaseCrisisLinked(CaseEvent):
    """A case belongs to a crisis: its person gets that crisis's statements.

    Told again when their address comes later.
    """

    crisis_id: str
    contact: Contact
    language: Language
    about: Subject


@event("rapport.case.crisis_unlinked.v1", CASES, key="case_id")
class CaseCrisisUnlinked(CaseEvent):
    """A case was linked to a crisis by mistake, or under no name and is linked anew right after.

    `person` is whom it was linked for.
    """

    crisis_id: str
    by: str
    person: str | None = None


@event("rapport.case.note_added.v1", CASES, key="case_id")
class CaseNoteAdded(CaseEvent):
    """Somebody wrote a note for colleagues."""

    by: str
    text: Annotated[str, Personal(of="contact")]


@event("rapport.case.resolved.v1", CASES, key="case_id")
class CaseResolved(CaseEvent):
    """A solution was found and told."""

    by: str
    resolution: Annotated[str, Personal(of="contact")]
    about: Subject
    opened_at: Instant
    first_contact: bool


@event("rapport.case.closed.v1", CASES, key="case_id")
class CaseClosed(CaseEvent):
    """Nothing remains to be done."""

    by: str
    about: Subject
    owner: str
    opened_at: Instant


@event("rapport.case.reopened.v1", CASES, key="case_id")
class CaseReopened(CaseEvent):
    """A resolved or closed case is in work again."""

    by: str
    owner: str
    reason: Annotated[str, Personal(of="contact")]
    about: Subject
