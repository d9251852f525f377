"""A crisis in any order of events: nobody is told twice, nobody left out, and the figures agree.

People are linked and unlinked, opt out, cannot be reached; statements are released and replaced;
deliveries fail and are tried again; every event may come again; a stand-down is asked for at any
time. After each step everyone is to have been told exactly what they should.
"""

import asyncio
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rapport.common.events.cases import CaseCrisisUnlinked
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import Coverage, CrisisStandDownRequested, CrisisStoodDown
from rapport.common.events.envelope import Event, sequence
from rapport.common.events.knowledge import Purpose
from rapport.common.people import person_id
from rapport.common.runtime import Host
from rapport.common.testing import Harness, harness
from rapport.notification import repository
from rapport.notification.channels import (
    Channels,
    Delivered,
    Outcome,
    Outgoing,
    Reason,
    Refused,
    Retry,
)
from rapport.notification.domain.notifications import Notification
from rapport.notification.resources import Resources
from rapport.notification.service import SERVICE

from .cast import KEY, declared, linked, released

PEOPLE: Final = ("ada", "ben", "cora")
PURPOSES: Final[tuple[Purpose, ...]] = ("holding", "closing")

MOODS: Final[tuple[Outcome, ...]] = (
    Delivered("250"),
    Retry(Reason.TIMEOUT),
    Refused(Reason.REJECTED_RECIPIENT),
)


class FickleMail:
    """A mail channel that answers as it is told to."""

    name = "email"

    def __init__(self) -> None:
        self.mood: Outcome = Delivered("250")
        self.delivered: Counter[str] = Counter()

    async def send(self, message: Outgoing) -> Outcome:
        """Answer in the mood of the moment."""
        if isinstance(self.mood, Delivered):
            self.delivered[message.notification_id] += 1
        return self.mood

    async def close(self) -> None:
        """Nothing is open."""


class CrisisStory(RuleBasedStateMachine):
    """The events of a crisis, and beside them what everyone should have been told."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.mail = FickleMail()
        self.numbers = count(1)
        self.told: list[Event[Any]] = []
        self.cases: dict[str, str] = {}  # case -> person, of those who are linked
        self.reachable: set[str] = set()
        self.in_force: dict[Purpose, str] = {}  # purpose -> statement
        self.expected: defaultdict[str, set[str]] = defaultdict(set)  # person -> statements
        self.opted_out: set[str] = set()
        self.declined: dict[str, bool] = {}
        self.over = False

    @initialize()
    def declare(self) -> None:
        async def begin() -> Harness:
            return await self.stack.enter_async_context(harness(service, person_key=KEY))

        def resources(host: Host) -> Resources:
            opened: Resources = SERVICE.resources(host)
            return replace(opened, channels=Channels(self.mail))

        service = replace(SERVICE, resources=resources)
        self.service = self.runner.run(begin())
        self.tell(declared(), "k1")
        self.release("holding")

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def tell(self, data: Any, subject: str) -> None:
        event = self.service.event(data, subject=subject, sequence=sequence(next(self.numbers), 0))
        self.told.append(event)
        self.runner.run(self.service.given(event))

    # What happens

    @rule(
        person=st.sampled_from(PEOPLE),
        number=st.integers(1, 2),
        has_address=st.sampled_from([True, True, False]),
    )
    def link(self, person: str, number: int, has_address: bool) -> None:
        """A case joins; where nothing can be sent, the person's id comes from elsewhere."""
        id = f"{person}-{number}"
        is_known = id in self.cases and (not has_address or person in self.reachable)
        self.cases[id] = person
        if has_address:
            self.reachable.add(person)
        if not is_known:
            self.declined[person] = person in self.opted_out
        if person in self.reachable and not is_known:
            self.expected[person] |= self.said()
        told = linked(id, _address(person))
        if not has_address:
            told = told.model_copy(
                update={"contact": told.contact.model_copy(update={"email": None})}
            )
        self.tell(told, id)

    def said(self) -> set[str]:
        if self.over and "closing" not in self.in_force:
            return set()
        return set(self.in_force.values())

    @precondition(lambda self: self.cases)
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        case = data.draw(st.sampled_from(sorted(self.cases)))
        person = self.cases.pop(case)
        self.tell(
            CaseCrisisUnlinked(case_id=case, crisis_id="k1", by="ana", person=_id(person)), case
        )

    @precondition(lambda self: not self.over)
    @rule(purpose=st.sampled_from(PURPOSES))
    def release(self, purpose: Purpose) -> None:
        self.runner.run(self.service.advance(seconds=1))
        id = f"s{next(self.numbers)}"
        self.in_force[purpose] = id
        for person in self.reachable & set(self.cases.values()):
            self.expected[person].add(id)
        self.tell(released(purpose).model_copy(update={"statement_id": id, "hash": id}), id)

    @rule(person=st.sampled_from(PEOPLE), out=st.booleans())
    def prefer(self, person: str, out: bool) -> None:
        (self.opted_out.add if out else self.opted_out.discard)(person)
        wish = {"opted_out": ["statement"] if out else []}
        path = f"/notification/v1/preferences/{_id(person)}"
        answer = self.runner.run(self.service.call("PUT", path, json=wish))
        assert answer.status_code == 200

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def come_again(self, data: st.DataObject) -> None:
        """What was consumed before a restart comes once more."""
        event = data.draw(st.sampled_from(self.told))
        self.runner.run(self.service.given(event))

    @rule(minutes=st.sampled_from([6, 40]), mood=st.sampled_from(MOODS))
    def wait(self, minutes: int, mood: Outcome) -> None:
        self.mail.mood = mood
        self.runner.run(self.service.advance(minutes=minutes))

    @rule(is_meant=st.sampled_from([False, False, True]))
    def stand_down(self, is_meant: bool) -> None:
        """Ask how far the statements have reached; end the crisis where nobody is left behind."""
        id = f"r{next(self.numbers)}"
        self.tell(CrisisStandDownRequested(crisis_id="k1", request_id=id, by="lea"), "k1")
        self.runner.run(self.service.advance(seconds=2))
        answer = self.service.all(CommunicationReviewed)[-1].data
        assert answer.request_id == id
        assert answer.coverage == self.coverage()
        if is_meant and not answer.coverage.without_closing and not self.over:
            self.over = True
            self.tell(CrisisStoodDown(crisis_id="k1", by="lea", coverage=answer.coverage), "k1")

    # What holds

    def messages(self) -> list[Notification]:
        found = self.service.running.store.find(Notification, {"crisis_id": "k1"}, limit=200)
        return list(self.runner.run(found).items)

    @invariant()
    def everyone_has_what_was_in_force_while_they_belonged_and_nothing_else(self) -> None:
        had = Counter((item.recipient, item.statement_id) for item in self.messages())
        should = Counter(
            (_id(person), statement) for person, told in self.expected.items() for statement in told
        )
        assert had == should

    @invariant()
    def nothing_is_sent_twice(self) -> None:
        done = {item.id for item in self.messages() if item.state == "delivered"}
        assert self.mail.delivered == Counter(dict.fromkeys(done, 1))

    @invariant()
    def what_was_asked_once_is_answered_once(self) -> None:
        answered = [event.data.request_id for event in self.service.all(CommunicationReviewed)]
        assert len(answered) == len(set(answered))

    @invariant()
    def the_coverage_is_what_the_messages_say(self) -> None:
        store = self.service.running.store
        assert self.runner.run(repository.coverage(store, "k1", None)) == self.coverage()

    def coverage(self) -> Coverage:
        """Count the people by hand."""
        messages = self.messages()
        counted: Counter[str] = Counter()
        for person in set(self.cases.values()):
            mine = [item for item in messages if item.recipient == _id(person)]
            counted["linked"] += 1
            holding = {item.state for item in mine if item.statement_purpose == "holding"}
            has_closing = any(item.statement_purpose == "closing" for item in mine)
            if self.has_declined(person, mine):
                counted["opted_out"] += 1
                continue
            if person not in self.reachable:
                counted["unreachable"] += 1
            elif "delivered" in holding:
                counted["delivered"] += 1
            else:
                counted["missing"] += 1
            counted["without_closing"] += bool(
                holding & {"queued", "leased", "delivered"} and not has_closing
            )
        return Coverage(**counted)

    def has_declined(self, person: str, mine: list[Notification]) -> bool:
        """What the last that was to be said to them came to, else their wish as they came."""
        if not mine:
            return self.declined[person]
        age = {statement: int(statement[1:]) for statement in self.expected[person]}
        latest = max(mine, key=lambda item: (item.requested_at, age[item.statement_id or ""]))
        return latest.state == "suppressed"


def _address(person: str) -> str:
    return f"{person}@home.example"


def _id(person: str) -> str:
    found = person_id(KEY.encode(), email=_address(person))
    assert found is not None
    return found


TestCrisisStory = CrisisStory.TestCase
TestCrisisStory.settings = settings(max_examples=20, stateful_step_count=25)
