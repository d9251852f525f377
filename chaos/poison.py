"""Poison: what others put on the bus that nobody can read, of every kind we could think of.

Each piece has a key of its own, which tells its dead letters from all others, and it is known who
must give it up: the groups that read its topic and would handle what it says it is.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, Final

from rapport.common.events.codec import Message, event_type
from rapport.common.events.envelope import CATALOGUE
from rapport.common.events.topics import DEAD_LETTERS, INBOUND, TOPICS
from rapport.common.handling import EventHandler, FactHandler
from rapport.common.runtime import Service
from rapport.standalone.system import SERVICES

KEY: Final = "poison-"

Headers = dict[str, str]
Spoil = Callable[[Headers, str], bytes | None]
"""Returns what is in place of an event's data; may spoil its headers, too. It gets the key."""


def broken_json(headers: Headers, key: str) -> bytes:
    """It ends in the midst."""
    return b'{"case_id": "' + key.encode()


def no_text(headers: Headers, key: str) -> bytes:
    """It is not UTF-8."""
    return b'{"case_id": "\xff\xfe"}'


def wrong_types(headers: Headers, key: str) -> bytes:
    """Every field is a number, whatever it should be."""
    return json.dumps(dict.fromkeys(_fields(headers), -1)).encode()


def nothing_but_nulls(headers: Headers, key: str) -> bytes:
    """Every field has no value."""
    return json.dumps(dict.fromkeys(_fields(headers))).encode()


def a_list(headers: Headers, key: str) -> bytes:
    """It is JSON, and no object."""
    return json.dumps([key]).encode()


def null(headers: Headers, key: str) -> bytes:
    """It is JSON's null."""
    return b"null"


def no_value(headers: Headers, key: str) -> None:
    """There is no value, as where Kafka deletes a key."""
    return None


def unknown_version(headers: Headers, key: str) -> bytes:
    """It is of a version of CloudEvents that there is not."""
    headers["ce_specversion"] = "7"
    return b"{}"


def no_headers(headers: Headers, key: str) -> bytes:
    """It does not say what it is."""
    headers.clear()
    return b"{}"


def no_time(headers: Headers, key: str) -> bytes:
    """It is of a time that is none."""
    headers["ce_time"] = "yesterday"
    return b"{}"


SPOILS: Final[Sequence[Spoil]] = (
    broken_json,
    no_text,
    wrong_types,
    nothing_but_nulls,
    a_list,
    null,
    no_value,
    unknown_version,
    no_headers,
    no_time,
)


def poison(random: Random, number: int) -> list[Message]:
    """Return so many pieces, each spoilt in some way, on any of the topics that somebody reads."""
    types = [*_types(), "com.example.complaint"]
    return [
        spoilt(random.choice(types), random.choice(SPOILS), f"{KEY}{random.getrandbits(64):016x}")
        for _ in range(number)
    ]


def spoilt(type: str, spoil: Spoil, key: str) -> Message:
    """Return an event of a type, spoilt in one way; of other systems where the type is not ours."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": key,
        "ce_source": "/somebody",
        "ce_type": type,
        "ce_subject": key,
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": "application/json",
    }
    topic = CATALOGUE[type].TOPIC if type in CATALOGUE else INBOUND
    assert topic is not None
    value = spoil(headers, key)
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(topic.name, key, value, packed)


def is_poison(key: str | None) -> bool:
    """Tell whether a record with this key is a piece of poison."""
    return key is not None and key.startswith(KEY)


def given_up_by(message: Message) -> set[str]:
    """Return the groups that must have a dead letter of a piece of poison.

    One that is among the dead letters is one already.
    """
    topic, type = TOPICS[message.topic], event_type(message.headers)
    if topic is DEAD_LETTERS:
        return set()
    readers = {name for name, service in SERVICES.items() if topic in service.consumes}
    if topic is INBOUND or type is None:
        return readers
    return {name for name in readers if type in _handled(SERVICES[name])}


@cache
def _types() -> Sequence[str]:
    """Return the types of event that have a topic which somebody reads them from."""
    return sorted(
        type
        for type, declared in CATALOGUE.items()
        if declared.TOPIC is not None
        and any(
            declared.TOPIC in service.consumes and type in _handled(service)
            for service in SERVICES.values()
        )
    )


def _handled(service: Service) -> set[str]:
    events: list[EventHandler[Any, Any]] = service.only(EventHandler)
    facts: list[FactHandler[Any]] = service.only(FactHandler)
    return {item.event.TYPE for item in events} | {
        declared.TYPE for item in facts for declared in item.events
    }


def _fields(headers: Headers) -> Sequence[str]:
    declared = CATALOGUE.get(headers["ce_type"])
    return ["data"] if declared is None else list(declared.model_fields)
