"""A notification's life, whatever outcomes come in whatever order: delivered always wins."""

from collections import Counter
from datetime import timedelta
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rapport.common.aggregate import Due
from rapport.common.events.ids import random_id
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
    NotificationSuppressed,
)
from rapport.common.events.vocabulary import Language
from rapport.common.testing import MORNING
from rapport.notification.channels import SCHEDULE, Delivered, Outcome, Reason, Refused, Retry
from rapport.notification.domain.notifications import OPTED_OUT, Notification
from rapport.notification.handlers import delivery

ENDED: Final = ("delivered", "failed", "suppressed")

outcomes = st.sampled_from(
    [
        Delivered("250"),
        Retry(Reason.TIMEOUT),
        Retry(Reason.THROTTLED, after=3600.0),
        Refused(Reason.REJECTED_RECIPIENT),
        Refused(Reason.GONE, disable=True),
        Refused(Reason.EXERCISE),
    ]
)


class Life(RuleBasedStateMachine):
    """Attempts begin when they are due; their outcomes come at any time, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now = MORNING
        self.under_way: list[int] = []
        self.attempts = 0
        self.was_delivered = False

    @initialize(suppressed=st.booleans())
    def ask(self, suppressed: bool) -> None:
        wish = NotificationRequested(
            notification_id=random_id(),
            communication_id="c",
            recipient="p",
            channel="email",
            purpose="alert",
            address="p@home.example",
            language=Language.EN,
            subject="Kettles",
            text="They break.",
        )
        self.message = Notification.requested(wish, self.now)
        if suppressed:
            self.message.suppress(OPTED_OUT, self.now)

    @rule(seconds=st.integers(0, 100_000))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: any(item.at <= self.now for item in self.message.due()))
    @rule()
    def attempt(self) -> None:
        [item] = self.message.due()
        decided: Notification | None = delivery.attempt(self.message, item, delivery.Turn(self.now))
        assert decided is self.message
        if self.message.state == "leased":
            self.under_way.append(self.message.attempts)
            assert item not in tuple(self.message.due())

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=outcomes, answered_twice=st.booleans())
    def answer(self, data: st.DataObject, outcome: Outcome, answered_twice: bool) -> None:
        attempt = data.draw(st.sampled_from(self.under_way))
        if not answered_twice:
            self.under_way.remove(attempt)
        delivery.record(self.message, outcome, attempt, self.now)
        self.was_delivered |= isinstance(outcome, Delivered)

    @invariant()
    def delivered_always_wins(self) -> None:
        assert (self.message.state == "delivered") is self.was_delivered

    @invariant()
    def it_ends_at_most_once_in_each_way(self) -> None:
        ends = Counter(type(event) for event in self.message.emitted)
        assert set(ends) <= {NotificationDelivered, NotificationFailed, NotificationSuppressed}
        assert all(count == 1 for count in ends.values())
        assert bool(ends) is (self.message.state in ENDED)

    @invariant()
    def attempts_only_grow_and_are_bounded(self) -> None:
        assert self.attempts <= self.message.attempts <= len(SCHEDULE)
        self.attempts = self.message.attempts

    @invariant()
    def it_is_due_until_it_has_ended(self) -> None:
        due: tuple[Due, ...] = tuple(self.message.due())
        assert bool(due) is (self.message.state not in ENDED)
        assert (self.message.finished_at is None) is bool(due)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40)


def test_a_message_whose_attempts_never_end_is_given_up() -> None:
    """Ten processes died while sending it: the next does not even begin."""
    life = Life()
    life.ask(suppressed=False)
    while tuple(life.message.due()):
        life.attempt()
        life.wait(76)
    assert (life.message.state, life.message.reason) == ("failed", "timeout")
    assert life.message.attempts == len(SCHEDULE)
