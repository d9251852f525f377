"""What is on record of a case: its state and its parts, and what it is found by.

The record is bounded: of messages, replies and notes it keeps the latest. Everything that ever
happened to a case is in its history, which is projected from its events.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, Field

from rapport.common.aggregate import Aggregate
from rapport.common.errors import Conflict
from rapport.common.events.cases import Subject
from rapport.common.events.envelope import Instant, Personal
from rapport.common.events.feedback import Contact
from rapport.common.events.topics import CASES, Topic
from rapport.common.events.vocabulary import ComplaintType, Severity
from rapport.routing.domain.clocks import Clock
from rapport.routing.domain.conversation import Conversation

Via = Literal["email", "elsewhere"]
Outcome = Literal["delivered", "failed", "suppressed"]


class State(StrEnum):
    """Where a case is in its life."""

    NOTED = "noted"
    """On record; nobody has to act."""
    OPEN = "open"
    """Its owner has not accepted it yet."""
    ACCEPTED = "accepted"
    """Its owner is at work on it."""
    RESOLVED = "resolved"
    """A solution was found and told."""
    CLOSED = "closed"
    """Nothing remains to be done."""


IN_WORK: Final = (State.OPEN, State.ACCEPTED)


class Reply(BaseModel):
    """An answer to the person, and what became of it.

    `answers` is when the clock started that ran as it was requested: the one that it can meet.
    """

    id: str
    by: str
    via: Via
    requested_at: Instant
    answers: Instant | None = None
    state: Literal["requested"] | Outcome = "requested"


class Note(BaseModel):
    """What somebody wrote for colleagues."""

    by: str
    at: Instant
    text: Annotated[str, Personal(of="contact")]


class Referral(BaseModel):
    """Others, a team or a person, handle the case for its owner until `return_by`."""

    handler: str
    by: str
    reason: Annotated[str, Personal(of="contact")]
    return_by: Instant


class Handover(BaseModel):
    """An offer of the case to somebody, who may accept it until `expires_at`."""

    to: str
    reason: Annotated[str, Personal(of="contact")]
    expires_at: Instant


class Record(Aggregate):
    """The fields of a case. `began_at` is when its first message came in.

    `escalation` is its level, `brought_in` who was told of it. A case that was stored before names
    were kept has the level only: people are told once more, rather than not at all.
    `crisis_contact` is the contact that its crisis was last told; `kept_out_of` names the crises
    that somebody took it out of.
    """

    COLLECTION: ClassVar[str] = "cases"
    TOPIC: ClassVar[Topic | None] = CASES
    ORDER: ClassVar[str] = "listed_at"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("state",),
        ("owner",),
        ("handler",),
        ("product",),
        ("brand",),
        ("region",),
        ("complaint_type",),
        ("severity",),
        ("crisis_id",),
        ("in_work", "owner"),
    )

    state: State = State.NOTED
    about: Subject
    conversation: Conversation
    began_at: Instant
    occurred_at: Instant
    opened_at: Instant | None = None
    closes_at: Instant | None = None
    was_reopened: bool = False

    owner: str | None = None
    team: str | None = None
    rule: str | None = None
    referral: Referral | None = None
    handover: Handover | None = None
    escalation: int = 0
    brought_in: list[str] = Field(default_factory=list)

    clock: Clock | None = None
    crisis_id: str | None = None
    crisis_contact: Annotated[Contact | None, Personal(of="contact")] = None
    kept_out_of: list[str] = Field(default_factory=list)
    replies: list[Reply] = Field(default_factory=list)
    notes: list[Note] = Field(default_factory=list)

    @property
    def listed_at(self) -> Instant:
        """Its place in lists: when it was opened or begun, and not before what it is about."""
        return max(self.opened_at or self.began_at, self.occurred_at)

    @property
    def in_work(self) -> bool:
        """Whether somebody has to act."""
        return self.state in IN_WORK

    @property
    def handler(self) -> str | None:
        """The team or person that acts now: where it was referred to, else its owner."""
        return self.owner if self.referral is None else self.referral.handler

    @property
    def product(self) -> str | None:
        """The product that it is about."""
        return self.about.product

    @property
    def brand(self) -> str | None:
        """The brand that it is about."""
        return self.about.brand

    @property
    def region(self) -> str | None:
        """The region that it is about."""
        return self.about.region

    @property
    def complaint_type(self) -> ComplaintType:
        """What is complained of."""
        return self.about.complaint_type

    @property
    def severity(self) -> Severity:
        """How much is at stake."""
        return self.about.severity

    def owned(self) -> str:
        """Return the owner; raise Conflict where there is none."""
        if self.owner is None:
            raise Conflict("nobody owns the case yet; a lead assigns it first")
        return self.owner

    def owned_in_work(self, done: str) -> str:
        """Return the owner of a case in work; raise Conflict where it cannot be `done` any more."""
        owner = self.owned()
        if not self.in_work:
            raise Conflict(f"a case that is {self.state} cannot be {done}")
        return owner
