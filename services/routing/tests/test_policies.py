"""Policies: what is in force, what is refused at the start, what clocks pin."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rapport.common.errors import Invalid
from rapport.common.events.cases import Subject
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)
from rapport.common.testing import MORNING
from rapport.routing.domain.clocks import Timing
from rapport.routing.domain.policies import Policies
from rapport.routing.domain.rules import Assignment, assign
from rapport.routing.service import load_policies


@pytest.fixture(scope="module")
def policies() -> Policies:
    return load_policies()


def about(**given: Any) -> Subject:
    """Return an ordinary complaint about a product, except for what is given."""
    ordinary = {
        "kind": Kind.COMPLAINT,
        "channel": Channel.WEB,
        "language": Language.EN,
        "complaint_type": ComplaintType.PRODUCT_QUALITY,
        "need": Need.MATERIAL,
        "sentiment": Sentiment.NEGATIVE,
        "trust_cause": TrustCause.QUALITY,
        "severity": Severity.NORMAL,
    }
    return Subject(**(ordinary | given))


# Whose it is


@pytest.mark.parametrize(
    ("given", "team"),
    [
        ({}, "quality"),
        ({"severity": Severity.CRITICAL, "channel": Channel.PRESS}, "safety"),
        ({"channel": Channel.PRESS}, "press"),
        ({"public": True, "reach": 10_000}, "press"),
        ({"public": True, "reach": 9_999}, "quality"),
        ({"complaint_type": ComplaintType.PRODUCT_PRICE}, "contracts"),
        ({"kind": Kind.QUESTION, "complaint_type": ComplaintType.NONE}, "support"),
    ],
)
def test_the_first_rule_that_holds_names_the_team(
    policies: Policies, given: dict[str, Any], team: str
) -> None:
    found = assign(about(**given), policies.rules, policies.teams, Counter())
    assert found.team == team
    assert policies.teams.includes(team, found.owner)


def test_without_a_rule_the_duty_owner_has_it(policies: Policies) -> None:
    no_rules = policies.rules.model_copy(update={"rules": ()})
    assert assign(about(), no_rules, policies.teams, Counter()) == Assignment(
        "dana", "duty", "duty"
    )


def test_the_least_loaded_who_speaks_the_language_gets_it(policies: Policies) -> None:
    loads = Counter({"jun": 9, "kim": 0, "navid": 0})
    chinese = about(language=Language.ZH)
    assert assign(chinese, policies.rules, policies.teams, loads).owner == "jun"
    undetermined = about(language=Language.UND)
    assert assign(undetermined, policies.rules, policies.teams, loads).owner == "kim"


def test_where_nobody_speaks_the_language_anybody_helps_and_without_members_the_lead(
    policies: Policies,
) -> None:
    quality = policies.teams.teams["quality"]
    english_only = quality.model_copy(update={"members": {"kim": quality.members["kim"]}})
    assert english_only.least_loaded(Language.FA, Counter()) == "kim"
    assert quality.model_copy(update={"members": {}}).least_loaded(Language.FA, Counter()) == "omid"


@pytest.mark.parametrize(
    ("given", "acts"),
    [
        ({}, True),
        ({"kind": Kind.QUESTION, "sentiment": Sentiment.NEUTRAL}, True),
        ({"kind": Kind.REQUEST, "sentiment": Sentiment.POSITIVE}, True),
        ({"kind": Kind.MENTION, "sentiment": Sentiment.NEGATIVE}, True),
        ({"kind": Kind.SURVEY_ANSWER, "sentiment": Sentiment.NEGATIVE}, True),
        ({"kind": Kind.MENTION, "sentiment": Sentiment.NEUTRAL}, False),
        ({"kind": Kind.PRAISE, "sentiment": Sentiment.POSITIVE}, False),
        ({"kind": Kind.SURVEY_ANSWER, "sentiment": Sentiment.POSITIVE}, False),
    ],
)
def test_what_asks_for_nothing_is_only_noted(
    policies: Policies, given: dict[str, Any], acts: bool
) -> None:
    assert policies.rules.need_action(about(**given)) is acts


def test_a_lead_is_brought_in_before_the_duty_manager(policies: Policies) -> None:
    assert policies.teams.ladder("quality") == ("omid", "marta")
    assert policies.teams.ladder("duty") == ("marta",)


# How long it may take


@pytest.mark.parametrize(
    ("channel", "hours"),
    [
        (Channel.HOTLINE, 0.25),
        (Channel.CHAT, 0.25),
        (Channel.EMAIL, 4),
        (Channel.WEB, 24),
        (Channel.SOCIAL, 24),
        (Channel.PRESS, 72),
    ],
)
def test_a_first_response_is_due_by_channel(
    policies: Policies, channel: Channel, hours: float
) -> None:
    clock = policies.timing.start(
        "first_response", about(channel=channel), MORNING, of="case", aggregate_id="c1"
    )
    assert clock.due_at - MORNING == timedelta(hours=hours)
    assert clock.warn_at - MORNING == timedelta(hours=hours * 0.75)
    assert clock.again_at - clock.due_at == timedelta(hours=hours)


def test_a_policy_is_kept_under_the_hash_that_clocks_pin(policies: Policies) -> None:
    kept = {policy.name: policy for policy in policies.to_keep()}["timing"]
    assert kept.id == policies.timing.hash
    read = Timing.model_validate_json(kept.text)
    assert (read, read.hash) == (policies.timing, kept.id)


# What is refused


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "rules",
            "needs_action: []\nrules:\n- name: all\n  when: {}\n  team: nobody",
            r"rules.yaml:5: rules.0.team: .*no team 'nobody'",
        ),
        (
            "rules",
            "needs_action: []\nrules:\n- name: all\n  when: {colour: red}\n  team: press",
            r"rules.yaml:4: rules.0.when: .*no colour",
        ),
        (
            "clocks",
            "first_response:\n  rules:\n  - within: 4 h\n    calendar: moon",
            r"clocks.yaml:4: first_response.rules.0.calendar: .*no calendar 'moon'",
        ),
        (
            "clocks",
            "first_response:\n  rules:\n  - within: 4",
            r"clocks.yaml:3: first_response.rules.0.within: .*15 min, 4 h or 2 d",
        ),
        (
            "clocks",
            "first_response:\n  rules:\n  - {when: {kind: complaint}, within: 4 h}",
            r"clocks.yaml:1: first_response: .*last rule must hold always",
        ),
        (
            "teams",
            "duty: {owner: dana}\nteams:\n  dana: {lead: lin}",
            r"teams.yaml:1: .*dana cannot name both a team and a person",
        ),
        ("teams", "duty: {owner: dana}\nteams:\n  duty: {lead: lin}", r"duty owner's own team"),
    ],
)
def test_a_mistake_stops_the_start_with_file_and_line(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    folder = tmp_path / "routing"
    folder.mkdir()
    (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(Invalid, match=expected):
        load_policies(tmp_path)
