"""The people of a crisis: who is linked to it, what they were sent, whom a stand-down would strand.

`Audience` is one per crisis: the statements released for it and the stand-down requests that wait
for an answer. `Linked` is one per person and crisis. Coverage is counted from the linked persons,
so it can be asked at any moment (A1) and decides a stand-down (A2).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from rapport.common.aggregate import Aggregate, Due
from rapport.common.events.cases import CaseCrisisLinked
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import Coverage
from rapport.common.events.envelope import Instant, Personal, Value
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Purpose, StatementReleased
from rapport.common.events.notifications import NotificationEvent
from rapport.common.events.topics import COMMUNICATIONS, NOTIFICATIONS
from rapport.common.events.vocabulary import Language
from rapport.notification.domain.communications import Communication, Target

CASES_KEPT: Final = 50
REVIEW_DELAY: Final = timedelta(seconds=1)
"""Lets cases that were just linking arrive before the coverage is counted."""

Progress = Literal["none", "queued", "delivered", "failed"]


class Release(Value):
    """A statement that was released for a crisis, and the communication that carries it."""

    communication_id: str
    statement: StatementReleased
    at: Instant


class Review(Value):
    """A stand-down request that waits for the coverage."""

    request_id: str
    due_at: Instant


class Audience(Aggregate):
    """What a crisis's people are to be told; the id is the crisis's."""

    COLLECTION = "audiences"
    TOPIC = COMMUNICATIONS

    releases: tuple[Release, ...] = ()
    reviews: tuple[Review, ...] = ()
    over: bool = False

    def due(self) -> Iterable[Due]:
        """A review of the coverage."""
        for review in self.reviews:
            yield Due(f"review:{review.request_id}", review.due_at)

    def release(self, communication_id: str, statement: StatementReleased, at: datetime) -> bool:
        """Add a statement, which takes the place of an earlier one for the same purpose."""
        if any(release.communication_id == communication_id for release in self.releases):
            return False
        kept = (item for item in self.releases if item.statement.purpose != statement.purpose)
        release = Release(communication_id=communication_id, statement=statement, at=at)
        self.releases = (*kept, release)
        return True

    def ask_for_review(self, request_id: str, at: datetime) -> None:
        """Count the coverage in a moment, for a stand-down request."""
        self.reviews = (*self.reviews, Review(request_id=request_id, due_at=at + REVIEW_DELAY))

    def review(self, request_id: str, coverage: Coverage) -> None:
        """Answer a stand-down request with the coverage."""
        self.reviews = tuple(item for item in self.reviews if item.request_id != request_id)
        self.emit(
            CommunicationReviewed(crisis_id=self.id, request_id=request_id, coverage=coverage),
            key=request_id,
        )


def linked_id(crisis_id: str, recipient: str) -> str:
    """Return the id of a person's link to a crisis."""
    return derived_id("linked", crisis_id, recipient)


class Linked(Aggregate):
    """A person whose case belongs to a crisis, and how far its statements have reached them.

    `address` is None where nothing can be sent to them; they are counted as unreachable.
    """

    COLLECTION = "linked"
    TOPIC = NOTIFICATIONS
    INDEXES: ClassVar = (
        ("crisis_id", "linked", "reachable", "opted_out", "holding", "closing", "id"),
        ("crisis_id", "id"),
    )

    crisis_id: str
    recipient: str
    address: Annotated[str | None, Personal(of="contact")] = None
    language: Language
    case_ids: tuple[str, ...] = ()
    unlinked: tuple[str, ...] = ()
    opted_out: bool = False
    holding: Progress = "none"
    closing: Progress = "none"
    communications: tuple[str, ...] = ()

    @property
    def linked(self) -> bool:
        """Whether any case of theirs still belongs to the crisis."""
        return bool(self.case_ids)

    @property
    def reachable(self) -> bool:
        """Whether there is an address."""
        return self.address is not None

    @property
    def target(self) -> Target | None:
        """Where they are told."""
        if self.address is None:
            return None
        return Target(
            self.recipient, "email", self.address, self.language, case_id=self.case_ids[-1]
        )

    @classmethod
    def first(cls, link: CaseCrisisLinked, recipient: str) -> "Linked":
        """A person is linked for the first time."""
        return cls(
            id=linked_id(link.crisis_id, recipient),
            crisis_id=link.crisis_id,
            recipient=recipient,
            address=link.contact.email,
            language=link.language,
        )

    def link(self, link: CaseCrisisLinked, releases: Sequence[Release]) -> bool:
        """Add a case and send what has been said so far; False where the case is known."""
        if link.case_id in self.case_ids:
            return False
        self.case_ids = (*self.case_ids, link.case_id)[-CASES_KEPT:]
        self.address = link.contact.email or self.address
        target = self.target
        for release in releases:
            if target is not None and release.communication_id not in self.communications:
                carried = Communication.of_statement(
                    release.communication_id, release.statement, release.at
                )
                self.emit(carried.wish(target), key=release.communication_id)
        return True

    def unlink(self, case_id: str) -> bool:
        """Take a case away; False where it was not there."""
        if case_id not in self.case_ids:
            return False
        self.case_ids = tuple(item for item in self.case_ids if item != case_id)
        return True

    def note(self, event: NotificationEvent, progress: Progress) -> bool:
        """Keep how far a statement has come; it never goes back. False where that is known."""
        rank = ("none", "failed", "queued", "delivered").index
        purpose: Purpose | str | None = event.statement_purpose
        before = self.holding if purpose == "holding" else self.closing
        is_new = event.communication_id not in self.communications
        if is_new:
            self.communications = (*self.communications, event.communication_id)
        if purpose not in ("holding", "closing"):
            return is_new
        if rank(progress) <= rank(before) and not (progress == "failed" and before == "queued"):
            return is_new
        if purpose == "holding":
            self.holding = progress
        else:
            self.closing = progress
        return True


COVERAGE_FIELDS: Final = ("reachable", "opted_out", "holding", "closing")


def coverage_of(tallies: Iterable[tuple[tuple[Any, ...], int]]) -> Coverage:
    """Count the coverage from linked persons: their `COVERAGE_FIELDS`, and how many there are.

    Whoever opted out or cannot be reached is missing nothing.
    """
    linked = delivered = opted_out = unreachable = missing = without_closing = 0
    for (reachable, out, holding, closing), count in tallies:
        linked += count
        if out:
            opted_out += count
        elif not reachable:
            unreachable += count
        elif holding == "delivered":
            delivered += count
        else:
            missing += count
        if not out and holding in ("queued", "delivered") and closing == "none":
            without_closing += count
    return Coverage(
        linked=linked,
        delivered=delivered,
        opted_out=opted_out,
        unreachable=unreachable,
        missing=missing,
        without_closing=without_closing,
    )
