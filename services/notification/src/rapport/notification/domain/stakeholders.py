"""Who there is to be told: stakeholders, their groups, what they want to hear and what not.

A recipient is a person, not a record: a stakeholder with the same contact point as a complainant is
the same recipient and hears a statement once. Opting out belongs to the recipient as well.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, time, timedelta
from typing import Annotated, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.envelope import Instant, Personal, Value
from rapport.common.events.interactions import StakeholderChanged, StakeholderPreferenceChanged
from rapport.common.events.notifications import NotificationChannel
from rapport.common.events.topics import INTERACTIONS
from rapport.common.events.vocabulary import Language
from rapport.common.matching import Conditions

SECRETS_KEPT: Final = 2
"""A webhook's messages are signed with its newest secrets, two while it moves to a new one."""

DIGEST_DELAY: Final = timedelta(minutes=1)
"""Lets what happened at the very end of a digest's period arrive."""

ON_TIME: Final = DIGEST_DELAY / 2
"""So long after it happened something may arrive; the rest of the delay is for storing it."""

LATE: Final = 2 * DIGEST_DELAY
"""Only where the service was stopped, or behind, is a digest made so long after its period."""

Cadence = Literal["hourly", "daily", "weekly"]

_PERIODS = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
}


class Address(Value):
    """Where a channel reaches somebody; webhooks are signed with `secrets`, newest first."""

    channel: NotificationChannel
    to: Annotated[str, Personal(of="stakeholder")]
    secrets: Annotated[tuple[str, ...], Personal(of="stakeholder")] = ()


class Stakeholder(Aggregate):
    """Somebody inside or outside who must hear things (S9), and how they are reached."""

    COLLECTION = "stakeholders"
    TOPIC = INTERACTIONS
    INDEXES: ClassVar = (("active", "id"),)

    name: Annotated[str, Personal(of="stakeholder")] = ""
    side: Literal["internal", "external"] = "external"
    language: Language = Language.EN
    groups: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    recipient: str = ""
    active: bool = True

    def become(
        self,
        *,
        name: str,
        side: Literal["internal", "external"],
        language: Language,
        groups: tuple[str, ...],
        addresses: tuple[Address, ...],
        recipient: str | None,
        active: bool,
    ) -> None:
        """Take on a new record; `recipient` is the person's id, by default the record's own."""
        self.name, self.side, self.language = name, side, language
        self.groups, self.addresses, self.active = groups, addresses, active
        self.recipient = recipient or self.id
        self._changed()

    def forget_address(self, to: str) -> bool:
        """Stop using an address whose receiver wants nothing more there; False if it is unknown."""
        kept = tuple(address for address in self.addresses if address.to != to)
        if kept == self.addresses:
            return False
        self.addresses = kept
        self._changed()
        return True

    def add_secret(self, to: str, secret: str) -> bool:
        """Sign for a webhook with a new secret and the latest one before it; False if unknown."""
        if all(address.to != to or address.channel != "webhook" for address in self.addresses):
            return False
        self.addresses = tuple(
            address.model_copy(update={"secrets": (secret, *address.secrets)[:SECRETS_KEPT]})
            if address.to == to
            else address
            for address in self.addresses
        )
        return True

    def leave(self) -> None:
        """Be told nothing more; the record stays."""
        if self.active:
            self.active = False
            self._changed()

    def _changed(self) -> None:
        self.emit(
            StakeholderChanged(
                stakeholder=self.id, groups=self.groups, active=self.active, name=self.name
            )
        )


class StakeholderGroup(Aggregate):
    """A name for stakeholders who hear the same: shareholders, dealers, press, staff."""

    COLLECTION = "stakeholder_groups"
    INDEXES: ClassVar = (("active", "id"),)

    title: dict[Language, str] = Field(default_factory=dict)
    active: bool = True


class Preference(Aggregate):
    """What a recipient does not want to get; the id is the recipient's."""

    COLLECTION = "preferences"
    TOPIC = INTERACTIONS

    opted_out: tuple[CommunicationPurpose, ...] = ()

    def set(self, opted_out: Iterable[CommunicationPurpose]) -> None:
        """Opt out of exactly these purposes."""
        wanted = tuple(sorted(set(opted_out)))
        for purpose in set(wanted) ^ set(self.opted_out):
            self.emit(
                StakeholderPreferenceChanged(
                    stakeholder=self.id, purpose=purpose, opted_out=purpose in wanted
                ),
                key=purpose,
            )
        self.opted_out = wanted


class Subscription(Aggregate):
    """What somebody wants to hear of: event types, conditions, at once or as a digest.

    `to` names stakeholders by id or groups by `group:NAME`; `owner` stands for the owner of the
    case that the event is about. A digest is due at `at` (local to `time_zone`) every day or week,
    or at every full hour.
    """

    COLLECTION = "subscriptions"
    INDEXES: ClassVar = (("active", "id"),)

    to: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    when: Conditions = Conditions({})
    deliver: Literal["at_once", "digest"] = "at_once"
    every: Cadence = "daily"
    at: time = time(8, 0)
    time_zone: str = "UTC"
    active: bool = True
    digest_from: Instant | None = None
    digest_due: Instant | None = None
    digest_cursor: str | None = None

    def due(self) -> Iterable[Due]:
        """A digest, or its next page of recipients, falls due soon after the end of its period."""
        if self.active and self.digest_due is not None:
            yield Due(f"digest:{self.digest_cursor or ''}", self.digest_due + DIGEST_DELAY)

    def wants(self, event: str, about: Mapping[str, object]) -> bool:
        """Tell whether an event (`case.opened`), about these things, is subscribed to."""
        return self.active and event in self.events and self.when.hold(about)

    def schedule(self, now: datetime) -> None:
        """Say when the next digest is due, where this is a digest; a period that runs goes on."""
        self.digest_cursor = None
        if self.deliver == "digest" and self.active:
            self.digest_from, self.digest_due = self.digest_from or now, next_digest(self, now)
        else:
            self.digest_from = self.digest_due = None

    def put_off(self, now: datetime) -> bool:
        """Let a digest that is late wait for what comes in late, too: its period ends now instead.

        Returns whether that was done, which is once for each digest.
        """
        if self.digest_cursor is not None or self.digest_from is None or self.digest_due is None:
            return False
        is_late = now > self.digest_due + LATE
        if not is_late or self.digest_due != next_digest(self, self.digest_from):
            return False
        self.digest_due = now
        return True

    def turn_page(self, cursor: str | None) -> None:
        """Go on after a page of a digest's recipients: with the next page, or the next period."""
        self.digest_cursor = cursor
        if cursor is None and self.digest_due is not None:
            self.digest_from = self.digest_due
            self.digest_due = next_digest(self, self.digest_due)


def digested_at(happened_at: datetime, now: datetime) -> datetime:
    """Return when something that is stored now counts for digests: when it happened, if on time.

    What comes later may find the digest of its time sent, so it counts for the one to come.
    """
    return max(happened_at, now - ON_TIME)


def next_digest(subscription: Subscription, after: datetime) -> datetime:
    """Return when the next digest is due, in UTC; local times follow daylight saving."""
    if subscription.every == "hourly":
        return after.replace(minute=0, second=0, microsecond=0) + _PERIODS["hourly"]
    zone = ZoneInfo(subscription.time_zone)
    local = after.astimezone(zone)
    due = local.replace(
        hour=subscription.at.hour, minute=subscription.at.minute, second=0, microsecond=0
    )
    days = 7 - local.weekday() if subscription.every == "weekly" else 0
    due += timedelta(days=days % 7)
    while due.astimezone(after.tzinfo) <= after:
        due += _PERIODS[subscription.every]
    return due.astimezone(after.tzinfo)
