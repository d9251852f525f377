"""One message to one recipient through one channel, from the wish to the receipt.

It is stored under an id made of communication, recipient and channel, so a second wish for the same
changes nothing. An attempt is leased before it is made: whoever dies while sending leaves a lease
that expires, and the message is sent again under the same id; a crisis alert would rather arrive
twice than never. `delivered` always wins, whatever else is said about the same message.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from rapport.common.aggregate import Aggregate, Due
from rapport.common.errors import Conflict
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.ids import derived_id
from rapport.common.events.notifications import (
    NotificationAcknowledged,
    NotificationChannel,
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language

LEASE: Final = timedelta(seconds=75)
"""Longer than twice a channel's hard timeout (30 s) plus 5 s."""

OPTED_OUT: Final[Literal["opted_out"]] = "opted_out"
"""The reason of a message that its recipient did not want."""

OVER_LIMIT: Final[Literal["over_limit"]] = "over_limit"
"""The reason of a message that is more than its recipient should get; one more says so."""

State = Literal["waiting", "queued", "leased", "delivered", "failed", "suppressed"]


def notification_id(communication: str, recipient: str, channel: str) -> str:
    """Return the id that makes each recipient hear a communication once per channel."""
    return derived_id("notification", communication, recipient, channel)


class Notification(Aggregate):
    """A message on its way, or what became of it."""

    COLLECTION = "notifications"
    TOPIC = NOTIFICATIONS
    INDEXES: ClassVar = (
        ("communication_id", "state", "requested_at"),
        ("recipient", "requested_at"),
        ("state", "requested_at"),
        ("crisis_id", "requested_at"),
    )
    ORDER = "requested_at"

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
    stakeholder: str | None = None
    address: Annotated[str, Personal(of="recipient")]
    language: Language
    subject: Annotated[str, Personal(of="recipient")]
    text: Annotated[str, Personal(of="recipient")]
    data: Annotated[dict[str, Any], Personal(of="recipient")] = Field(default_factory=dict)
    in_reply_to: str | None = None
    requested_at: Instant
    state: State = "queued"
    attempts: int = 0
    next_attempt_at: Instant | None = None
    receipt: str | None = None
    reason: str | None = None
    finished_at: Instant | None = None
    acknowledged_by: str | None = None

    @classmethod
    def requested(cls, wish: NotificationRequested, at: datetime) -> "Notification":
        """Queue a message, to be tried at once; one that is limited waits to be admitted."""
        fields = {name: getattr(wish, name) for name in NotificationRequested.model_fields}
        message = cls(id=fields.pop("notification_id"), requested_at=at, state="waiting", **fields)
        if not wish.limited:
            message.admit(at)
        return message

    @property
    def is_leased(self) -> bool:
        """Whether an attempt has begun, or is to begin."""
        return self.state == "leased"

    @property
    def has_ended(self) -> bool:
        """Whether it is known what became of it."""
        return self.state in ("delivered", "failed", "suppressed")

    def due(self) -> Iterable[Due]:
        """An attempt, or the end of a lease."""
        if self.state in ("queued", "leased") and self.next_attempt_at is not None:
            yield Due("attempt", self.next_attempt_at)

    def admit(self, at: datetime) -> bool:
        """Try it at once; False where it does not wait for that."""
        if self.state != "waiting":
            return False
        self.state, self.next_attempt_at = "queued", at
        return True

    def hold_back(self, reason: str, at: datetime) -> bool:
        """Others said that it is not sent; False where it does not wait for them."""
        if self.state != "waiting":
            return False
        self._finish("suppressed", at, reason)
        return True

    def suppress(self, reason: str, at: datetime) -> bool:
        """Do not send it, on purpose; False where it ended before."""
        if self.has_ended:
            return False
        self._finish("suppressed", at, reason)
        self.emit(NotificationSuppressed(**self._told(), reason=reason))
        return True

    def lease(self, at: datetime) -> None:
        """Begin an attempt; nobody else makes one until the lease is over."""
        self.state = "leased"
        self.attempts += 1
        self.next_attempt_at = at + LEASE

    def hurry(self, now: datetime) -> None:
        """Be tried by `now`: the clock that it was asked for by may have been put back since."""
        if self.state == "queued" and self.next_attempt_at is not None:
            self.next_attempt_at = min(self.next_attempt_at, now)

    def put_off(self, at: datetime) -> None:
        """Begin no attempt before `at`."""
        self.state, self.next_attempt_at = "queued", at

    def deliver(self, receipt: str, at: datetime) -> bool:
        """The channel took it; False where that is known already."""
        if self.state == "delivered":
            return False
        self._finish("delivered", at, None)
        self.receipt = receipt
        shown = self.channel == "stream"
        self.emit(
            NotificationDelivered(
                **self._told(),
                delivered_at=at,
                attempts=self.attempts,
                receipt=receipt,
                language=self.language,
                subject=self.subject if shown else None,
                text=self.text if shown else None,
            )
        )
        return True

    def retry(self, attempt: int, at: datetime) -> bool:
        """The attempt failed and another is made at `at`; False where that is history."""
        if self.state != "leased" or attempt != self.attempts:
            return False
        self.state, self.next_attempt_at = "queued", at
        return True

    def fail(self, reason: str, at: datetime) -> bool:
        """It is given up; False where it ended before."""
        if self.has_ended:
            return False
        self._finish("failed", at, reason)
        self.emit(NotificationFailed(**self._told(), attempts=self.attempts, reason=reason))
        return True

    def acknowledge(self, by: str) -> None:
        """Somebody confirms having read it."""
        if self.state != "delivered":
            raise Conflict("only what was delivered can be acknowledged")
        if self.acknowledged_by is None:
            self.acknowledged_by = by
            self.emit(NotificationAcknowledged(**self._told(), by=by))

    def _finish(self, state: State, at: datetime, reason: str | None) -> None:
        self.state, self.reason, self.finished_at, self.next_attempt_at = state, reason, at, None

    def _told(self) -> dict[str, Any]:
        return {
            "notification_id": self.id,
            "communication_id": self.communication_id,
            "recipient": self.recipient,
            "channel": self.channel,
            "purpose": self.purpose,
            "crisis_id": self.crisis_id,
            "case_id": self.case_id,
            "reply_id": self.reply_id,
            "statement_id": self.statement_id,
            "statement_purpose": self.statement_purpose,
            "statement_hash": self.statement_hash,
        }
