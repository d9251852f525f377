"""What people tell the company in these tests, and what becomes of answers to them."""

from datetime import datetime
from typing import Any

from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationFailed,
    NotificationSuppressed,
)
from rapport.common.events.vocabulary import Channel, Kind, Language
from rapport.common.testing import MORNING

RITA = Contact(person="rita", name="Rita", email="rita@example.com")

BROKEN = "The kettle I bought last week is broken: it leaks and I want my money back."
THANKS = "Thank you so much, the new kettle is wonderful!"


def feedback(**given: Any) -> FeedbackReceived:
    """Return a complaint about a kettle in conversation `c1`, except for what is given."""
    told = {
        "feedback_id": "f1",
        "reference": "R-1",
        "case_id": "c1",
        "client": "help-desk",
        "kind": Kind.COMPLAINT,
        "channel": Channel.WEB,
        "contact": RITA,
        "language": Language.EN,
        "text": BROKEN,
        "product": "kettle",
        "occurred_at": MORNING,
        "received_at": MORNING,
    }
    return FeedbackReceived(**(told | given))


def praise(**given: Any) -> FeedbackReceived:
    """Return praise for a kettle in conversation `c1`, except for what is given."""
    return feedback(**({"kind": Kind.PRAISE, "text": THANKS} | given))


def _of_a_reply(reply_id: str, case_id: str) -> dict[str, Any]:
    return {
        "notification_id": "n1",
        "communication_id": "m1",
        "recipient": "rita",
        "channel": "email",
        "purpose": "reply",
        "case_id": case_id,
        "reply_id": reply_id,
    }


def delivered(reply_id: str, at: datetime, case_id: str = "c1") -> NotificationDelivered:
    """Return that a reply reached the person."""
    return NotificationDelivered(
        **_of_a_reply(reply_id, case_id),
        delivered_at=at,
        attempts=1,
        receipt="250 OK",
        language=Language.EN,
    )


def failed(reply_id: str, case_id: str = "c1") -> NotificationFailed:
    """Return that a reply was given up."""
    return NotificationFailed(**_of_a_reply(reply_id, case_id), attempts=3, reason="refused")


def suppressed(reply_id: str, case_id: str = "c1") -> NotificationSuppressed:
    """Return that a reply was held back."""
    return NotificationSuppressed(**_of_a_reply(reply_id, case_id), reason="exercise")
