"""Topic rapport.dlq: records that a group could not handle, as they were, with where and why.

A dead letter keeps its own headers, so its type is the original event's. Those who want to know
*that* something was dead-lettered read it as the event below, which `told` makes from the added
headers.
"""

from datetime import UTC, datetime
from typing import Final

from rapport.common.events.codec import Headers, Record, event_type
from rapport.common.events.envelope import Event, EventData, event
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import DEAD_LETTERS

PREFIX: Final = "kafka_dlt-"
REDRIVE: Final = "ce_redrive"


@event("rapport.event.dead_lettered.v1", DEAD_LETTERS)
class EventDeadLettered(EventData):
    """A consumer group gave up on a record; where the record was and why, without its content."""

    group: str
    topic: str
    partition: int
    offset: int
    event_type: str | None
    event_id: str | None
    subject: str | None
    partitionkey: str | None
    cause: str
    reason: str


def told(record: Record) -> Event[EventDeadLettered]:
    """Return the event that a dead letter's headers tell of; an offset that they do not is -1."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    data = EventDeadLettered(
        group=headers.get(f"{PREFIX}original-consumer-group", ""),
        topic=headers.get(f"{PREFIX}original-topic", ""),
        partition=_number(headers.get(f"{PREFIX}original-partition")),
        offset=_number(headers.get(f"{PREFIX}original-offset")),
        event_type=event_type(record.headers),
        event_id=headers.get("ce_id"),
        subject=headers.get("ce_subject"),
        partitionkey=record.key,
        cause=headers.get(f"{PREFIX}exception-fqcn", ""),
        reason=headers.get(f"{PREFIX}exception-message", ""),
    )
    id = derived_id(record.topic, str(record.partition), str(record.offset))
    return Event(
        id=id,
        source="/rapport/pipeline",
        type=data.TYPE,
        subject=data.subject or id,
        time=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        data=data,
        partitionkey=record.key or id,
        correlationid=headers.get("ce_correlationid", id),
        causationid=headers.get("ce_id"),
        exercise=headers.get("ce_exercise"),
    )


def redriven_for(headers: Headers) -> str | None:
    """Return the group that a record goes back to from the dead letters, None for all others."""
    for name, value in headers:
        if name == REDRIVE:
            return value.decode(errors="replace")
    return None


def _number(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        return -1
