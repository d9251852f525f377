"""Everything outgoing is a communication: to one person, to subscribers, or to all of a crisis.

A communication with few recipients, known by name, asks for their notifications as it is made. One
for many, or for everyone linked to a crisis, goes through them page by page: each page is a
scheduled step that asks for at most a hundred notifications and moves a cursor. A crisis statement
then stays open: it looks again every few minutes for anybody whom the pages missed, until the
crisis is over or a later statement takes its place.
"""

from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field

from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.communications import (
    CommunicationCompleted,
    CommunicationPlanned,
    CommunicationPurpose,
)
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.knowledge import Purpose, StatementReleased, Wording
from rapport.common.events.notifications import NotificationChannel, NotificationRequested
from rapport.common.events.topics import COMMUNICATIONS
from rapport.common.events.vocabulary import Language
from rapport.notification.domain.notifications import notification_id
from rapport.notification.domain.stakeholders import Stakeholder

PAGE: Final = 100
SWEEP: Final = timedelta(minutes=5)

Stage = Literal["groups", "linked", "open", "done"]


class Target(NamedTuple):
    """One recipient through one channel."""

    recipient: str
    channel: NotificationChannel
    address: str
    language: Language
    stakeholder: str | None = None
    case_id: str | None = None


class Communication(Aggregate):
    """Something that is said to one or many, in up to three languages.

    It goes to the members of `groups` and to the stakeholders that are `named`; a statement of a
    crisis goes to everyone linked to it as well. `limited`: it counts for what a recipient gets at
    most.
    """

    COLLECTION = "communications"
    TOPIC = COMMUNICATIONS
    INDEXES: ClassVar = (
        ("purpose", "planned_at"),
        ("crisis_id", "planned_at"),
        ("planned_at",),
    )
    ORDER = "planned_at"

    purpose: CommunicationPurpose
    wordings: Annotated[dict[Language, Wording], Personal(of="recipient")]
    data: Annotated[dict[str, Any], Personal(of="recipient")] = Field(default_factory=dict)
    groups: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    crisis_id: str | None = None
    case_id: str | None = None
    reply_id: str | None = None
    in_reply_to: str | None = None
    statement_id: str | None = None
    statement_purpose: Purpose | None = None
    statement_hash: str | None = None
    limited: bool = False
    planned_at: Instant
    stage: Stage = "done"
    cursor: str | None = None
    step_at: Instant | None = None
    requested: int = 0

    @classmethod
    def of_statement(cls, id: str, released: StatementReleased, at: datetime) -> "Communication":
        """Plan a released statement: to its groups, then to everyone linked to its crisis."""
        communication = cls(
            id=id,
            purpose="statement",
            wordings=released.wordings,
            groups=released.groups,
            crisis_id=released.crisis_id,
            statement_id=released.statement_id,
            statement_purpose=released.purpose,
            statement_hash=released.hash,
            planned_at=at,
            stage="groups",
            step_at=at,
        )
        return communication.planned()

    def planned(self) -> "Communication":
        """Say that this communication has begun."""
        self.emit(
            CommunicationPlanned(
                communication_id=self.id,
                purpose=self.purpose,
                crisis_id=self.crisis_id,
                case_id=self.case_id,
                statement_id=self.statement_id,
                groups=self.groups,
                statement_hash=self.statement_hash,
            )
        )
        return self

    def due(self) -> Iterable[Due]:
        """The next page, or the next look for somebody new."""
        if self.stage != "done" and self.step_at is not None:
            yield Due(f"{self.stage}:{self.cursor or ''}", self.step_at)

    def request(self, targets: Iterable[Target]) -> None:
        """Ask for a notification to each target."""
        for wish in self.wishes(targets):
            self.emit(wish, key=wish.notification_id)
            self.requested += 1

    def wishes(self, targets: Iterable[Target]) -> Iterable[NotificationRequested]:
        """Return the notifications to ask for: a person is told once through each channel."""
        wishes = (self.wish(target) for target in targets)
        return {wish.notification_id: wish for wish in wishes}.values()

    def wish(self, target: Target) -> NotificationRequested:
        """Return the notification that a target shall get: its language, else English, else any."""
        language, wording = self.wording(target.language)
        return NotificationRequested(
            notification_id=notification_id(self.id, target.recipient, target.channel),
            communication_id=self.id,
            recipient=target.recipient,
            channel=target.channel,
            purpose=self.purpose,
            crisis_id=self.crisis_id,
            case_id=target.case_id or self.case_id,
            reply_id=self.reply_id,
            statement_id=self.statement_id,
            statement_purpose=self.statement_purpose,
            statement_hash=self.statement_hash,
            address=target.address,
            language=language,
            subject=wording.subject,
            text=wording.text,
            data=self.data,
            in_reply_to=self.in_reply_to,
            stakeholder=target.stakeholder,
            limited=self.limited,
        )

    def wording(self, language: Language) -> tuple[Language, Wording]:
        """Return the wording in `language`, else in English, else in any, with its language."""
        for choice in (language, Language.EN):
            if choice in self.wordings:
                return choice, self.wordings[choice]
        return next(iter(self.wordings.items()))

    def turn_page(self, cursor: str | None, at: datetime, *, is_last: bool) -> None:
        """Go on after a page: with the next one, the next stage, a pause, or the end.

        `is_last`: nobody joins any more, so these are the last pages of those linked to a crisis.
        """
        self.cursor, self.step_at = cursor, at
        if cursor is not None:
            return
        if self.stage == "groups" and self.purpose == "statement" and self.crisis_id is not None:
            self.stage = "linked"
        elif self.stage == "groups" or is_last:
            self._complete()
        else:
            self.stage, self.step_at = "open", at + SWEEP

    def _complete(self) -> None:
        self.stage, self.step_at = "done", None
        self.emit(
            CommunicationCompleted(
                communication_id=self.id,
                purpose=self.purpose,
                crisis_id=self.crisis_id,
                case_id=self.case_id,
                statement_id=self.statement_id,
                requested=self.requested,
            )
        )


def targets_of(stakeholder: Stakeholder) -> Iterable[Target]:
    """Return every way in which a stakeholder is told."""
    for address in stakeholder.addresses:
        yield Target(
            stakeholder.recipient or stakeholder.id,
            address.channel,
            address.to,
            stakeholder.language,
            stakeholder.id,
        )


def members(
    stakeholders: Iterable[Stakeholder], groups: Iterable[str], named: Container[str] = ()
) -> Iterable[Stakeholder]:
    """Return the active stakeholders that belong to any of `groups` or are `named`."""
    wanted = frozenset(groups)
    return (
        item
        for item in stakeholders
        if item.active and (item.id in named or not wanted.isdisjoint(item.groups))
    )


def page_of(
    stakeholders: Iterable[Stakeholder], cursor: str | None
) -> tuple[list[Target], str | None]:
    """Return the next page of ways to tell `stakeholders`, and the cursor of the one after."""
    waiting = sorted(
        (one for one in stakeholders if one.id > (cursor or "")), key=lambda one: one.id
    )
    chosen: list[Target] = []
    last = None
    for one in waiting:
        targets = list(targets_of(one))
        if len(chosen) + len(targets) > PAGE:
            return chosen, last
        chosen += targets
        last = one.id
    return chosen, None
