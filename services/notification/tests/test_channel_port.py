"""What all channels share: the registry, the schedule, and drills that stay inside."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.notification.channels import (
    SCHEDULE,
    Channels,
    Delivered,
    Outgoing,
    Reason,
    Refused,
    next_attempt,
)
from rapport.notification.channels.stream import StreamChannel


def alert(**changes: str) -> Outgoing:
    return Outgoing(
        notification_id="n-1",
        kind="alert",
        to="everyone",
        language="en",
        time=datetime(2026, 11, 22, 9, tzinfo=UTC),
        subject="Overdue",
        text="Call Ana at once.",
        **changes,  # type: ignore[arg-type]
    )


async def test_a_message_goes_through_the_channel_of_its_name() -> None:
    channels = Channels(StreamChannel())
    assert await channels.send("stream", alert()) == Delivered("published")
    assert await channels.send("fax", alert()) == Refused(Reason.NO_SUCH_CHANNEL)
    await channels.close()


async def test_the_live_stream_is_open_to_drills() -> None:
    assert await StreamChannel().send(alert(exercise="drill-1")) == Delivered("published")


def test_a_message_does_not_show_what_it_says_or_to_whom() -> None:
    shown = repr(alert(in_reply_to="<reader@example.org>"))
    assert "n-1" in shown
    assert not any(word in shown for word in ("everyone", "Overdue", "Ana", "reader"))


def test_ten_attempts_are_spread_over_three_days() -> None:
    waits = [next_attempt(attempts) for attempts in range(11)]
    assert waits == [*SCHEDULE, None]
    assert sum(SCHEDULE) == pytest.approx(3 * 86_400, rel=0.06)


@given(st.integers(0, 12), st.one_of(st.none(), st.floats(0, allow_infinity=True)))
def test_a_receivers_wish_can_only_lengthen_a_wait(attempts: int, wish: float | None) -> None:
    planned, wished = next_attempt(attempts), next_attempt(attempts, wish)
    if planned is None or wished is None:
        assert planned is wished
    else:
        assert planned <= wished <= SCHEDULE[-1]
