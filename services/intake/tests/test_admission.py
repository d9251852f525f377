"""The event that a submission becomes is what any reader of the contract would accept."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rapport.common.events import decode, encode
from rapport.common.events.feedback import Contact, FeedbackReceived, Reach
from rapport.intake.domain import Sender, admit, read_submission

AT = datetime(2026, 3, 18, 9, 30, tzinfo=UTC)
SHOP = Sender("shop")

SHORT: dict[str, Any] = {"kind": "praise", "channel": "press", "text": "谢谢！"}
FULL: dict[str, Any] = {
    "kind": "complaint",
    "channel": "social",
    "source": "network",
    "source_ref": "m-1",
    "thread_ref": "c-1",
    "in_reply_to": "m-0",
    "contact": {
        "kind": "dealer",
        "name": "آنا",
        "email": "ana@example.org",
        "phone": "+98 21 1234",
        "handles": {"weibo": "@ana"},
        "url": "https://example.org/ana",
    },
    "language": "fa",
    "subject": "کتری",
    "text": "چکه می‌کند",
    "rating": {"value": 1, "minimum": 1, "maximum": 5},
    "product": "Kettle",
    "region": "north",
    "brand": "Kettleworks",
    "remedy_sought": "My money back",
    "reach": {"followers": 10, "reposts": 2, "views": 300},
    "public": False,
    "url": "https://example.org/post/1",
    "outlet": "Kitchen Weekly",
    "occurred_at": "2026-03-18T10:00:00+03:30",
    "attachments": [
        {"name": "leak.jpg", "media_type": "image/jpeg", "size": 9, "digest": "0a" * 32}
    ],
    "historical": True,
}


@pytest.mark.parametrize("document", [SHORT, FULL])
def test_the_event_reads_back_as_it_was(document: dict[str, Any]) -> None:
    event = admit(read_submission(document, AT), "f" * 26, SHOP, AT, "person")
    read = decode(encode(event))
    assert read.data.model_dump(mode="json") == event.data.model_dump(mode="json")
    assert (read.id, read.partitionkey, read.historical) == (
        event.id,
        event.partitionkey,
        event.historical,
    )
    assert set(vars(event.data)) == set(FeedbackReceived.model_fields)
    assert set(vars(event.data.contact)) == set(Contact.model_fields)


def test_what_was_sent_is_what_is_told() -> None:
    submission = read_submission(FULL, AT)
    event = admit(submission, "f" * 26, SHOP, AT, "person")
    told = event.data.model_dump(mode="json")
    sent = submission.model_dump(mode="json", exclude={"historical"})
    assert told | sent | {"contact": sent["contact"] | {"person": "person"}} == told
    assert event.historical
    assert (event.time, event.data.received_at) == (AT, AT)


def test_what_was_not_sent_is_found_or_left_out() -> None:
    event = admit(read_submission(SHORT, AT), "f" * 26, SHOP, AT)
    data = event.data
    assert (data.language, data.public, data.occurred_at) == ("zh", True, AT)
    assert (data.contact, data.rating) == (Contact(), None)
    assert data.reach.model_dump() == Reach().model_dump()
    assert event.partitionkey == event.id == data.case_id


def test_a_drill_derives_names_of_its_own() -> None:
    submission = read_submission(FULL, AT)
    real = admit(submission, "f" * 26, SHOP, AT)
    drill = admit(submission, "f" * 26, Sender("shop", "spring"), AT)
    assert real.data.case_id != drill.data.case_id
    assert (drill.exercise, drill.data.client) == ("spring", "shop")
