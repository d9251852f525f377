"""The people of a crisis: who is linked to it, what they were sent, whom a stand-down would strand.

`Audience` is one per crisis: the statements in force and the stand-down requests that wait for an
answer. `Linked` is one per person and crisis, and follows the messages that carry statements to
them. Coverage is counted from the linked persons, so it can be asked at any moment (A1) and decides
a stand-down (A2).
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
from rapport.common.events.knowledge import StatementReleased
from rapport.common.events.notifications import NotificationEvent
from rapport.common.events.topics import COMMUNICATIONS, NOTIFICATIONS
from rapport.common.events.vocabulary import Language
from rapport.notification.domain.communications import Communication, Target

CASES_KEPT: Final = 50
MESSAGES_KEPT: Final = 20
"""So many cases of a person, and messages for each purpose, are kept."""

REVIEW_DELAY: Final = timedelta(seconds=1)
"""Lets cases that were just linking arrive before the coverage is counted."""

Progress = Literal["none", "queued", "failed", "opted_out", "delivered"]

_COMES_AFTER: Final = ("queued", "failed", "opted_out", "delivered").index
"""One message goes only this way."""

_COUNTS_MORE: Final = ("none", "failed", "opted_out", "queued", "delivered").index
"""Of several messages for one purpose the best counts."""


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
        """Add a statement; of those for one purpose the latest is in force. False if it is not."""
        added = Release(communication_id=communication_id, statement=statement, at=at)
        rivals = [item for item in self.releases if item.statement.purpose == statement.purpose]
        if any(_age(rival) >= _age(added) for rival in rivals):
            return False
        kept = (item for item in self.releases if item not in rivals)
        self.releases = (*kept, added)
        return True

    @property
    def in_force(self) -> Sequence[Release]:
        """What whoever joins is told: after the end nothing, unless a closing statement ends it."""
        has_closing = any(item.statement.purpose == "closing" for item in self.releases)
        return () if self.over and not has_closing else self.releases

    def has_silenced(self, communication: Communication) -> bool:
        """Tell whether a statement is told to nobody else: replaced, or without an end."""
        if self.over and not self.in_force:
            return True
        age = (communication.planned_at, communication.id)
        return any(
            item.statement.purpose == communication.statement_purpose and _age(item) > age
            for item in self.releases
        )

    def ask_for_review(self, request_id: str, at: datetime) -> bool:
        """Count the coverage in a moment, for a stand-down request; False where it was asked for.

        One that comes again is not answered again: it would be told something else.
        """
        if self.has_seen(request_id):
            return False
        self.remember(request_id)
        self.reviews = (*self.reviews, Review(request_id=request_id, due_at=at + REVIEW_DELAY))
        return True

    def review(self, request_id: str, coverage: Coverage) -> None:
        """Answer a stand-down request with the coverage."""
        self.reviews = tuple(item for item in self.reviews if item.request_id != request_id)
        self.emit(
            CommunicationReviewed(crisis_id=self.id, request_id=request_id, coverage=coverage),
            key=request_id,
        )


def _age(release: Release) -> tuple[datetime, str]:
    return release.at, release.communication_id


def linked_id(crisis_id: str, recipient: str) -> str:
    """Return the id of a person's link to a crisis."""
    return derived_id("linked", crisis_id, recipient)


class Told(Value):
    """A message that carries a statement to a person, and how far it has come."""

    notification_id: str
    communication_id: str
    purpose: str | None
    progress: Progress


class Linked(Aggregate):
    """A person whose case belongs to a crisis, and how far its statements have reached them.

    `address` is None where nothing can be sent to them; they are counted as unreachable. `declined`
    is whether they wanted no statements when they were linked.
    """

    COLLECTION = "linked"
    TOPIC = NOTIFICATIONS
    INDEXES: ClassVar = (
        (
            "crisis_id",
            "exercise",
            "linked",
            "reachable",
            "opted_out",
            "holding",
            "closing",
            "id",
        ),
        ("crisis_id", "exercise", "linked", "id"),
    )

    crisis_id: str
    recipient: str
    address: Annotated[str | None, Personal(of="contact")] = None
    language: Language
    case_ids: tuple[str, ...] = ()
    declined: bool = False
    told: tuple[Told, ...] = ()

    @property
    def linked(self) -> bool:
        """Whether any case of theirs still belongs to the crisis."""
        return bool(self.case_ids)

    @property
    def reachable(self) -> bool:
        """Whether there is an address."""
        return self.address is not None

    @property
    def opted_out(self) -> bool:
        """Whether they wanted no statements when something was last to be said to them."""
        return self.told[-1].progress == "opted_out" if self.told else self.declined

    @property
    def holding(self) -> Progress:
        """How far a holding statement has come."""
        return self._best("holding")

    @property
    def closing(self) -> Progress:
        """How far a closing statement has come."""
        return self._best("closing")

    @property
    def target(self) -> Target | None:
        """Where they are told; None where nothing is to be or can be sent."""
        if self.address is None or not self.case_ids:
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
            language=link.language,
        )

    def link(self, link: CaseCrisisLinked, releases: Iterable[Release], *, declined: bool) -> bool:
        """Add a case, or a new address, and send what is in force; False where both are known."""
        is_new = link.case_id not in self.case_ids
        if not is_new and link.contact.email in (None, self.address):
            return False
        if is_new:
            self.case_ids = (*self.case_ids, link.case_id)[-CASES_KEPT:]
        self.address = link.contact.email or self.address
        self.declined = declined
        target = self.target
        for release in releases:
            if target is not None and not self.was_told(release.communication_id):
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

    def was_told(self, communication_id: str) -> bool:
        """Tell whether a message of this communication is, or was, on its way to them."""
        return any(item.communication_id == communication_id for item in self.told)

    def note(self, event: NotificationEvent, progress: Progress) -> bool:
        """Keep how far a message has come; it never goes back. False where that is known."""
        place = [item.notification_id for item in self.told]
        told = Told(
            notification_id=event.notification_id,
            communication_id=event.communication_id,
            purpose=event.statement_purpose,
            progress=progress,
        )
        if event.notification_id not in place:
            same = [item for item in self.told if item.purpose == told.purpose]
            forgotten = same[: 1 - MESSAGES_KEPT]
            self.told = (*(item for item in self.told if item not in forgotten), told)
            return True
        at = place.index(event.notification_id)
        if _COMES_AFTER(progress) <= _COMES_AFTER(self.told[at].progress):
            return False
        self.told = (*self.told[:at], told, *self.told[at + 1 :])
        return True

    def _best(self, purpose: str) -> Progress:
        progress = [item.progress for item in self.told if item.purpose == purpose]
        return max(progress, key=_COUNTS_MORE, default="none")


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
