"""Policies that people write, and what they are told about a mistake."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from rapport.common.errors import Invalid
from rapport.common.policy import parse_policy


class Team(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lead: str
    members: list[str]


class Teams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    teams: dict[str, Team]


GOOD = """\
# who is who
teams:
  care: {lead: lea, members: [ana, ben]}
"""


def test_a_policy_is_known_by_what_it_says_not_how_it_is_laid_out() -> None:
    laid_out = "teams:\n\n  care:\n    members: [ana, ben]\n    lead: lea  # since May\n"
    assert parse_policy(GOOD, Teams, "teams").hash == parse_policy(laid_out, Teams, "t").hash
    other = GOOD.replace("ben", "bea")
    assert parse_policy(GOOD, Teams, "teams").hash != parse_policy(other, Teams, "teams").hash


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("teams:\n  care:\n    lead: lea\n    members: ana\n", "t.yaml:4: teams.care.members: "),
        ("teams:\n  care:\n    lead: lea\n    membres: [ana]\n", "t.yaml:4: teams.care.membres: "),
        ("teams:\n  care:\n    lead: lea\n", "t.yaml:2: teams.care.members: Field required"),
        ("teams:\n  care: [\n", "t.yaml:3: "),
        ("teams: {}\nteams: {}\n", "t.yaml:2: the key 'teams' is given twice"),
        ("teams: &all {}\nother: *all\n", "t.yaml:1: an alias (*name) is not allowed"),
        ("", "t.yaml:1: "),
        ("teams: !!python/object:os.system {}\n", "t.yaml:1: "),
    ],
)
def test_a_mistake_is_told_with_file_line_and_field(text: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_policy(text, Teams, "t.yaml")
    assert told in refused.value.reason


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        parse_policy("teams:\n  a: {lead: 1, members: []}\n  b: {lead: x}\n", Teams, "t.yaml")
    assert len(refused.value.problems) == 2
