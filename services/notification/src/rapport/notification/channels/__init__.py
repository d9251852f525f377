"""How a notification leaves the system: one file per channel, one method that answers.

A channel takes an `Outgoing` message and says what became of it: delivered, to be tried again, or
refused. It answers for everything that the outside world does and never raises for it; an exception
means a mistake of our own. Each channel keeps its defaults beside its configuration. Nothing of a
drill leaves: a channel that reaches outside looks once more and refuses it (A15).

Delivery is at least once: a message whose answer was lost is sent again, byte for byte the same and
under the same id, so that the receiver can tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from rapport.common.events.communications import CommunicationPurpose

SCHEDULE: Final = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait before each attempt, as Standard Webhooks 1.0 has it: just over three days."""


class Reason(StrEnum):
    """Why a message was not delivered: a bounded list, fit for metric labels."""

    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    """The address is not one that users may make us send to."""
    AUTH = "auth"
    """The receiver does not accept our credentials."""
    BAD_ADDRESS = "bad_address"
    """The address cannot be one."""
    CONNECTION_LOST = "connection_lost"
    """The connection broke before the answer was complete."""
    CONNECTION_REFUSED = "connection_refused"
    """Nobody could be reached at the address."""
    EXERCISE = "exercise"
    """It belongs to a drill."""
    GONE = "gone"
    """The receiver wants nothing more at this address."""
    MALFORMED_MESSAGE = "malformed_message"
    """It has characters that cannot be sent."""
    NO_SUCH_CHANNEL = "no_such_channel"
    """The channel is not set up in this process."""
    NOT_SUPPORTED = "not_supported"
    """The server lacks what the message or our settings need of it."""
    REDIRECT = "redirect"
    """The receiver pointed elsewhere; we do not follow."""
    REJECTED_MESSAGE = "rejected_message"
    """The receiver does not take this content."""
    REJECTED_RECIPIENT = "rejected_recipient"
    """The receiver does not know or serve this recipient."""
    REJECTED_SENDER = "rejected_sender"
    """The receiver does not take messages from us."""
    SERVER_ERROR = "server_error"
    """The receiver is in trouble."""
    THROTTLED = "throttled"
    """The receiver wants fewer messages for now."""
    TIMEOUT = "timeout"
    """There was no complete answer within the hard timeout."""
    TLS = "tls"
    """No trustworthy encrypted connection came about."""
    UNRESOLVED = "unresolved"
    """The host's name could not be resolved."""
    UNSIGNED = "unsigned"
    """There is no usable secret to sign with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What leaves, byte for byte. Its repr shows no personal data.

    `to` is an e-mail address, a URL or a stream's name; `time` is when the message was made (aware,
    UTC), the same at every attempt. `data` is for machines: JSON values, which webhooks carry.
    `secrets` are the receiver's webhook secrets, more than one while they rotate. `in_reply_to` is
    the Message-ID that an e-mail answers, `unsubscribe` the URL to leave by.
    """

    notification_id: str
    kind: CommunicationPurpose
    to: str = field(repr=False)
    language: str
    time: datetime
    subject: str = field(repr=False)
    text: str = field(repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    statement_hash: str | None = None
    exercise: str | None = None
    in_reply_to: str | None = field(default=None, repr=False)
    unsubscribe: str | None = field(default=None, repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The channel took the message; `receipt` is its answer's code, without personal data."""

    receipt: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Not this time. `after` is the wait in seconds that the receiver asked for, if it did."""

    reason: Reason
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Never in this form. `disable`: the receiver wants nothing more at this address."""

    reason: Reason
    disable: bool = False


Outcome = Delivered | Retry | Refused


class Channel(Protocol):
    """One way out."""

    name: str

    async def send(self, message: Outgoing) -> Outcome:
        """Try once, within the channel's hard timeout, and say what became of it."""

    async def close(self) -> None:
        """Let go of open connections; nothing is sent afterwards."""


class Channels:
    """The channels that this process can send through, by name."""

    def __init__(self, *channels: Channel) -> None:
        self._channels = {channel.name: channel for channel in channels}

    async def send(self, name: str, message: Outgoing) -> Outcome:
        """Send `message` through the channel `name`."""
        channel = self._channels.get(name)
        return await channel.send(message) if channel else Refused(Reason.NO_SUCH_CHANNEL)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()


def next_attempt(attempts: int, retry_after: float | None = None) -> float | None:
    """Return the seconds to wait after `attempts` attempts, or None when it is time to give up.

    The receiver's own wish counts where it is longer, up to the schedule's longest wait.
    """
    if attempts >= len(SCHEDULE):
        return None
    return max(SCHEDULE[attempts], min(retry_after or 0, SCHEDULE[-1]))
