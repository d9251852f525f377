"""The promises that a run is held to: each is a function that returns what breaks it, with ids.

They look at what the system has left behind and at what people were promised, never at how the
system works. DESIGN's invariants, one by one; `docs/reliability.md` names the promise of each.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final

from chaos.evidence import Evidence, Stored, Told, left
from rapport.common.events.topics import INTERACTIONS, TOPICS

Check = Callable[[Evidence], Iterable[str]]

IN_WORK: Final = ("open", "accepted")
RANKS: Final = ("pending", "received", "failed", "routed", "resolved", "closed")

EFFECTS: Final[Mapping[str, Sequence[str]]] = {
    "feedback.received": ("feedback_id",),
    "feedback.classified": ("feedback_id",),
    "case.noted": ("case_id",),
    "case.opened": ("case_id",),
    "case.reply_requested": ("reply_id",),
    "case.crisis_linked": ("case_id", "crisis_id", "contact.person", "contact.email"),
    "crisis.proposed": ("crisis_id",),
    "crisis.declared": ("crisis_id",),
    "crisis.stood_down": ("crisis_id",),
    "crisis.stand_down_requested": ("crisis_id", "request_id"),
    "communication.reviewed": ("crisis_id", "request_id"),
    "statement.released": ("statement_id",),
    "communication.planned": ("communication_id",),
    "communication.completed": ("communication_id",),
    "notification.admitted": ("notification_id",),
    "notification.suppressed": ("notification_id",),
    "notification.delivered": ("notification_id",),
    "notification.failed": ("notification_id",),
}
"""What happens once to what these fields name, however often its cause is heard of."""


def everything_accepted_is_on_the_log(evidence: Evidence) -> Iterator[str]:
    """What was answered 202 is an event, for good."""
    there = {event.data.get("feedback_id") for event in evidence.told("feedback.received")}
    for id, message in evidence.promises.accepted.items():
        if id not in there:
            yield f"{message['source_ref']} was accepted as {id} and is not on the log"


def everything_accepted_is_done(evidence: Evidence) -> Iterator[str]:
    """What was answered 202 has its case, or is a dead letter; nothing is pending for ever."""
    states = {item.id: item.content for item in evidence.of("intake", "feedback_status")}
    dead = {letter.event_id for letter in evidence.letters}
    events = {
        event.data.get("feedback_id"): event.id for event in evidence.told("feedback.received")
    }
    for id in evidence.promises.accepted:
        state = states.get(id, {}).get("state", "pending")
        if state in ("pending", "received") and events.get(id) not in dead:
            yield f"{id} is still {state}"


def everything_sent_was_accepted(evidence: Evidence) -> Iterator[str]:
    """Whoever repeats what got no answer gets one; nobody was answered what cannot be."""
    yield from evidence.promises.unexpected
    accepted = {message["source_ref"] for message in evidence.promises.accepted.values()}
    for name in evidence.promises.sent.keys() - accepted:
        yield f"{name} was never accepted"
    if len(accepted) < len(evidence.promises.accepted):
        twice = Counter(item["source_ref"] for item in evidence.promises.accepted.values())
        for name in (name for name, times in twice.items() if times > 1):
            yield f"{name} was accepted under two ids"


def nothing_is_left_over(evidence: Evidence) -> Iterator[str]:
    """At rest no record is unread, no outbox full, no message under way, nothing overdue."""
    for what, number in left(evidence).items():
        yield f"{number} {what}"
    for (service, collection), found in evidence.stored.items():
        for item in found:
            if item.waiting:
                yield f"{service} {collection} {item.id} has {item.waiting} messages waiting"


def offsets_are_at_the_ends(evidence: Evidence) -> Iterator[str]:
    """Each group has committed all that it read, and nothing beyond."""
    for (group, (topic, partition)), (at, end) in evidence.groups.items():
        if at > end:
            yield f"{group} has committed {at} of {topic}/{partition}, which ends at {end}"


def an_id_has_one_content(evidence: Evidence) -> Iterator[str]:
    """An event that is published again is the same event."""
    seen: dict[str, str] = {}
    for event in evidence.events:
        if seen.setdefault(event.id, event.content) != event.content:
            yield f"{event.type} {event.id} at {_place(event)} says something else than before"


def each_effect_happened_once(evidence: Evidence) -> Iterator[str]:
    """One cause has one effect: of what happens once there are no two events."""
    for type, fields in EFFECTS.items():
        ids: dict[tuple[Any, ...], set[str]] = defaultdict(set)
        for event in evidence.told(type):
            ids[tuple(_at(event.data, name) for name in fields)].add(event.id)
        for name, found in ids.items():
            if len(found) > 1:
                yield f"{type} of {'/'.join(map(str, name))} happened {len(found)} times"


def _at(data: Any, path: str) -> Any:
    """Return what is at a path of names within an event's data."""
    return reduce(lambda found, name: (found or {}).get(name), path.split("."), data)


def a_conversation_is_one_case(evidence: Evidence) -> Iterator[str]:
    """All messages of a conversation are in the one case of it, each of them once."""
    cases = {item.id: item.content for item in evidence.of("routing", "cases")}
    states = {item.id: item.content for item in evidence.of("intake", "feedback_status")}
    found: dict[Any, set[str]] = defaultdict(set)
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for id, message in evidence.promises.accepted.items():
        case = states.get(id, {}).get("case_id")
        if case is not None:
            found[message.get("thread_ref", message["source_ref"])].add(case)
            expected[case][id] += 1
    for thread, several in found.items():
        if len(several) > 1:
            yield f"{thread} has {len(several)} cases: {', '.join(sorted(several))}"
    for case, messages in expected.items():
        if case not in cases:
            yield f"case {case} is not there"
            continue
        heard = Counter(cases[case]["conversation"]["heard"])
        for id in messages - heard:
            yield f"{id} is not in its case {case}"
        for id, times in heard.items():
            if times > 1:
                yield f"{id} is {times} times in its case {case}"
        if cases[case]["conversation"]["count"] != len(heard):
            yield f"case {case} counts {cases[case]['conversation']['count']} of {len(heard)}"


def a_case_in_work_has_one_owner(evidence: Evidence) -> Iterator[str]:
    """A case in work is owned by whom it was last given to, and it was given to one at a time."""
    last: dict[str, tuple[str, str]] = {}
    given: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in (*evidence.told("case.opened"), *evidence.told("case.owner_changed")):
        told = (event.sequence or "", str(event.data.get("owner")))
        last[event.subject] = max(last.get(event.subject, told), told)
        given[event.subject, told[0]].add(told[1])
    for (case, sequence), owners in given.items():
        if len(owners) > 1:
            yield f"case {case} was given at {sequence} to {' and '.join(sorted(owners))}"
    for item in evidence.of("routing", "cases"):
        if item.content["state"] not in IN_WORK:
            continue
        owner = item.content.get("owner")
        if not owner:
            yield f"case {item.id} is {item.content['state']} and nobody owns it"
        elif item.id in last and last[item.id][1] != owner:
            yield f"case {item.id} is owned by {owner} and was given to {last[item.id][1]}"


def a_reply_is_delivered_once(evidence: Evidence) -> Iterator[str]:
    """An answer that staff gave is on its case once, was delivered, and met the clock."""
    met = {event.subject for event in evidence.told("clock.met")}
    cases = {item.id: item.content for item in evidence.of("routing", "cases")}
    for id, case in evidence.promises.replies.items():
        replies = [item for item in cases.get(case, {}).get("replies", ()) if item["id"] == id]
        states = [item["state"] for item in replies]
        if states != ["delivered"]:
            yield f"reply {id} to {case} is {' and '.join(states) or 'not there'}"
        elif case not in met:
            yield f"reply {id} to {case} did not meet the clock"
    for case, content in cases.items():
        for item in content.get("replies", ()):
            if item["id"] not in evidence.promises.replies:
                yield f"case {case} has the reply {item['id']} that nobody was told of"


def one_notification_for_each_recipient(evidence: Evidence) -> Iterator[str]:
    """Nobody is told the same communication twice through one channel, and what is asked for is."""
    stored = evidence.of("notification", "notifications")
    told = Counter(
        (item.content["communication_id"], item.content["recipient"], item.content["channel"])
        for item in stored
    )
    for name, times in told.items():
        if times > 1:
            yield f"{times} notifications of {'/'.join(name)}"
    ids = {item.id for item in stored}
    for id in {event.data["notification_id"] for event in evidence.told("notification.requested")}:
        if id not in ids:
            yield f"notification {id} was asked for and is not there"


def each_message_arrived(evidence: Evidence) -> Iterator[str]:
    """What counts as delivered arrived, alike each time, and no more often than it was leased."""
    arrived: dict[str, list[Any]] = defaultdict(list)
    for item in evidence.arrived:
        arrived[item.id].append(item)
    stored = {item.id: item.content for item in evidence.of("notification", "notifications")}
    for id, content in stored.items():
        times = len(arrived[id])
        if content["state"] == "failed":
            yield f"notification {id} failed: {content['reason']}"
        if content["state"] == "delivered" and content["channel"] in ("email", "webhook"):
            if not times:
                yield f"notification {id} counts as delivered and never arrived"
            if times > content["attempts"]:
                yield f"notification {id} arrived {times} times in {content['attempts']} attempts"
    for id, items in arrived.items():
        if items and id not in stored:
            yield f"message {id} arrived and nobody knows of it"
        if len(set(items)) > 1:
            yield f"message {id} arrived in {len(set(items))} forms"


def what_is_held_back_is_counted(evidence: Evidence) -> Iterator[str]:
    """Of what is over the limit of a recipient nothing goes out, and every piece is counted."""
    held = Counter(
        (item.content["recipient"], item.content["channel"])
        for item in evidence.of("notification", "notifications")
        if item.content["state"] == "suppressed" and item.content["reason"] == "over_limit"
    )
    for item in evidence.of("notification", "allowances"):
        name = (item.content["recipient"], item.content["channel"])
        if item.content["held_back"] != held.pop(name, 0):
            yield f"{'/'.join(name)} counts {item.content['held_back']} held back"
    for name, number in held.items():
        yield f"{'/'.join(name)} counts none of {number} held back"


def each_delivery_is_on_record(evidence: Evidence) -> Iterator[str]:
    """The log of contacts has every message that went out, once."""
    interactions = Counter(
        item.content["notification_id"] for item in evidence.of("notification", "interactions")
    )
    for item in evidence.of("notification", "notifications"):
        times = interactions[item.id]
        if item.content["state"] == "delivered" and times != 1:
            yield f"notification {item.id} is {times} times on record"


def versions_never_fall(evidence: Evidence) -> Iterator[str]:
    """What an aggregate tells comes in the order of its versions, repeats and partitions aside."""
    last: dict[tuple[str, int, str], str] = {}
    seen: set[str] = set()
    for event in evidence.events:
        if event.sequence is None or event.id in seen:
            continue
        seen.add(event.id)
        name = (event.topic, event.partition, event.subject)
        before = last.get(name, "")
        if event.sequence <= before:
            yield f"{event.subject} tells {event.sequence} after {before} at {_place(event)}"
        last[name] = max(event.sequence, before)


def versions_are_all_told(evidence: Evidence) -> Iterator[str]:
    """No store is behind its own events: what was told was saved."""
    saved = {item.id: item.version for item in evidence.of("routing", "cases")}
    for event in evidence.events:
        version = saved.get(event.subject) if event.topic == "rapport.cases" else None
        if version is not None and _version(event.sequence) > version:
            yield f"case {event.subject} is at {version} and has told {event.sequence}"


def no_event_of_a_save_is_missing(evidence: Evidence) -> Iterator[str]:
    """What was decided in one go was told as a whole: its places are counted from nought."""
    places: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for event in evidence.events:
        if event.sequence is not None and event.topic in TOPICS:
            version, _, place = event.sequence.partition(".")
            places[_teller(event.topic), event.subject, version].add(int(place))
    for (_, subject, version), found in places.items():
        for number in set(range(max(found))) - found:
            yield f"{subject} does not tell {version}.{number:03d}"


def a_status_never_goes_back(evidence: Evidence) -> Iterator[str]:
    """A sender who asks again never hears of an earlier state."""
    for id, states in evidence.promises.statuses.items():
        ranks = [RANKS.index(state) for state in states if state in RANKS]
        if ranks != sorted(ranks):
            yield f"{id} was {' then '.join(states)}"


def figures_count_each_message_once(evidence: Evidence) -> Iterator[str]:
    """Analytics has one fact for each message that was assessed."""
    assessed = {event.id for event in evidence.told("feedback.classified")}
    facts = {item.id for item in evidence.of("analytics", "heard")}
    for id in assessed - facts:
        yield f"the message assessed in {id} is not counted"
    for id in facts - assessed:
        yield f"{id} is counted and was never assessed"


def everyone_linked_was_told(evidence: Evidence) -> Iterator[str]:
    """Linked, without delivered, opted out and unreachable, leaves nobody."""
    released = {
        (item.content["crisis_id"], item.content["statement_purpose"])
        for item in evidence.of("notification", "communications")
        if item.content["purpose"] == "statement"
    }
    for item in evidence.of("notification", "linked"):
        crisis = item.content["crisis_id"]
        if not item.content["case_ids"] or item.content["address"] is None:
            continue
        for purpose in ("holding", "closing"):
            if (crisis, purpose) in released and not _has_heard(item, purpose):
                yield f"{item.content['recipient']} of {crisis} has not heard the {purpose}"


def everyone_affected_is_linked(evidence: Evidence) -> Iterator[str]:
    """Each case that a crisis's criteria cover belongs to it, and its person is known to it."""
    crises = {
        item.content["criteria"]["product"]: item.id
        for item in evidence.of("routing", "crises")
        if item.id in evidence.promises.crises
    }
    known = {
        (item.content["crisis_id"], case)
        for item in evidence.of("notification", "linked")
        for case in item.content["case_ids"]
    }
    for item in evidence.of("routing", "cases"):
        crisis = crises.get(item.content["about"]["product"])
        if crisis is not None and item.content["crisis_id"] != crisis:
            yield f"case {item.id} does not belong to {crisis}"
        if crisis is not None and (crisis, item.id) not in known:
            yield f"case {item.id} belongs to {crisis} and its person is not known to it"


def a_stand_down_leaves_nobody(evidence: Evidence) -> Iterator[str]:
    """Every crisis of the run has ended, and nobody was left with a holding statement alone."""
    crises = {item.id: item.content for item in evidence.of("routing", "crises")}
    for id in evidence.promises.crises:
        crisis = crises.get(id, {"state": "not there", "coverage": None})
        if crisis["state"] != "stood_down":
            yield f"crisis {id} is {crisis['state']}"
        elif crisis["coverage"]["without_closing"]:
            yield f"crisis {id} ended with {crisis['coverage']['without_closing']} left"
    for item in evidence.of("notification", "linked"):
        over = crises.get(item.content["crisis_id"], {}).get("state") == "stood_down"
        if over and _has_heard(item, "holding") and not _has_heard(item, "closing"):
            yield f"{item.content['recipient']} heard no end of {item.content['crisis_id']}"


def dead_letters_come_from_poison(evidence: Evidence) -> Iterator[str]:
    """Only what others put on the bus and nobody can read was given up."""
    for letter in evidence.letters:
        if letter.key not in evidence.poison:
            yield f"{letter.group} gave {letter.event_id} of {letter.topic} up: {letter.reason}"


def all_poison_is_put_aside(evidence: Evidence) -> Iterator[str]:
    """Whoever reads a piece of poison has a dead letter of it."""
    found: dict[str | None, set[str]] = defaultdict(set)
    for letter in evidence.letters:
        found[letter.key].add(letter.group)
    for key, groups in evidence.poison.items():
        for group in groups - found[key]:
            yield f"{group} has no dead letter of {key}"


INVARIANTS: Final[Sequence[Check]] = (
    everything_sent_was_accepted,
    everything_accepted_is_on_the_log,
    everything_accepted_is_done,
    nothing_is_left_over,
    offsets_are_at_the_ends,
    an_id_has_one_content,
    each_effect_happened_once,
    versions_never_fall,
    versions_are_all_told,
    no_event_of_a_save_is_missing,
    a_status_never_goes_back,
    a_conversation_is_one_case,
    a_case_in_work_has_one_owner,
    a_reply_is_delivered_once,
    one_notification_for_each_recipient,
    each_message_arrived,
    what_is_held_back_is_counted,
    each_delivery_is_on_record,
    figures_count_each_message_once,
    everyone_affected_is_linked,
    everyone_linked_was_told,
    a_stand_down_leaves_nobody,
    dead_letters_come_from_poison,
    all_poison_is_put_aside,
)


def violations(evidence: Evidence) -> dict[str, list[str]]:
    """Return what breaks each invariant, by its name in words.

    One that cannot make sense of the evidence is broken, too: the others still have their say.
    """
    return {words(check): list(_found(check, evidence)) for check in INVARIANTS}


def words(check: Check) -> str:
    """Return an invariant's name in words."""
    return check.__name__.replace("_", " ")


def sent_again(evidence: Evidence) -> int:
    """Count the messages that arrived more than once, as they may after a lease ran out."""
    return sum(times > 1 for times in Counter(item.id for item in evidence.arrived).values())


def _found(check: Check, evidence: Evidence) -> Iterator[str]:
    try:
        yield from check(evidence)
    except (LookupError, TypeError, ValueError) as error:
        yield f"it cannot be checked: {type(error).__name__}: {error}"


def _has_heard(linked: Stored, purpose: str) -> bool:
    return any(
        told["purpose"] == purpose and told["progress"] in ("delivered", "opted_out")
        for told in linked.content["told"]
    )


def _teller(topic: str) -> str:
    """Return who tells of aggregates on a topic: contacts have the ids of the messages they log."""
    return topic if topic == INTERACTIONS.name else TOPICS[topic].writer


def _version(sequence: str | None) -> int:
    return int((sequence or "0").partition(".")[0])


def _place(event: Told) -> str:
    return f"{event.topic}/{event.partition}@{event.offset}"
