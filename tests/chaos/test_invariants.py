"""The checker can fail: for each invariant a run that broke it, by one event or one document.

The run that holds is small: two messages of one conversation, a case, an answer, a crisis with its
two statements. Each test spoils one thing of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chaos import invariants
from chaos.evidence import Evidence, Letter, Stored, Told
from chaos.invariants import INVARIANTS, Check, violations, words
from chaos.people import Promises
from chaos.report import Result, page
from rapport.standalone.demo.receivers import Arrival

Spoil = Callable[[Evidence], Evidence]


def event(type: str, id: str, subject: str, version: int, **data: Any) -> Told:
    """Return an event on the topic of its entity."""
    topics = {"feedback.received": "feedback", "feedback.classified": "cases", "clock.met": "cases"}
    topic = f"rapport.{topics.get(type, type.partition('.')[0] + 's')}"
    sequence = f"{version:010d}.000" if version else None
    return Told(topic, 0, 0, id, f"rapport.{type}.v1", subject, sequence, None, id, data)


def stored(id: str, version: int = 1, **content: Any) -> Stored:
    """Return a document with an empty outbox."""
    return Stored(id, version, 0, None, content)


def notification(id: str, communication: str, recipient: str) -> Stored:
    """Return a message that was delivered at the first attempt."""
    return stored(
        id,
        communication_id=communication,
        recipient=recipient,
        channel="email",
        state="delivered",
        attempts=1,
        reason=None,
    )


def allowance(held_back: int) -> Stored:
    """Return what a recipient may get, and how much of it was held back."""
    return stored("allowance", recipient="person", channel="email", held_back=held_back)


def arrival(id: str) -> Arrival:
    """Return a message as it arrived."""
    return Arrival(id=id, channel="email", to="a@example.org", language="en", subject="", text="")


def statement(purpose: str) -> Stored:
    """Return the communication of a crisis statement."""
    return stored(
        f"said-{purpose}", purpose="statement", crisis_id="crisis", statement_purpose=purpose
    )


def told(purpose: str) -> dict[str, str]:
    """Return that somebody has heard a statement."""
    return {"purpose": purpose, "progress": "delivered"}


def whole() -> Evidence:
    """Return what a run has left behind in which every promise was kept."""
    promises = Promises()
    for number in (1, 2):
        message = {"source_ref": f"m{number}", "thread_ref": "t"}
        promises.sent[message["source_ref"]] = message
        promises.accepted[f"f{number}"] = message
    promises.statuses["f1"] = ["pending", "received", "routed", "routed"]
    promises.replies["reply"] = "case"
    promises.crises.append("crisis")
    events = [
        event("feedback.received", "e1", "f1", 0, feedback_id="f1"),
        event("feedback.received", "e2", "f2", 0, feedback_id="f2"),
        event("feedback.classified", "e3", "case", 1, feedback_id="f1", case_id="case"),
        event("case.opened", "e4", "case", 2, case_id="case", owner="kim"),
        event("feedback.classified", "e5", "case", 3, feedback_id="f2", case_id="case"),
        event("clock.met", "e6", "case", 4),
        event("notification.requested", "e7", "reply", 1, notification_id="n1"),
        event("notification.delivered", "e8", "n1", 1, notification_id="n1"),
    ]
    case = stored(
        "case",
        4,
        state="open",
        owner="kim",
        about={"product": "kettle"},
        crisis_id="crisis",
        conversation={"heard": ["f1", "f2"], "count": 2},
        replies=[{"id": "reply", "state": "delivered"}],
    )
    routed: dict[str, Any] = {"state": "routed", "case_id": "case"}
    crisis = stored(
        "crisis",
        state="stood_down",
        criteria={"product": "kettle"},
        coverage={"without_closing": 0},
    )
    linked = stored(
        "linked",
        crisis_id="crisis",
        recipient="person",
        address="a@example.org",
        case_ids=["case"],
        told=[told("holding"), told("closing")],
    )
    return Evidence(
        promises=promises,
        events=events,
        stored={
            ("intake", "feedback_status"): [stored("f1", **routed), stored("f2", **routed)],
            ("routing", "cases"): [case],
            ("routing", "crises"): [crisis],
            ("notification", "communications"): [statement("holding"), statement("closing")],
            ("notification", "linked"): [linked],
            ("notification", "notifications"): [notification("n1", "reply", "person")],
            ("notification", "interactions"): [stored("n1", notification_id="n1")],
            ("analytics", "heard"): [stored("e3"), stored("e5")],
        },
        groups={("routing", ("rapport.feedback", 0)): (2, 2)},
        arrived=[arrival("n1")],
        now=1,
    )


def with_promises(change: Callable[[Promises], object]) -> Spoil:
    """Change what was promised."""

    def spoil(evidence: Evidence) -> Evidence:
        change(evidence.promises)
        return evidence

    return spoil


def with_events(*more: Told) -> Spoil:
    """Add events behind all others."""
    return lambda evidence: replace(evidence, events=[*evidence.events, *more])


def without_event(id: str) -> Spoil:
    """Lose an event."""
    return lambda evidence: replace(
        evidence, events=[event for event in evidence.events if event.id != id]
    )


def with_stored(service: str, collection: str, *items: Stored) -> Spoil:
    """Have other documents in a collection."""
    return lambda evidence: replace(
        evidence, stored={**evidence.stored, (service, collection): items}
    )


def changed(service: str, collection: str, **content: Any) -> Spoil:
    """Change the content of a collection's first document."""

    def spoil(evidence: Evidence) -> Evidence:
        first, *others = evidence.of(service, collection)
        first = first._replace(content={**first.content, **content})
        return with_stored(service, collection, first, *others)(evidence)

    return spoil


def twice(service: str, collection: str) -> Spoil:
    """Have a collection's first document once more, under another id."""

    def spoil(evidence: Evidence) -> Evidence:
        found = evidence.of(service, collection)
        return with_stored(service, collection, *found, found[0]._replace(id="other"))(evidence)

    return spoil


def first(service: str, collection: str, **fields: Any) -> Spoil:
    """Change a collection's first document itself."""

    def spoil(evidence: Evidence) -> Evidence:
        head, *others = evidence.of(service, collection)
        return with_stored(service, collection, head._replace(**fields), *others)(evidence)

    return spoil


LETTER = Letter("routing", "rapport.feedback", "e1", "Undecodable: no value", "poison-1")

BROKEN: Mapping[Check, Sequence[Spoil]] = {
    invariants.everything_sent_was_accepted: [
        with_promises(lambda promises: promises.unexpected.append("404")),
        with_promises(lambda promises: promises.sent.update(m3={})),
        with_promises(lambda promises: promises.accepted.update(f3=promises.accepted["f1"])),
    ],
    invariants.everything_accepted_is_on_the_log: [without_event("e2")],
    invariants.everything_accepted_is_done: [
        changed("intake", "feedback_status", state="received"),
        with_stored("intake", "feedback_status"),
    ],
    invariants.nothing_is_left_over: [
        lambda evidence: replace(evidence, groups={("a", ("topic", 0)): (1, 2)}),
        first("routing", "cases", waiting=1),
        first("routing", "cases", next_due=0),
        changed("notification", "notifications", state="leased"),
    ],
    invariants.offsets_are_at_the_ends: [
        lambda evidence: replace(evidence, groups={("a", ("topic", 0)): (3, 2)})
    ],
    invariants.an_id_has_one_content: [
        with_events(event("case.opened", "e4", "case", 2)._replace(content="other"))
    ],
    invariants.each_effect_happened_once: [
        with_events(event("case.opened", "e9", "case", 5, case_id="case", owner="kim")),
        with_events(event("notification.delivered", "e9", "n1", 2, notification_id="n1")),
    ],
    invariants.versions_never_fall: [with_events(event("case.opened", "e9", "case", 3))],
    invariants.versions_are_all_told: [
        first("routing", "cases", version=3),
    ],
    invariants.no_event_of_a_save_is_missing: [
        with_events(event("clock.met", "e9", "case", 5)._replace(sequence="0000000005.001")),
    ],
    invariants.a_status_never_goes_back: [
        with_promises(lambda promises: promises.statuses["f1"].append("received"))
    ],
    invariants.a_conversation_is_one_case: [
        changed("intake", "feedback_status", case_id="other"),
        changed("routing", "cases", conversation={"heard": ["f1", "f2", "f2"], "count": 3}),
        changed("routing", "cases", conversation={"heard": ["f1"], "count": 1}),
        changed("routing", "cases", conversation={"heard": ["f1", "f2"], "count": 3}),
        with_stored("routing", "cases"),
    ],
    invariants.a_case_in_work_has_one_owner: [
        changed("routing", "cases", owner=None),
        with_events(event("case.opened", "e9", "case", 5, case_id="case", owner="ana")),
    ],
    invariants.a_reply_is_delivered_once: [
        changed("routing", "cases", replies=[]),
        changed("routing", "cases", replies=[{"id": "reply", "state": "requested"}]),
        changed("routing", "cases", replies=[{"id": "reply", "state": "delivered"}] * 2),
        with_promises(lambda promises: promises.replies.clear()),
        without_event("e6"),
    ],
    invariants.one_notification_for_each_recipient: [
        twice("notification", "notifications"),
        with_stored("notification", "notifications"),
    ],
    invariants.each_message_arrived: [
        lambda evidence: replace(evidence, arrived=[]),
        lambda evidence: replace(evidence, arrived=[arrival("n1"), arrival("n1")]),
        lambda evidence: replace(evidence, arrived=[arrival("n1"), arrival("n2")]),
        changed("notification", "notifications", state="failed", reason="timeout"),
    ],
    invariants.what_is_held_back_is_counted: [
        with_stored("notification", "allowances", allowance(held_back=1)),
        changed("notification", "notifications", state="suppressed", reason="over_limit"),
    ],
    invariants.each_delivery_is_on_record: [
        with_stored("notification", "interactions"),
        twice("notification", "interactions"),
    ],
    invariants.figures_count_each_message_once: [
        with_stored("analytics", "heard"),
        twice("analytics", "heard"),
    ],
    invariants.everyone_affected_is_linked: [
        changed("routing", "cases", crisis_id=None),
        changed("notification", "linked", case_ids=[]),
    ],
    invariants.everyone_linked_was_told: [
        changed("notification", "linked", told=[told("closing")]),
        changed("notification", "linked", told=[told("holding")]),
    ],
    invariants.a_stand_down_leaves_nobody: [
        changed("routing", "crises", state="declared"),
        changed("routing", "crises", coverage={"without_closing": 1}),
        changed("notification", "linked", told=[told("holding")]),
        with_stored("routing", "crises"),
    ],
    invariants.dead_letters_come_from_poison: [
        lambda evidence: replace(evidence, letters=[LETTER]),
    ],
    invariants.all_poison_is_put_aside: [
        lambda evidence: replace(evidence, poison={"poison-1": {"routing"}}),
        lambda evidence: replace(evidence, letters=[LETTER], poison={"poison-1": {"intake"}}),
    ],
}

CASES: Iterable[tuple[Check, Spoil]] = [
    (check, spoil) for check, spoils in BROKEN.items() for spoil in spoils
]


def test_a_run_in_which_all_went_well_violates_nothing() -> None:
    assert violations(whole()) == {words(check): [] for check in INVARIANTS}


def test_each_invariant_has_been_seen_to_fail() -> None:
    assert set(BROKEN) == set(INVARIANTS)


@pytest.mark.parametrize(("check", "spoil"), CASES, ids=lambda part: getattr(part, "__name__", ""))
def test_what_breaks_an_invariant_is_found(check: Check, spoil: Spoil) -> None:
    assert list(check(spoil(whole()))) != []


def test_a_letter_of_poison_breaks_nothing() -> None:
    poisoned = replace(whole(), letters=[LETTER], poison={"poison-1": {"routing"}})
    assert not any(violations(poisoned).values())


def test_a_message_may_arrive_again_after_a_lease_ran_out() -> None:
    again = changed("notification", "notifications", attempts=2)(whole())
    again = replace(again, arrived=[arrival("n1"), arrival("n1")])
    assert not any(violations(again).values())
    assert invariants.sent_again(again) == 1


def test_an_event_may_be_published_again() -> None:
    again = with_events(whole().events[3])(whole())
    assert not any(violations(again).values())


def test_one_violation_makes_a_run_fail_and_is_on_its_page() -> None:
    lost = without_event("e2")(whole())
    result = Result("embedded", 1, violations=violations(lost))
    assert not result.holds
    assert "f2 and is not on the log" in page("A machine.", [result])
    assert Result("embedded", 1, violations=violations(whole())).holds
