"""Events as operators are shown them: CloudEvents' structured mode, without personal data.

A dead letter on its topic is told as what it is there: the event that somebody gave up a record.
What others wrote, and what cannot be read, has no fields that could be marked as personal, so only
its place and size are told, and the reason if there is one.
"""

from datetime import UTC, datetime
from typing import Any

from rapport.common.events.codec import Record, Undecodable, decode, event_type, structured
from rapport.common.events.dead_letters import told
from rapport.common.events.envelope import without_personal
from rapport.common.events.topics import DEAD_LETTERS, INBOUND


def shown(record: Record, *, personal: bool = False) -> dict[str, Any]:
    """Return a record's event, ready for JSON; with `personal`, everything that it holds.

    What another system published is an object with the one member `foreign`, whether or not intake
    can read it; what else is no event is one with the one member `unreadable`.
    """
    if record.topic == INBOUND.name:
        return {"foreign": _placed(record, personal=personal)}
    try:
        event = told(record) if record.topic == DEAD_LETTERS.name else decode(record)
    except Undecodable as problem:
        return {"unreadable": _placed(record, personal=personal) | {"reason": problem.reason}}
    whole = structured(event)
    return whole if personal else whole | {"data": without_personal(event.data)}


def published(record: Record) -> datetime:
    """Return when a record was published."""
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _placed(record: Record, *, personal: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "published": published(record).isoformat(),
        "type": event_type(record.headers),
        "bytes": len(record.value or b""),
    }
    if personal:
        found |= {
            "key": record.key,
            "headers": [[name, value.decode(errors="replace")] for name, value in record.headers],
            "value": None if record.value is None else record.value.decode(errors="replace"),
        }
    return found
