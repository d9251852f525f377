"""The case: one conversation and the work on it, from its first message to its end.

A conversation is `noted` until somebody has to act. Then it is opened: it has an owner, and a clock
that runs until a reply has been delivered. It ends resolved and closed; what the person says after
that opens it again. Its crisis is a field of it: membership lives in the member.
"""

from collections.abc import Container, Iterator, Sequence
from datetime import datetime
from typing import Final, Self

from rapport.common.aggregate import Due
from rapport.common.errors import Conflict, FieldProblem, Invalid
from rapport.common.events.cases import (
    Because,
    CaseClosed,
    CaseCrisisLinked,
    CaseCrisisUnlinked,
    CaseFeedbackAdded,
    CaseNoteAdded,
    CaseNoted,
    CaseOpened,
    CaseReopened,
    CaseReplyRequested,
    CaseResolved,
    FeedbackClassified,
    Subject,
)
from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.vocabulary import OwnReason
from rapport.routing.domain.clocks import Clock
from rapport.routing.domain.conversation import Conversation, together
from rapport.routing.domain.ownership import Owned
from rapport.routing.domain.record import Note, Outcome, Reply, State, Via
from rapport.routing.domain.rules import Assignment

REPLIES_KEPT: Final = 50
NOTES_KEPT: Final = 100
KEPT_OUT_OF: Final = 20

SELF: Final = "rapport"
"""Who does what happens by itself."""


class Case(Owned):
    """See the module's docstring; `Record` has the fields, `Owned` what concerns the owner."""

    @classmethod
    def begin(cls, id: str, feedback: FeedbackReceived, about: Subject, at: datetime) -> Self:
        """Return the case of a conversation that begins with `feedback`, yet to be heard."""
        return cls(
            id=id,
            about=about,
            began_at=at,
            occurred_at=feedback.occurred_at,
            conversation=Conversation(contact=feedback.contact),
        )

    def hear(self, feedback: FeedbackReceived, about: Subject, because: dict[str, Because]) -> None:
        """Take a message in; while it is only noted, a case is about its latest message first."""
        self.conversation.hear(feedback)
        if self.state is State.NOTED:
            self.conversation.feature(feedback)
            self.occurred_at = feedback.occurred_at
            self.about = together(about, self.about)
        else:
            self.about = together(self.about, about)
        self.emit(
            FeedbackClassified(
                case_id=self.id,
                feedback_id=feedback.feedback_id,
                about=about,
                because=because,
                rating=None if feedback.rating is None else feedback.rating.share,
                occurred_at=feedback.occurred_at,
            )
        )

    def raise_reach(self, reach: int) -> bool:
        """Count that a known message has travelled further; tell whether that is news."""
        if reach <= self.about.reach:
            return False
        self.about = self.about.model_copy(update={"reach": reach})
        return True

    def put_on_record(self, feedback_id: str) -> None:
        """Say that the message just heard begins the case, or joins it."""
        if self.conversation.count == 1:
            self.emit(CaseNoted(case_id=self.id, feedback_id=feedback_id, about=self.about))
        else:
            self.emit(
                CaseFeedbackAdded(
                    case_id=self.id, feedback_id=feedback_id, about=self.about, owner=self.owner
                )
            )

    def open(self, assignment: Assignment, clock: Clock, at: datetime) -> None:
        """Give a case that was only noted an owner and a clock, because of its latest message."""
        if self.state is not State.NOTED:
            raise Conflict(f"the case is {self.state} already")
        self.state = State.OPEN
        self.historical = False
        self.opened_at = at
        self.owner, self.team, self.rule = assignment
        self.emit(
            CaseOpened(
                case_id=self.id,
                feedback_id=self.conversation.heard[-1],
                about=self.about,
                owner=assignment.owner,
                team=assignment.team,
                rule=assignment.rule,
                occurred_at=self.occurred_at,
                excerpt=self.conversation.excerpt,
            )
        )
        self.await_reply(clock)

    def await_reply(self, clock: Clock) -> None:
        """Start a clock, unless one is running that waits for the same answer and is in time.

        An overdue one has nothing left to warn of, and an answer that is on its way is to what was
        said before: such a clock is cancelled.
        """
        running = self._running
        if running is not None and not (running.is_breached or self._is_answered):
            return
        if running is not None:
            self.emit(running.cancel(clock.started_at, self.owner, OwnReason.FURTHER_MESSAGE))
        self.clock = clock
        self.emit(clock.started(self.owner))

    def reply(
        self, id: str, by: str, via: Via, text: str, subject: str | None, at: datetime
    ) -> None:
        """Answer the person; the clock is met once the answer has been delivered."""
        self.owned()
        contact = self.conversation.contact
        if via == "email" and contact.email is None:
            problem = FieldProblem("/via", "the person has given no e-mail address")
            raise Invalid("the request does not fit", [problem])
        answers = None if self._running is None else self._running.started_at
        reply = Reply(id=id, by=by, via=via, requested_at=at, answers=answers)
        self.replies = [*self.replies[1 - REPLIES_KEPT :], reply]
        self.emit(
            CaseReplyRequested(
                case_id=self.id,
                reply_id=id,
                by=by,
                via=via,
                contact=contact,
                language=self.about.language,
                subject=subject or f"Re: {self.conversation.title}",
                text=text,
                in_reply_to=self.conversation.in_reply_to,
            )
        )

    def settle_reply(self, id: str, outcome: Outcome, at: datetime) -> bool:
        """Keep what became of an answer; tell whether that is news. `delivered` always wins.

        An answer that reached the person meets the clock. In a drill nothing reaches anybody, so
        there one that was held back does.
        """
        reply = next((reply for reply in self.replies if reply.id == id), None)
        if reply is None or reply.state in ("delivered", outcome):
            return False
        reply.state = outcome
        if outcome == "delivered" or (outcome == "suppressed" and self.exercise is not None):
            self._meet_clock(reply, at)
        return True

    def add_note(self, by: str, text: str, at: datetime) -> None:
        """Keep a note for colleagues."""
        self.notes = [*self.notes[1 - NOTES_KEPT :], Note(by=by, at=at, text=text)]
        self.emit(CaseNoteAdded(case_id=self.id, by=by, text=text))

    def resolve(self, by: str, resolution: str, closes_at: datetime) -> None:
        """Say that a solution was found and told; the case closes by itself at `closes_at`."""
        self.owned_in_work("resolved")
        self.end_detours(by, OwnReason.RESOLVED)
        self.state = State.RESOLVED
        self.closes_at = closes_at
        self.emit(
            CaseResolved(
                case_id=self.id,
                by=by,
                resolution=resolution,
                about=self.about,
                opened_at=self.opened_at or self.began_at,
                first_contact=self.conversation.count == 1 and not self.was_reopened,
            )
        )

    def close(self, by: str, at: datetime) -> None:
        """End the case; a clock that runs is cancelled, unless an answer is on its way."""
        owner = self.owned()
        if self.state is State.CLOSED:
            raise Conflict("the case is closed already")
        self.end_detours(by, OwnReason.CLOSED)
        self.state = State.CLOSED
        self.closes_at = None
        self.emit(
            CaseClosed(
                case_id=self.id,
                by=by,
                about=self.about,
                owner=owner,
                opened_at=self.opened_at or self.began_at,
            )
        )
        if self._running is not None and not self._is_answered:
            self.emit(self._running.cancel(at, owner, OwnReason.CLOSED))

    def reopen(self, by: str, reason: str) -> None:
        """Take a resolved or closed case up again; its owner has yet to accept it.

        What brought others in is over: it climbs from the bottom.
        """
        owner = self.owned()
        if self.in_work:
            raise Conflict("the case is in work already")
        self.state = State.OPEN
        self.closes_at = None
        self.was_reopened = True
        self.escalation, self.brought_in = 0, []
        self.emit(
            CaseReopened(case_id=self.id, by=by, owner=owner, reason=reason, about=self.about)
        )

    def may_join(self, crisis_id: str, active: Container[str]) -> bool:
        """Tell whether the case belongs neither to this crisis nor to another `active` one.

        What nobody has had to act on joins none, and what somebody took out of one not that one.
        """
        return (
            self.owner is not None
            and self.crisis_id != crisis_id
            and self.crisis_id not in active
            and crisis_id not in self.kept_out_of
        )

    def link(self, crisis_id: str, active: Container[str]) -> bool:
        """Join a crisis if it may; tell whether it joined."""
        if not self.may_join(crisis_id, active):
            return False
        self.crisis_id = crisis_id
        self._tell_joined(crisis_id)
        return True

    def link_by_hand(self, crisis_id: str, exercise: str | None, active: Container[str]) -> bool:
        """Join a crisis that somebody chose, which must be of the same `exercise`, or as real.

        Where nobody chooses, the engine keeps drills and the real thing apart.
        """
        if exercise != self.exercise:
            case, crisis = _drill_in_words(self.exercise), _drill_in_words(exercise)
            raise Conflict(f"the case is {case}, the crisis is {crisis}: they do not meet")
        self.kept_out_of = [id for id in self.kept_out_of if id != crisis_id]
        return self.link(crisis_id, active)

    def unlink(self, crisis_id: str, by: str) -> bool:
        """Leave a crisis that the case belongs to by mistake, for good; tell whether it did."""
        if self.crisis_id != crisis_id:
            return False
        self.kept_out_of = [*self.kept_out_of[1 - KEPT_OUT_OF :], crisis_id]
        self._tell_left(crisis_id, by)
        self.crisis_id = self.crisis_contact = None
        return True

    def tell_contact(self) -> None:
        """Tell its crisis whom to reach and where, unless it knows."""
        told, contact = self.crisis_contact, self.conversation.contact
        if self.crisis_id is None or (told is not None and _recipient(told) == _recipient(contact)):
            return
        if told is not None and told.person != contact.person:
            self._tell_left(self.crisis_id, SELF)
        self._tell_joined(self.crisis_id)

    def due(self) -> Iterator[Due]:
        """Name the steps of its clock, a referral's and an offer's end, its closing by itself."""
        if self.clock is not None:
            yield from self.clock.due()
        if self.referral is not None:
            yield Due("referral", self.referral.return_by)
        if self.handover is not None:
            yield Due("handover", self.handover.expires_at)
        if self.closes_at is not None:
            yield Due("closure", self.closes_at)

    def fall_due(self, item: Due, ladder: Sequence[str]) -> None:
        """Do what there is to do now that `item` is due; the `ladder` tells whom to bring in."""
        if item.name == "referral":
            self.return_referral("", expired=True)
        elif item.name == "handover":
            self.expire_handover()
        elif item.name == "closure":
            self.close(SELF, item.at)
        elif self.clock is not None:
            self._pass_clock_step(self.clock, item, ladder)

    def _tell_joined(self, crisis_id: str) -> None:
        self.crisis_contact = self.conversation.contact
        self.emit(
            CaseCrisisLinked(
                case_id=self.id,
                crisis_id=crisis_id,
                contact=self.crisis_contact,
                language=self.about.language,
                about=self.about,
            )
        )

    def _tell_left(self, crisis_id: str, by: str) -> None:
        person = (self.crisis_contact or self.conversation.contact).person
        self.emit(CaseCrisisUnlinked(case_id=self.id, crisis_id=crisis_id, by=by, person=person))

    def _pass_clock_step(self, clock: Clock, item: Due, ladder: Sequence[str]) -> None:
        told = clock.step(item, self.owner)
        if told is not None:
            self.emit(told)
        if clock.is_breached:
            self.climb(ladder, OwnReason.OVERDUE)

    @property
    def _running(self) -> Clock | None:
        """Its clock, as long as that runs."""
        return self.clock if self.clock is not None and self.clock.is_running else None

    @property
    def _is_answered(self) -> bool:
        """Whether an answer is on its way that can meet the clock."""
        return self.clock is not None and any(
            reply.state == "requested" and reply.answers == self.clock.started_at
            for reply in self.replies
        )

    def _meet_clock(self, reply: Reply, at: datetime) -> None:
        clock = self._running
        if clock is not None and reply.answers == clock.started_at:
            self.emit(clock.meet(at, self.owner))


def _recipient(contact: Contact) -> tuple[str | None, str | None]:
    return contact.person, contact.email


def _drill_in_words(exercise: str | None) -> str:
    return "real" if exercise is None else f"of the drill {exercise!r}"
