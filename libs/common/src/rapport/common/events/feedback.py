"""Topic rapport.feedback: what people told the company, as intake accepted it."""

from typing import Annotated

from pydantic import Field

from rapport.common.events.envelope import EventData, Instant, Personal, Value, event
from rapport.common.events.topics import FEEDBACK
from rapport.common.events.vocabulary import Channel, Kind, Language


class Contact(Value):
    """Who spoke and where to answer; `person` is the keyed hash of the contact point, no more."""

    person: str | None = None
    kind: str = "customer"
    name: Annotated[str | None, Personal(of="contact")] = None
    email: Annotated[str | None, Personal(of="contact")] = None
    phone: Annotated[str | None, Personal(of="contact")] = None
    handles: Annotated[dict[str, str], Personal(of="contact")] = Field(default_factory=dict)
    url: Annotated[str | None, Personal(of="contact")] = None


class Rating(Value):
    """A score on its own scale, best at `maximum`."""

    value: float
    minimum: float
    maximum: float

    @property
    def share(self) -> float:
        """The score moved to 0 (worst) to 1 (best)."""
        return (self.value - self.minimum) / (self.maximum - self.minimum)


class Reach(Value):
    """How far a public item has travelled."""

    followers: int = 0
    reposts: int = 0
    views: int = 0


class Attachment(Value):
    """A file that came along, known by its SHA-256 digest; `size` in bytes."""

    name: Annotated[str, Personal(of="contact")]
    media_type: str
    size: int
    digest: str


@event("rapport.feedback.received.v1", FEEDBACK, key="case_id")
class FeedbackReceived(EventData):
    """A complaint, question, request, praise, survey answer or mention has come in.

    `occurred_at` is when it was said, `received_at` when intake accepted it.
    """

    feedback_id: str
    reference: str
    case_id: str
    client: str
    kind: Kind
    channel: Channel
    source: str | None = None
    source_ref: str | None = None
    thread_ref: str | None = None
    in_reply_to: str | None = None
    contact: Contact = Contact()
    language: Language
    subject: Annotated[str | None, Personal(of="contact")] = None
    text: Annotated[str | None, Personal(of="contact")] = None
    rating: Rating | None = None
    product: str | None = None
    region: str | None = None
    brand: str | None = None
    remedy_sought: Annotated[str | None, Personal(of="contact")] = None
    reach: Reach = Reach()
    public: bool = False
    url: str | None = None
    outlet: str | None = None
    occurred_at: Instant
    received_at: Instant
    attachments: tuple[Attachment, ...] = ()
