"""What cannot be handled is put aside with everything to try it again, and the line goes on."""

import json
from datetime import UTC, datetime
from typing import Final

from rapport.common.events.codec import Message
from rapport.common.events.topics import FEEDBACK

from .conftest import Installation

POISON: Final = "poisoned-message"
HEADERS: Final = {
    "ce_specversion": "1.0",
    "ce_id": POISON,
    "ce_source": "/rapport/intake",
    "ce_type": "rapport.feedback.received.v1",
    "ce_subject": POISON,
    "content-type": "application/json",
}


def message(key: str, value: bytes, **changed: str) -> Message:
    """Return a message with the headers of a feedback that was received."""
    headers = HEADERS | {"ce_time": datetime.now(UTC).isoformat()} | changed
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(FEEDBACK.name, key, value, packed)


async def test_poison_is_dead_lettered_and_what_comes_behind_it_is_handled(
    installation: Installation,
) -> None:
    rapport = installation.client
    first = {"kind": "question", "channel": "chat", "text": "When do you open?", "thread_ref": "t"}
    case = await rapport.case_of(await rapport.send({**first, "source_ref": "1"}))
    before = await rapport.metric("rapport_events_dead_lettered_total", service="routing")

    poison = {"feedback_id": POISON, "case_id": case["id"], "kind": "poem"}
    await installation.publish(message(case["id"], json.dumps(poison).encode()))
    await installation.publish(message(case["id"], b"\xff\x00 not JSON", ce_id="other"))
    await installation.publish(message(case["id"], b"{}", ce_specversion="7"))
    await rapport.send({**first, "source_ref": "2"})

    path = f"/routing/v1/cases/{case['id']}"
    await rapport.until(
        lambda: rapport.get(path), lambda case: case["message_count"] == 2, "the line has stopped"
    )
    await rapport.settled()
    after = await rapport.metric("rapport_events_dead_lettered_total", service="routing")
    assert after == before + 3
    status = await rapport.get(f"/intake/v1/feedback/{POISON}")
    assert (status["state"], status["case_id"]) == ("failed", case["id"])
