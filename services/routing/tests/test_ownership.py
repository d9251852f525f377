"""Whatever is done to a case, in whatever order: one owner, and clocks that tell the truth.

A machine does to a case what people and time can do to it, and compares it with the story that its
events tell.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rapport.common.aggregate import Cause
from rapport.common.errors import PermanentError
from rapport.common.events import Event, EventData, random_id
from rapport.common.events.cases import (
    CaseAccepted,
    CaseClosed,
    CaseHandoverDeclined,
    CaseHandoverExpired,
    CaseHandoverOffered,
    CaseOpened,
    CaseOwnerChanged,
    CaseReferralReturned,
    CaseReferred,
    CaseReopened,
    CaseResolved,
)
from rapport.common.events.clocks import (
    ClockBreached,
    ClockCancelled,
    ClockEvent,
    ClockMet,
    ClockStarted,
    ClockWarned,
)
from rapport.common.events.vocabulary import Channel
from rapport.common.testing import MORNING
from rapport.routing.domain.case import Case
from rapport.routing.domain.record import State
from rapport.routing.domain.teams import Loads
from rapport.routing.handlers.cases import Given, hear
from rapport.routing.service import load_assessor, load_policies

from .told import feedback, praise

POLICIES: Final = load_policies()
ASSESSOR: Final = load_assessor()
PEOPLE: Final = st.sampled_from(sorted(set(POLICIES.teams.people())))
HANDLERS: Final = PEOPLE | st.sampled_from(sorted(POLICIES.teams.teams))


class CaseMachine(RuleBasedStateMachine):
    """One case, what it told, and what follows from what it told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = MORNING
        self.case: Case | None = None
        self.told: list[Event[EventData]] = []
        self.messages = 0
        self.given = Given(ASSESSOR, POLICIES, Loads(), ())

    # What people and time do

    @initialize(complains=st.booleans(), channel=st.sampled_from(Channel))
    def first_message(self, complains: bool, channel: Channel) -> None:
        self._hear(complains, channel)

    @rule(complains=st.booleans(), channel=st.sampled_from(Channel))
    def further_message(self, complains: bool, channel: Channel) -> None:
        self._hear(complains, channel)

    @rule(minutes=st.integers(1, 15) | st.integers(60, 600) | st.just(10 * 24 * 60))
    def time_passes(self, minutes: int) -> None:
        until = self.now + timedelta(minutes=minutes)
        while (due := self._case.next_due) is not None and due <= until:
            self.now = due
            for item in sorted(self._case.due(), key=lambda item: item.at):
                if item.at <= self.now:
                    self._case.fall_due(item, POLICIES.teams.ladder(self._case.team))
                    self._save()
            assert self._case.next_due is None or self._case.next_due > self.now
        self.now = until

    @rule(by=st.none() | PEOPLE)
    def accept(self, by: str | None) -> None:
        self._try(lambda case: case.accept(by or case.owned()))

    @rule(owner=PEOPLE)
    def assign(self, owner: str) -> None:
        team = POLICIES.teams.team_of(owner, self._case.team)
        self._try(lambda case: case.assign(owner, team, "lin", ""))

    @rule(to=HANDLERS, hours=st.integers(-1, 100))
    def refer(self, to: str, hours: int) -> None:
        return_by = self.now + timedelta(hours=hours)
        self._try(lambda case: case.refer(to, "ana", "", self.now, return_by))

    @rule()
    def return_referral(self) -> None:
        self._try(lambda case: case.return_referral("done"))

    @rule(to=PEOPLE)
    def offer_handover(self, to: str) -> None:
        expires = self.now + timedelta(hours=4)
        self._try(lambda case: case.offer_handover(to, "", expires))

    @precondition(lambda self: self._case.handover is not None)
    @rule(by=st.none() | PEOPLE, accepts=st.booleans())
    def answer_handover(self, by: str | None, accepts: bool) -> None:
        assert self._case.handover is not None
        by = by or self._case.handover.to
        team = POLICIES.teams.team_of(by, self._case.team)
        if accepts:
            self._try(lambda case: case.accept_handover(by, team))
        else:
            self._try(lambda case: case.decline_handover(by, ""))

    @rule()
    def escalate(self) -> None:
        ladder = POLICIES.teams.ladder(self._case.team)
        self._try(lambda case: case.escalate(ladder, ""))

    @rule()
    def reply(self) -> None:
        self._try(lambda case: case.reply(random_id(), "ana", "email", "Sorry!", None, self.now))

    @precondition(lambda self: self._case.replies)
    @rule(outcome=st.sampled_from(["delivered", "failed", "suppressed"]), which=st.integers(0, 9))
    def reply_settles(
        self, outcome: Literal["delivered", "failed", "suppressed"], which: int
    ) -> None:
        reply = self._case.replies[which % len(self._case.replies)]
        self._case.settle_reply(reply.id, outcome, self.now)
        self._save()

    @rule()
    def resolve(self) -> None:
        self._try(lambda case: case.resolve("ana", "", self.now + timedelta(days=7)))

    @rule()
    def close(self) -> None:
        self._try(lambda case: case.close("ana", self.now))

    @rule()
    def reopen(self) -> None:
        self._try(lambda case: case.reopen("ana", ""))

    # What always holds

    @invariant()
    def a_case_in_work_has_the_one_owner_that_its_events_tell(self) -> None:
        owner = None
        for event in self.told:
            match event.data:
                case CaseOpened(owner=first):
                    assert owner is None
                    owner = first
                case CaseOwnerChanged(owner=new, previous=previous):
                    assert previous == owner
                    owner = new
        assert self._case.owner == owner
        assert (owner is None) == (self._case.state is State.NOTED)

    @invariant()
    def only_a_referral_makes_the_handler_another_than_the_owner(self) -> None:
        handler = None
        for event in self.told:
            match event.data:
                case CaseReferred(handler=to):
                    assert handler is None
                    handler = to
                case CaseReferralReturned(handler=from_):
                    assert handler == from_
                    handler = None
        assert self._case.handler == (handler or self._case.owner)
        assert handler is None or self._case.in_work

    @invariant()
    def an_offer_ends_with_a_new_owner_or_back_with_the_old_one(self) -> None:
        offered_to = None
        for event in self.told:
            match event.data:
                case CaseHandoverOffered(to=to):
                    assert offered_to is None
                    offered_to = to
                case CaseHandoverDeclined():
                    offered_to = None
                case CaseHandoverExpired(offered_to=to):
                    assert offered_to == to
                    offered_to = None
                case CaseOwnerChanged(owner=owner) if owner == offered_to:
                    offered_to = None
        assert offered_to == (self._case.handover and self._case.handover.to)
        assert offered_to is None or self._case.in_work

    @invariant()
    def its_state_is_what_its_events_tell(self) -> None:
        state = State.NOTED
        for event in self.told:
            match event.data:
                case CaseOpened() | CaseReopened():
                    state = State.OPEN
                case CaseAccepted():
                    state = State.ACCEPTED
                case CaseResolved():
                    state = State.RESOLVED
                case CaseClosed():
                    state = State.CLOSED
        in_work = (State.OPEN, State.ACCEPTED)
        assert self._case.state == state or (self._case.state in in_work and state in in_work)

    @invariant()
    def a_clock_warns_and_breaches_once_and_never_after_its_end(self) -> None:
        so_far: list[type[ClockEvent]] = []
        for event in self.told:
            match event.data:
                case ClockStarted():
                    assert not so_far or so_far[-1] in (ClockMet, ClockCancelled)
                    so_far = []
                case ClockWarned() | ClockBreached() | ClockMet() | ClockCancelled():
                    assert not {ClockMet, ClockCancelled, type(event.data)} & set(so_far)
                    so_far.append(type(event.data))
                    if isinstance(event.data, ClockMet):
                        assert event.data.breached == (event.data.met_at > event.data.due_at)
                    if isinstance(event.data, ClockBreached):
                        assert event.time == event.data.due_at

    @invariant()
    def versions_grow_and_nothing_happens_before_what_was_told(self) -> None:
        sequences = [event.sequence or "" for event in self.told]
        assert sequences == sorted(set(sequences))
        times = [event.time for event in self.told]
        assert times == sorted(times)

    @invariant()
    def it_is_the_same_after_it_was_stored(self) -> None:
        assert Case.model_validate_json(self._case.model_dump_json()) == self._case

    # How

    @property
    def _case(self) -> Case:
        assert self.case is not None
        return self.case

    def _hear(self, complains: bool, channel: Channel) -> None:
        self.messages += 1
        of_kind = feedback if complains else praise
        data = of_kind(feedback_id=f"f{self.messages}", channel=channel, occurred_at=self.now)
        event = Event(
            id=data.feedback_id,
            source="/test",
            type=data.TYPE,
            subject=data.feedback_id,
            time=self.now,
            data=data,
            partitionkey=data.case_id,
            correlationid="story",
        )
        self.case = hear(self.case, event, self.given)
        self._save()

    def _try(self, act: Callable[[Case], None]) -> None:
        """Do what the case may refuse; a refusal changes nothing that was stored."""
        before = self._case.model_copy(deep=True)
        try:
            act(self._case)
        except PermanentError:
            self.case = before
        else:
            self._save()

    def _save(self) -> None:
        cause = Cause(id=random_id(), time=self.now)
        self.told += [event for _, event in self._case.collect(cause, "routing")]
        self._case.version += 1


TestCase = CaseMachine.TestCase
TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
