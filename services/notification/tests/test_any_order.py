"""Messages when processes die: each is sent, none after it arrived, none more than is allowed.

A storm of cases, a reply and what notification tells itself are read in any batches and order of
keys, again and again; the process is killed at any operation, also before and after a message went
out. What is admitted arrives, what is held back is counted to the last one, and told once.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from rapport.common.events.cases import CaseReplyRequested
from rapport.common.events.feedback import Contact
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language, Severity
from rapport.common.policy import parse_policy
from rapport.common.runtime import Host
from rapport.common.testing_crashes import Partition, Survivor, happening
from rapport.notification.channels import Channels, Delivered, Outcome, Outgoing, Reason, Retry
from rapport.notification.domain.allowances import Allowance, Limits
from rapport.notification.domain.log import Interaction
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import Address, Stakeholder, Subscription
from rapport.notification.resources import Resources
from rapport.notification.service import SERVICE

from .cast import opened

MOST: Final = 3
CASES: Final = 70
"""More than an aggregate keeps sequences of: the allowance must know its answers by itself."""

LIMITS: Final = parse_policy(
    f"alerts: {{most: {MOST}, minutes: 60, always: {{severities: [critical]}}}}", Limits, "limits"
)
REPLY: Final = CaseReplyRequested(
    case_id="c0",
    reply_id="r1",
    by="ana",
    via="email",
    contact=Contact(person="cora", email="cora@home.example"),
    language=Language.EN,
    subject="Your kettle",
    text="A new one is on its way.",
)


class DeadlyMail:
    """A mail channel that the process may not survive, before or after a message went out."""

    name = "email"

    def __init__(self) -> None:
        self.mood: Outcome = Delivered("250")
        self.arrived: Counter[str] = Counter()
        self.too_late: list[str] = []
        self.sender: Survivor

    async def send(self, message: Outgoing) -> Outcome:
        """Answer in the mood of the moment."""
        await self.sender.moment()
        stored = await self.sender.running.store.get(Notification, message.notification_id)
        if stored is None or stored.state != "leased":
            self.too_late.append(message.notification_id)
        if isinstance(self.mood, Delivered):
            self.arrived[message.notification_id] += 1
        await self.sender.moment()
        return self.mood

    async def close(self) -> None:
        """Nothing is open."""


async def begin(mail: DeadlyMail) -> Survivor:
    """Return a process that knows a reader, who is to hear of more cases than is allowed."""

    def resources(host: Host) -> Resources:
        made: Resources = SERVICE.resources(host)
        return replace(made, channels=Channels(mail), limits=LIMITS)

    def pia(_: Stakeholder | None) -> Stakeholder:
        address = Address(channel="email", to="pia@pr.example")
        return Stakeholder(id="pia", recipient="pia", addresses=(address,))

    def cases(_: Subscription | None) -> Subscription:
        return Subscription(id="cases", to=("pia",), events=("case.opened",))

    notification = mail.sender = Survivor(replace(SERVICE, resources=resources))
    await notification.start()
    await notification.running.engine.change(Stakeholder, "pia", pia, cause="pia")
    await notification.running.engine.change(Subscription, "cases", cases, cause="cases")
    await notification.tell(
        *(happening(opened(f"c{number}"), f"case {number}") for number in range(CASES)),
        happening(opened("hurt", Severity.CRITICAL), "somebody was hurt"),
        happening(REPLY, "reply"),
    )
    return notification


class Deadly(RuleBasedStateMachine):
    """Readers go at any pace, go back, and die; within an hour that has no room for all."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.mail = DeadlyMail()
        self.notification = self.runner.run(begin(self.mail))

    @rule(own=st.booleans(), which=st.integers(0, 99), count=st.integers(1, 60))
    def read(self, own: bool, which: int, count: int) -> None:
        """Read what was told by others, or by the service itself."""
        reader = self.notification
        waiting = [name for name in self.partitions(own) if reader.unread(name)]
        for place in range(count if waiting and not own else 1):
            if waiting:
                partition = waiting[(which + place) % len(waiting)]
                self.runner.run(reader.read(partition, count))

    @rule(own=st.booleans(), which=st.integers(0, 99), by=st.sampled_from([1, 30, 300]))
    def go_back(self, own: bool, which: int, by: int) -> None:
        if partitions := self.partitions(own):
            self.notification.rewind(partitions[which % len(partitions)], by)

    def partitions(self, own: bool) -> list[Partition]:
        known = self.notification.partitions()
        return [name for name in known if (name[0] == NOTIFICATIONS.name) is own]

    @rule(moment=st.integers(1, 12))
    def die(self, moment: int) -> None:
        self.notification.die_at(moment)

    @rule(mood=st.sampled_from([Delivered("250"), Retry(Reason.TIMEOUT)]))
    def scan(self, mood: Outcome) -> None:
        self.mail.mood = mood
        self.runner.run(self.notification.scan())

    @rule(seconds=st.sampled_from([0, 5, 76]))
    def wait(self, seconds: int) -> None:
        """Leases end; the hour does not."""
        self.notification.clock.move(timedelta(seconds=seconds))

    def teardown(self) -> None:
        try:
            self.runner.run(self.finish())
        finally:
            self.runner.close()

    async def finish(self) -> None:
        self.mail.mood = Delivered("250")
        try:
            await self.notification.finish()
            await self.check(told=0)
            for partition in self.notification.partitions():
                self.notification.rewind(partition, 1_000)
            await self.notification.finish()
            await self.check(told=0)
            await self.notification.advance(days=4)
            await self.check(told=1)
        finally:
            await self.notification.stop()

    async def check(self, *, told: int) -> None:
        """`told`: how often the reader was told how many messages were held back."""
        messages = await self.notification.every(Notification)
        held = [item for item in messages if item.state == "suppressed"]
        others = [item for item in messages if item.state != "suppressed"]
        assert len(held) == CASES - MOST
        assert Counter(item.recipient for item in others) == {"pia": MOST + 1 + told, "cora": 1}
        [allowance] = await self.notification.every(Allowance)
        assert (allowance.admitted, allowance.held_back) == (MOST, CASES - MOST)
        assert allowance.waiting == (0 if told else CASES - MOST)
        if told:
            assert {item.state for item in others} == {"delivered"}
            assert self.mail.arrived.keys() == {item.id for item in others}
            logged = await self.notification.every(Interaction)
            assert {item.id for item in logged} == self.mail.arrived.keys()
            [summary] = [item for item in others if item.subject.startswith("Held back")]
            assert summary.subject == f"Held back: {CASES - MOST} more"
        assert self.mail.too_late == []
        self.notification.check_sequences()


TestDeadly = Deadly.TestCase
TestDeadly.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)
