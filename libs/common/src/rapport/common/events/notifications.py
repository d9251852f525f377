"""Topic rapport.notifications: one message to one recipient through one channel."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.envelope import EventData, Instant, Personal, event
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language

NotificationChannel = Literal["email", "webhook", "stream", "elsewhere"]


class NotificationEvent(EventData):
    """What every notification event carries.

    `recipient` is a stakeholder's or a person's id, no address. `statement_hash` repeats the
    approved bytes' hash.
    """

    notification_id: str
    communication_id: str
    recipient: str
    channel: NotificationChannel
    purpose: CommunicationPurpose
    crisis_id: str | None = None
    case_id: str | None = None
    reply_id: str | None = None
    statement_id: str | None = None
    statement_purpose: str | None = None
    statement_hash: str | None = None


@event("rapport.notification.requested.v1", NOTIFICATIONS, key="recipient")
class NotificationRequested(NotificationEvent):
    """This recipient shall get this text through this channel.

    `limited`: it goes out once it is admitted, since it counts for what a recipient gets at most.
    """

    address: Annotated[str, Personal(of="recipient")]
    language: Language
    subject: Annotated[str, Personal(of="recipient")]
    text: Annotated[str, Personal(of="recipient")]
    data: Annotated[dict[str, Any], Personal(of="recipient")] = Field(default_factory=dict)
    in_reply_to: str | None = None
    stakeholder: str | None = None
    limited: bool = False


@event("rapport.notification.admitted.v1", NOTIFICATIONS, key="recipient")
class NotificationAdmitted(NotificationEvent):
    """It is within what its recipient gets at most: it goes out."""


@event("rapport.notification.delivered.v1", NOTIFICATIONS, key="recipient")
class NotificationDelivered(NotificationEvent):
    """The channel took it. On the live stream this event is the delivery: it carries the text."""

    delivered_at: Instant
    attempts: int
    receipt: str
    language: Language
    subject: Annotated[str | None, Personal(of="recipient")] = None
    text: Annotated[str | None, Personal(of="recipient")] = None


@event("rapport.notification.failed.v1", NOTIFICATIONS, key="recipient")
class NotificationFailed(NotificationEvent):
    """It was given up; `reason` is one of the channels' bounded list."""

    attempts: int
    reason: str


@event("rapport.notification.suppressed.v1", NOTIFICATIONS, key="recipient")
class NotificationSuppressed(NotificationEvent):
    """It was not sent on purpose: opted out, a drill, or more than a recipient should get.

    `policy` is the hash of the policy that limits what a recipient gets.
    """

    reason: str
    policy: str | None = None


@event("rapport.notification.acknowledged.v1", NOTIFICATIONS, key="recipient")
class NotificationAcknowledged(NotificationEvent):
    """The recipient, or somebody for them, has confirmed it."""

    by: str
