"""Messages that leave with the save that queues them: what there is room for, and nothing else."""

from typing import Any

import pytest

from rapport.common.events.notifications import NotificationAdmitted, NotificationRequested
from rapport.common.testing import Harness
from rapport.notification.domain.notifications import Notification
from rapport.notification.handlers.delivery import Opening

from .cast import mailed
from .servers import SmtpSink

ROOM = 2


def wish(number: int, **fields: Any) -> NotificationRequested:
    """Return one of several messages to different people."""
    given: dict[str, Any] = {
        "notification_id": f"n{number}",
        "communication_id": "told",
        "recipient": f"r{number}",
        "channel": "email",
        "address": f"r{number}@pr.example",
        "purpose": "alert",
        "language": "en",
        "subject": f"Number {number}",
        "text": "The kettle broke.",
    }
    return NotificationRequested(**(given | fields))


@pytest.fixture(autouse=True)
def room(notification: Harness) -> None:
    """Let there be room for two."""
    notification.running.engine.room = lambda kind: ROOM


@pytest.fixture
def scans(notification: Harness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the scan found to send, in the order in which it did."""
    found: list[str] = []
    due = notification.running.store.due

    async def noted(kind: Any, *arguments: Any, **named: Any) -> Any:
        items = await due(kind, *arguments, **named)
        found.extend(item.id for item in items if kind is Notification)
        return items

    monkeypatch.setattr(notification.running.store, "due", noted)
    return found


async def test_what_there_is_room_for_does_not_wait_for_the_scan(
    notification: Harness, sink: SmtpSink, scans: list[str]
) -> None:
    await notification.given(*(wish(number) for number in range(4)))
    assert sorted(address for address, _ in mailed(sink)) == [
        f"r{number}@pr.example" for number in range(4)
    ]
    assert sorted(set(scans)) == ["n2", "n3"]


async def test_what_is_admitted_leaves_at_once_as_well(
    notification: Harness, sink: SmtpSink, scans: list[str]
) -> None:
    await notification.given(wish(1, limited=True))
    assert notification.published(NotificationAdmitted).data.notification_id == "n1"
    assert len(mailed(sink)) == 1
    assert scans == []


async def test_one_that_comes_again_is_sent_once(notification: Harness, sink: SmtpSink) -> None:
    event = notification.event(wish(1))
    await notification.given(event, event)
    await notification.given(event)
    assert len(mailed(sink)) == 1


async def test_one_that_was_not_sent_after_all_is_sent_when_its_lease_is_over(
    notification: Harness, sink: SmtpSink, scans: list[str]
) -> None:
    notification.running.engine.begin = lambda then, aggregate: None  # the process died just then
    await notification.given(wish(1))
    assert mailed(sink) == []
    await notification.advance(minutes=10)
    assert scans == ["n1"]
    assert len(mailed(sink)) == 1


async def test_a_slow_receiver_waits_for_its_turn(notification: Harness) -> None:
    now = notification.clock.now()
    opening = Opening(now, frozenset(["n1", "n2"]), frozenset(["slow.example"]))
    for number, address, state in (
        (1, "https://slow.example/hook", "queued"),
        (2, "https://quick.example/hook", "leased"),
    ):
        asked = wish(number, channel="webhook", address=address)
        message = Notification.requested(asked, now)
        opening.take(message)
        assert message.state == state


async def test_what_waits_for_its_allowance_goes_on_waiting(notification: Harness) -> None:
    now = notification.clock.now()
    message = Notification.requested(wish(1, limited=True), now)
    Opening(now, frozenset(["n1"]), frozenset()).take(message)
    assert message.state == "waiting"
