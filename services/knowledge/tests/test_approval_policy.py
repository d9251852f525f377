"""The approval policy: the built-in one holds, and one that nobody could meet stops the start."""

from pathlib import Path

import pytest

from rapport.common.errors import Invalid
from rapport.common.policy import load_policy, parse_policy
from rapport.common.testing import harness
from rapport.knowledge.domain.approvals import ApprovalRules
from rapport.knowledge.service import SERVICE

GOOD = """\
groups: {pr: [ann, bob], legal: [dee]}
purposes:
  holding: {quorum: {pr: 2}, languages: [en]}
  update: {quorum: {pr: 1}, languages: [en]}
  closing: {quorum: {legal: 1}, languages: [en, fa]}
  proactive: {quorum: {pr: 1}, languages: [en]}
"""


def test_the_built_in_policy_asks_two_groups_about_a_crisis_in_three_languages() -> None:
    rules = load_policy("knowledge", "approvals", ApprovalRules).rules
    for purpose in ("holding", "update", "closing"):
        requirement = rules.purposes[purpose]
        assert len(requirement.quorum) == 2
        assert set(requirement.languages) == {"en", "zh", "fa"}


def test_the_same_rules_are_the_same_policy() -> None:
    first = parse_policy(GOOD, ApprovalRules, "approvals.yaml")
    assert first.hash == parse_policy(f"# ours\n{GOOD}", ApprovalRules, "approvals.yaml").hash


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("pr: 2", "pr: 3", "approvals.yaml:2: purposes: .*holding needs 3 of pr"),
        ("[ann, bob]", "[ann, ann]", "holding needs 2 of pr"),
        ("legal: 1", "finance: 1", "closing needs 1 of finance"),
        ("quorum: {pr: 2}", "quorum: {}", "approvals.yaml:3: purposes.holding.quorum"),
        ("pr: 2", "pr: 0", "approvals.yaml:3: purposes.holding.quorum.pr"),
        ("  update: {quorum: {pr: 1}, languages: [en]}\n", "", "nothing is said about update"),
        ("[en, fa]", "[en, und]", "approvals.yaml:5: purposes.closing.languages"),
        ("groups:", "teams:", "approvals.yaml:1: groups: Field required"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        parse_policy(GOOD.replace(old, new), ApprovalRules, "approvals.yaml")


async def test_a_mistake_in_ones_own_policy_stops_the_start(tmp_path: Path) -> None:
    own = tmp_path / "knowledge" / "approvals.yaml"
    own.parent.mkdir()
    own.write_text(GOOD.replace("pr: 2", "pr: 3"), "utf-8")
    with pytest.raises(Invalid, match=r"approvals\.yaml:2"):
        async with harness(SERVICE, policy_dir=tmp_path):
            raise AssertionError("it started")
