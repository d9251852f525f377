"""The public contract: every event that Rapport writes, and how it travels.

Importing this package fills the catalogue.
"""

from rapport.common.events import (
    analytics,
    cases,
    clocks,
    communications,
    crises,
    dead_letters,
    feedback,
    interactions,
    knowledge,
    notifications,
)
from rapport.common.events.codec import Message, Record, Undecodable, decode, encode, structured
from rapport.common.events.envelope import (
    CATALOGUE,
    Event,
    EventData,
    Instant,
    Personal,
    Value,
    event,
    without_personal,
)
from rapport.common.events.ids import derived_id, random_id
from rapport.common.events.topics import TOPICS, Topic

__all__ = [
    "CATALOGUE",
    "TOPICS",
    "Event",
    "EventData",
    "Instant",
    "Message",
    "Personal",
    "Record",
    "Topic",
    "Undecodable",
    "Value",
    "analytics",
    "cases",
    "clocks",
    "communications",
    "crises",
    "dead_letters",
    "decode",
    "derived_id",
    "encode",
    "event",
    "feedback",
    "interactions",
    "knowledge",
    "notifications",
    "random_id",
    "structured",
    "without_personal",
]
