"""Counting: whether the right people got a statement, once, and exactly what was approved.

Who should have it is read from the APIs (the cases of the crisis, the members of its groups); who
has it, from the receivers outside. The hash is worked out anew from the bytes that arrived.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from rapport.standalone.demo.receivers import Arrival
from rapport.standalone.demo.world import Json, World


class Address(NamedTuple):
    """Where somebody is reached."""

    channel: str
    to: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must be so, in words, and whether it is."""

    is_true: bool
    what: str


async def count(statement: Json, world: World) -> list[Finding]:
    """Compare who should have got a released statement with who has, and what they read."""
    linked = await _linked(statement["crisis_id"], world)
    members = await _members(statement["groups"], world)
    expected = {**linked, **members}
    sent = await _sent(statement, world)
    ids = {item["id"] for item in sent}
    arrived = [item for item in world.outside.arrived if item.id in ids]
    got = Counter(address_of(item) for item in arrived)
    missing, uncalled = expected.keys() - got.keys(), got.keys() - expected.keys()
    return [
        Finding(
            not missing and not uncalled and set(got.values()) == {1},
            f"{len(linked)} people of the crisis, {len(members)} addresses of its groups, "
            f"{len(linked.keys() & members.keys())} of them both: {len(expected)} messages, "
            f"each arrived once{_exceptions(missing, uncalled, got)}",
        ),
        Finding(
            all(item["state"] == "delivered" for item in sent) and len(sent) == len(arrived),
            f"the record says the same: {len(sent)} notifications delivered",
        ),
        Finding(
            all(_is_as_approved(item, expected, statement) for item in arrived),
            "each in its reader's language, byte for byte as approved",
        ),
        Finding(
            all(item["statement_hash"] == statement["hash"] for item in sent)
            and hash_of(arrived, statement) == statement["hash"],
            f"SHA-256 of what arrived is what was approved: {statement['hash'][:16]}…",
        ),
    ]


def address_of(arrival: Arrival) -> Address:
    """Return where a message arrived."""
    return Address(arrival.channel, arrival.to.lower())


def hash_of(arrived: Iterable[Arrival], statement: Json) -> str:
    """Return the hash of a statement's messages in all languages, as knowledge defines it.

    SHA-256 of the JSON of `{language: {"subject": ..., "text": ...}}`, sorted and without spaces.
    A language that nobody got is taken from the record.
    """
    wordings = {
        language: {"subject": wording["subject"], "text": wording["text"]}
        for language, wording in statement["wordings"].items()
    }
    for item in arrived:
        wordings[item.language] = {"subject": item.subject, "text": item.text}
    canonical = json.dumps(wordings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(canonical.encode()).hexdigest()


def duplicates(arrived: Sequence[Arrival]) -> int:
    """Return how many messages came again, at the same address under the same id."""
    return len(arrived) - len({(item.id, address_of(item)) for item in arrived})


async def _linked(crisis_id: str, world: World) -> dict[Address, str]:
    """Return the language of everybody whose case belongs to the crisis, by e-mail address."""
    found = {}
    async for item in world.list("/routing/v1/cases", crisis_id=crisis_id):
        case = await world.see(f"/routing/v1/cases/{item['id']}")
        if email := case["contact"]["email"]:
            found[Address("email", email.lower())] = case["about"]["language"]
    return found


async def _members(groups: Sequence[str], world: World) -> dict[Address, str]:
    """Return the language of every member of the groups, by each of their addresses."""
    found = {}
    async for member in world.list("/notification/v1/stakeholders"):
        if set(groups).isdisjoint(member["groups"]):
            continue
        for address in member["addresses"]:
            found[_as_seen_outside(address, member)] = member["language"]
    return found


def _as_seen_outside(address: Json, member: Json) -> Address:
    match address["channel"]:
        case "webhook":
            return Address("webhook", "/" + address["to"].rpartition("/")[2].lower())
        case "stream":
            return Address("stream", member["recipient"])
        case channel:
            return Address(channel, address["to"].lower())


async def _sent(statement: Json, world: World) -> list[Json]:
    """Return the notifications that carry a statement."""
    found = []
    communications = "/notification/v1/communications"
    async for item in world.list(communications, crisis_id=statement["crisis_id"]):
        if item["statement_id"] == statement["id"]:
            notifications = "/notification/v1/notifications"
            found += [one async for one in world.list(notifications, communication_id=item["id"])]
    return found


def _is_as_approved(arrival: Arrival, expected: dict[Address, str], statement: Json) -> bool:
    wording = statement["wordings"].get(arrival.language)
    return (
        expected.get(address_of(arrival)) == arrival.language
        and wording is not None
        and (arrival.subject, arrival.text) == (wording["subject"], wording["text"])
        and arrival.right_to_left == (arrival.channel == "email" and arrival.language == "fa")
    )


def _exceptions(
    missing: Iterable[Address], uncalled: Iterable[Address], got: Counter[Address]
) -> str:
    twice = [address for address, times in got.items() if times > 1]
    told = {"missing": missing, "not called for": uncalled, "more than once": twice}
    parts = [f"{what}: {', '.join(a.to for a in found)}" for what, found in told.items() if found]
    return f" ({'; '.join(parts)})" if parts else ""
