"""How much somebody hears: a limit of alerts per recipient and channel, and what is over it.

A storm of complaints must not become a storm of messages (A10). Each recipient has one allowance
for each channel, and it alone decides: a wish that counts is let through while there were fewer
than the limit in the time before it, else it is held back. As soon as there is room again one
message says how many were held back; its place is kept for it, so it never makes one too many.
A wish that comes again was answered before.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Wording
from rapport.common.events.notifications import (
    NotificationAdmitted,
    NotificationChannel,
    NotificationEvent,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language, Severity
from rapport.notification.domain.communications import Communication, Target
from rapport.notification.domain.matters import EVENTS, Matter, name_of
from rapport.notification.domain.notifications import OPTED_OUT, OVER_LIMIT

ANSWERS_KEPT: Final = 1_000
"""Twice of what a batch has: so many wishes are known again when they are delivered again."""

APART: Final = timedelta(hours=1)
"""So far clocks may be apart; one that was further ahead of the present was wrong."""

Answer = Literal["admitted", "over_limit", "opted_out"]


class Always(BaseModel):
    """Alerts that are neither held back nor counted, beside those about a crisis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severities: tuple[Severity, ...] = ()
    events: tuple[str, ...] = ()

    @field_validator("events")
    @classmethod
    def _known(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(events) - EVENTS)
        if unknown:
            raise ValueError(f"nobody is told of {', '.join(unknown)}")
        return events


class Limit(BaseModel):
    """At most `most` alerts through one channel in any `minutes`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: Annotated[int, Field(ge=1, le=1_000)]
    minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]
    always: Always = Always()

    @property
    def within(self) -> timedelta:
        """How long a message counts."""
        return timedelta(minutes=self.minutes)

    def counts(self, matter: Matter) -> bool:
        """Tell whether an alert of this matter counts, and may be held back.

        Nothing about a crisis does, whatever the policy says.
        """
        return (
            matter.crisis_id is None
            and matter.severity not in self.always.severities
            and matter.event not in self.always.events
        )


class Limits(BaseModel):
    """How much a recipient gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alerts: Limit


def allowance_id(recipient: str, channel: str, exercise: str | None) -> str:
    """Return the id of a recipient's allowance for a channel; a drill has allowances of its own."""
    return derived_id("allowance", recipient, channel, exercise or "")


class Allowance(Aggregate):
    """What one recipient has got through one channel of late, and what is held back since when.

    `times` are of the messages that still count, `answers` those given last, `untold` counts what
    is held back by event until it is told. `admitted` and `held_back` count all there ever were.
    """

    COLLECTION = "allowances"
    TOPIC = NOTIFICATIONS
    INDEXES: ClassVar = (("recipient", "id"),)

    recipient: str
    channel: NotificationChannel
    address: Annotated[str, Personal(of="recipient")] = ""
    language: Language = Language.EN
    stakeholder: str | None = None
    times: tuple[Instant, ...] = ()
    answers: dict[str, Answer] = Field(default_factory=dict)
    untold: dict[str, int] = Field(default_factory=dict)
    untold_since: Instant | None = None
    summary_at: Instant | None = None
    admitted: int = 0
    held_back: int = 0

    @classmethod
    def of(cls, wish: NotificationRequested, exercise: str | None) -> "Allowance":
        """Return the allowance that a wish counts for, as nothing has come yet."""
        id = allowance_id(wish.recipient, wish.channel, exercise)
        return cls(id=id, recipient=wish.recipient, channel=wish.channel)

    def due(self) -> Iterable[Due]:
        """The message that says what was held back."""
        if self.summary_at is not None:
            yield Due("summary", self.summary_at)

    @property
    def waiting(self) -> int:
        """How many were held back that the recipient has not been told of."""
        return sum(self.untold.values())

    def ask(
        self,
        wish: NotificationRequested,
        limit: Limit,
        now: datetime,
        *,
        policy: str,
        opted_out: bool = False,
    ) -> None:
        """Let a message through or say that it is not sent; whoever was answered is not again.

        What its recipient does not want counts for nothing. `policy` is the limit's hash.
        """
        if wish.notification_id in self.answers:
            return
        self.correlation = ""  # it is part of no story: what follows carries its cause's
        answer = OPTED_OUT if opted_out else self._decide(wish, limit, now)
        self.answers[wish.notification_id] = answer
        if len(self.answers) > ANSWERS_KEPT:
            del self.answers[next(iter(self.answers))]
        told = {name: getattr(wish, name) for name in NotificationEvent.model_fields}
        if answer == "admitted":
            self.emit(NotificationAdmitted(**told), key=wish.notification_id)
        else:
            by = policy if answer == OVER_LIMIT else None
            self.emit(
                NotificationSuppressed(**told, reason=answer, policy=by), key=wish.notification_id
            )

    def tell(self, limit: Limit, wording: Wording, now: datetime) -> None:
        """Say what was held back, or wait on where a new policy leaves no room yet."""
        now = self._forget(limit, now)
        if len(self.times) >= limit.most:
            self.summary_at = self._room_at(limit)
            return
        made = Communication(
            id=derived_id("held back", self.id, self._since().isoformat()),
            purpose="alert",
            wordings={self.language: wording},
            data={"event": "notification.suppressed", "held_back": self.untold},
            planned_at=now,
        )
        target = Target(self.recipient, self.channel, self.address, self.language, self.stakeholder)
        for wish in made.wishes([target]):
            self.emit(wish, key=wish.notification_id)
        self.times = (*self.times, now)
        self.untold, self.untold_since, self.summary_at = {}, None, None

    def _decide(self, wish: NotificationRequested, limit: Limit, now: datetime) -> Answer:
        now = self._forget(limit, now)
        kept_for_the_summary = 1 if self.untold else 0
        if len(self.times) < limit.most - kept_for_the_summary:
            self.times = (*self.times, now)
            self.admitted += 1
            return "admitted"
        self.address, self.language = wish.address, wish.language
        self.stakeholder = wish.stakeholder
        event = name_of(str(wish.data.get("event", "")))
        self.untold = self.untold | {event: self.untold.get(event, 0) + 1}
        self.untold_since = self.untold_since or now
        self.summary_at = self.summary_at or self._room_at(limit)
        self.held_back += 1
        return OVER_LIMIT

    def _forget(self, limit: Limit, now: datetime) -> datetime:
        """Let go of messages that count no more; return the time, not before the last of them.

        So a clock that is a little behind makes no room.
        """
        self._set_right(limit, now)
        now = max([now, *self.times[-1:]])
        self.times = tuple(at for at in self.times if at > now - limit.within)
        return now

    def _set_right(self, limit: Limit, now: datetime) -> None:
        """Let what a clock far ahead has timed count from now on, not from a time to come."""
        if not self.times or self.times[-1] <= now + APART:
            return
        self.times = tuple(min(at, now) for at in self.times)
        if self.untold_since is not None and self.summary_at is not None:
            self.untold_since = min(self.untold_since, now)
            self.summary_at = min(self.summary_at, now + limit.within)

    def _room_at(self, limit: Limit) -> datetime:
        """Return when one more message has room."""
        return self.times[-limit.most] + limit.within

    def _since(self) -> datetime:
        assert self.untold_since is not None
        return self.untold_since
