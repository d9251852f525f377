"""Cases end the same, whatever comes twice, in whatever order of keys, and whoever dies meanwhile.

Three conversations and a crisis go on over five topics. A process reads them partition by partition
in any batches, reads some again, is killed at any operation and starts again. In the end there are
the same cases as where everything went well, each with one owner, and each effect happened once.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rapport.common.events import Event
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import Coverage, CrisisLinkRequested
from rapport.common.events.envelope import EventData
from rapport.common.events.feedback import Reach
from rapport.common.events.ids import derived_id
from rapport.common.policy import parse_policy
from rapport.common.runtime import Host
from rapport.common.testing import MORNING
from rapport.common.testing_crashes import Survivor, happening
from rapport.routing.domain.case import Case
from rapport.routing.domain.crisis import Crisis
from rapport.routing.domain.history import CaseHistory
from rapport.routing.domain.record import State
from rapport.routing.domain.teams import Teams
from rapport.routing.repository import Resources
from rapport.routing.service import SERVICE, load_policies

from .test_crises import released, signal
from .told import delivered, failed, feedback, praise

KETTLES: Final = derived_id("crisis", "s1")
"""The crisis that the first signal proposes."""

POLICIES: Final = load_policies()

TEAMS: Final = """
duty: {owner: dana, manager: marta}
teams:
  quality: {lead: omid, members: {jun: {languages: [en]}}}
  support: {lead: lin, members: {ana: {languages: [en]}}}
  contracts: {lead: carol, members: {tom: {languages: [en]}}}
  safety: {lead: vera, members: {raj: {languages: [en]}}}
  press: {lead: paula, members: {max: {languages: [en]}}}
"""


def one_person_to_each_team(host: Host) -> Resources:
    """Then nobody's case depends on which of two came first."""
    resources: Resources = SERVICE.resources(host)
    policies = replace(POLICIES, teams=parse_policy(TEAMS, Teams, "teams").rules)
    return replace(resources, policies=policies)


def complaints() -> list[Event[EventData]]:
    """Return what people say after the crisis was declared."""
    heard = [
        feedback(feedback_id="f2", text="Still broken. It leaks!"),
        praise(feedback_id="f3"),
        praise(feedback_id="f4", case_id="c2"),
        feedback(feedback_id="f5", case_id="c2"),
        feedback(feedback_id="f5", case_id="c2", reach=Reach(views=900)),
        praise(feedback_id="f6", case_id="c2"),
        feedback(feedback_id="f7", case_id="c3", product="toaster"),
    ]
    return [happening(data, f"heard {place}") for place, data in enumerate(heard)]


def the_rest() -> list[Event[EventData]]:
    """Return what the other services tell meanwhile; it may come before what it is about."""
    told = [
        failed("r1"),
        delivered("r1", MORNING),
        *(CrisisLinkRequested(case_id=case, crisis_id=KETTLES) for case in ("c1", "c2")),
        signal("s2"),
        released(KETTLES),
        CommunicationReviewed(crisis_id=KETTLES, request_id="of another", coverage=Coverage()),
    ]
    return [happening(data, f"told {place}") for place, data in enumerate(told)]


async def begin() -> Survivor:
    """Return a process that knows a complaint, a reply to it, and a crisis that has begun."""
    routing = Survivor(replace(SERVICE, resources=one_person_to_each_team))
    await routing.start()
    await routing.tell(happening(feedback(), "first"), happening(signal("s1"), "signal"))
    await routing.finish()
    change = routing.running.engine.change
    await change(Case, "c1", answered, cause="a reply")
    await change(Crisis, KETTLES, declared, cause="a declaration")
    await routing.finish()
    await routing.tell(*complaints(), *the_rest())
    return routing


def answered(case: Case | None) -> Case:
    assert case is not None
    case.reply("r1", "jun", "email", "A new one is on its way.", None, MORNING)
    return case


def declared(crisis: Crisis | None) -> Crisis:
    assert crisis is not None
    clock = POLICIES.timing.start(
        "holding_statement",
        {"severity": crisis.severity},
        MORNING,
        of="crisis",
        aggregate_id=crisis.id,
    )
    crisis.declare("lea", MORNING, clock)
    return crisis


async def came_to(routing: Survivor) -> dict[str, Any]:
    """Return the cases, the crises, their histories and the effects, as it all ended."""
    history = Counter((item.case_id, item.type) for item in await routing.every(CaseHistory))
    effects = Counter((event.type, event.subject) for event in routing.published())
    return {
        "state": await routing.state(Case, Crisis),
        "history": history,
        "effects": effects,
    }


@cache
def without_trouble() -> dict[str, Any]:
    """Return what it comes to where each topic is read once, to its end."""

    async def told() -> dict[str, Any]:
        routing = await begin()
        try:
            await routing.finish()
            return await came_to(routing)
        finally:
            await routing.stop()

    return asyncio.run(told())


class AnyOrder(RuleBasedStateMachine):
    """Readers go at any pace, go back, and die."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.routing = self.runner.run(begin())

    @rule(which=st.integers(0, 99), count=st.integers(1, 4), commits=st.booleans())
    def read(self, which: int, count: int, commits: bool) -> None:
        waiting = [name for name in self.routing.partitions() if self.routing.unread(name)]
        if waiting:
            partition = waiting[which % len(waiting)]
            self.runner.run(self.routing.read(partition, count, commits=commits))

    @rule(which=st.integers(0, 99), by=st.integers(1, 6))
    def go_back(self, which: int, by: int) -> None:
        partitions = self.routing.partitions()
        self.routing.rewind(partitions[which % len(partitions)], by)

    @rule(moment=st.integers(1, 8))
    def die(self, moment: int) -> None:
        self.routing.die_at(moment)

    @rule()
    def scan(self) -> None:
        self.runner.run(self.routing.scan())

    @invariant()
    def a_case_in_work_has_one_owner(self) -> None:
        for case in self.runner.run(self.routing.every(Case)):
            assert (case.owner is None) is (case.state is State.NOTED)

    def teardown(self) -> None:
        expected = without_trouble()
        try:
            assert self.runner.run(self.finish()) == expected
        finally:
            self.runner.close()

    async def finish(self) -> dict[str, Any]:
        try:
            await self.routing.finish()
            self.routing.check_sequences()
            return await came_to(self.routing)
        finally:
            await self.routing.stop()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_without_trouble_the_story_is_what_it_should_be() -> None:
    """What the machine compares with is not empty."""
    end = without_trouble()
    cases = {id: item for id, item in end["state"].items() if id.startswith("Case")}
    assert sorted(cases) == ["Case c1", "Case c2", "Case c3"]
    assert [case["crisis_id"] for case in cases.values()] == [KETTLES, KETTLES, None]
    assert cases["Case c1"]["replies"][0]["state"] == "delivered"
    assert cases["Case c2"]["about"]["reach"] == 900
    assert end["effects"]["rapport.case.crisis_linked.v1", "c2"] == 1
    assert end["effects"]["rapport.crisis.proposed.v1", KETTLES] == 1
