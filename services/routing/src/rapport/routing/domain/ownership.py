"""Who owns a case and who handles it: exactly one owner at every instant while it is in work.

The owner keeps a case to its end. A referral lets others handle it for a time and comes back, done
or expired; a handover changes nothing until the person it is offered to accepts; an escalation
brings a lead in. Only an accepted handover, or a lead's assignment, makes somebody else the owner.
"""

from collections.abc import Sequence
from datetime import datetime

from rapport.common.errors import Conflict, FieldProblem, Forbidden, Invalid
from rapport.common.events.cases import (
    CaseAccepted,
    CaseEscalated,
    CaseHandoverAccepted,
    CaseHandoverDeclined,
    CaseHandoverExpired,
    CaseHandoverOffered,
    CaseOwnerChanged,
    CaseReferralReturned,
    CaseReferred,
)
from rapport.common.events.vocabulary import OwnReason
from rapport.routing.domain.record import Handover, Record, Referral, State
from rapport.routing.domain.teams import Teams


class Owned(Record):
    """A case as far as its owner and handler are concerned."""

    def is_in_hands_of(self, person: str, teams: Teams) -> bool:
        """Tell whether `person` owns the case or handles it, by name or in the team that does."""
        if person in (self.owner, self.handler):
            return True
        return self.referral is not None and teams.includes(self.referral.handler, person)

    def accept(self, by: str) -> None:
        """Let the owner take the case on; again changes nothing."""
        if by != self.owned_in_work("accepted"):
            raise Forbidden("only the owner accepts a case; a lead assigns it first")
        if self.state is not State.ACCEPTED:
            self.state = State.ACCEPTED
            self.emit(CaseAccepted(case_id=self.id, by=by))

    def assign(self, owner: str, team: str, by: str, reason: str) -> None:
        """Make `owner` own the case, who has yet to accept it; an offer of it ends."""
        if owner == self.owned_in_work("assigned"):
            raise Conflict("that is its owner already")
        if self.handover is not None:
            self._end_handover(by, OwnReason.ASSIGNED)
        self.state = State.OPEN
        self._change_owner(owner, team, reason)

    def refer(self, to: str, by: str, reason: str, at: datetime, return_by: datetime) -> None:
        """Let a team or a person handle the case until `return_by`; the owner stays the owner."""
        owner = self.owned_in_work("referred")
        if self.referral is not None:
            raise Conflict("the case is referred already; nobody is passed around")
        _refuse("/to", "owns the case", when=to == owner)
        _refuse("/return_by", "is in the past", when=return_by <= at)
        self.referral = Referral(handler=to, by=by, reason=reason, return_by=return_by)
        self.emit(
            CaseReferred(
                case_id=self.id,
                owner=owner,
                handler=to,
                by=by,
                reason=reason,
                return_by=return_by,
            )
        )

    def return_referral(self, outcome: str, *, expired: bool = False) -> None:
        """Bring the case back to its owner."""
        if self.referral is None:
            raise Conflict("the case is not referred")
        handler, self.referral = self.referral.handler, None
        self.emit(
            CaseReferralReturned(
                case_id=self.id,
                owner=self.owned(),
                handler=handler,
                outcome=outcome,
                expired=expired,
            )
        )

    def offer_handover(self, to: str, reason: str, expires_at: datetime) -> None:
        """Offer the case to `to`; until they accept, nothing changes."""
        owner = self.owned_in_work("handed over")
        if self.handover is not None:
            raise Conflict("the case is offered to somebody already")
        _refuse("/to", "owns the case", when=to == owner)
        self.handover = Handover(to=to, reason=reason, expires_at=expires_at)
        self.emit(
            CaseHandoverOffered(
                case_id=self.id, owner=owner, to=to, reason=reason, expires_at=expires_at
            )
        )

    def accept_handover(self, by: str, team: str) -> None:
        """Make the offered person, who is in `team`, the owner, at work on it."""
        offer = self._offered_to(by)
        self.handover = None
        self.state = State.ACCEPTED
        self.emit(CaseHandoverAccepted(case_id=self.id, owner=by, previous=self.owned()))
        self._change_owner(by, team, offer.reason)

    def decline_handover(self, by: str, reason: str) -> None:
        """Let the offered person say no."""
        self._offered_to(by)
        self._end_handover(by, reason)

    def expire_handover(self) -> None:
        """Bring an offer that nobody answered back to the owner."""
        if self.handover is None:
            raise Conflict("the case is not offered to anybody")
        offered_to, self.handover = self.handover.to, None
        self.emit(
            CaseHandoverExpired(case_id=self.id, returned_to=self.owned(), offered_to=offered_to)
        )

    def escalate(self, ladder: Sequence[str], reason: str) -> None:
        """Bring in the next on the ladder; the owner stays the owner."""
        self.owned_in_work("escalated")
        if not self.climb(ladder, reason):
            raise Conflict("there is nobody left to escalate to")

    def climb(self, ladder: Sequence[str], reason: str) -> bool:
        """Bring in the first on the ladder who does not know yet; tell whether there was one."""
        owner = self.owned()
        to = next((name for name in ladder if name not in (owner, *self.brought_in)), None)
        if to is None:
            return False
        self.brought_in = [*self.brought_in, to]
        self.escalation += 1
        self.emit(
            CaseEscalated(
                case_id=self.id,
                owner=owner,
                to=to,
                level=self.escalation,
                reason=reason,
                about=self.about,
            )
        )
        return True

    def end_detours(self, by: str, reason: str) -> None:
        """Bring a referral back and withdraw an offer, because the case itself has moved on."""
        if self.referral is not None:
            self.return_referral(reason)
        if self.handover is not None:
            self._end_handover(by, reason)

    def _offered_to(self, person: str) -> Handover:
        if self.handover is None:
            raise Conflict("the case is not offered to anybody")
        if self.handover.to != person:
            raise Forbidden("the case is offered to somebody else")
        return self.handover

    def _end_handover(self, by: str, reason: str) -> None:
        self.handover = None
        self.emit(
            CaseHandoverDeclined(case_id=self.id, owner=self.owned(), declined_by=by, reason=reason)
        )

    def _change_owner(self, owner: str, team: str, reason: str) -> None:
        previous = self.owned()
        self.owner, self.team = owner, team
        self.emit(
            CaseOwnerChanged(
                case_id=self.id, owner=owner, previous=previous, team=team, reason=reason
            )
        )


def _refuse(pointer: str, reason: str, *, when: bool) -> None:
    if when:
        raise Invalid("the request does not fit", [FieldProblem(pointer, reason)])
