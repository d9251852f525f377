"""Policies that people write, and what they are told about a mistake."""

from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from rapport.common.errors import Invalid
from rapport.common.policy import load_policy, parse_policy


class Team(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lead: str
    members: list[str]


class Teams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    teams: dict[str, Team]
    away: list[date] = []
    hours: tuple[int, int] = (9, 17)


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
        ("teams: {}\naway:\n - 2026-02-28\n - 2026-02-30\n", "t.yaml:4: is not a valid value"),
        ("teams: {}\nhours: [!!int nine, 17]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\naway: [!!timestamp soon]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\naway: [!!bool maybe]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\nhours: [!!int '', 17]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\nhours: [!!float '', 17]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\nhours: [!!float " + "9:" * 999 + "9, 17]\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\n!!int nine: 17\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\n2026-02-30: 17\n", "t.yaml:2: is not a valid value"),
        ("teams: {}\nhours: [9]\n", "t.yaml:2: hours.1: Field required"),
        ("teams:\n  ? [a, b]\n  : {}\n", "t.yaml:2: a key is plain text"),
        ("teams:\n  ? {a: b}\n  : {}\n", "t.yaml:2: a key is plain text"),
        ("teams: " + "[" * 100_000, "t.yaml:1: is nested deeper than 64 levels"),
        ("teams:\n" + "- " * 100_000, "t.yaml:2: is nested deeper than 64 levels"),
        ("\x00", "t.yaml:1: "),
        ("a: 1\n---\nb: 2\n", "t.yaml:2: "),
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


def test_a_thousand_mistakes_are_not_told_one_by_one() -> None:
    for many in ("".join(f"x{number}: 1\n" for number in range(1_000)), "x: 1\n" * 1_000):
        with pytest.raises(Invalid) as refused:
            parse_policy(f"teams: {{}}\n{many}", Teams, "t.yaml")
        assert len(refused.value.problems) == 50


@pytest.mark.parametrize("content", [b"teams: {}  # caf\xe9\n", b"\xff\xfet\x00"])
def test_a_file_that_is_not_utf_8_is_a_mistake_like_others(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "routing").mkdir()
    file = tmp_path / "routing" / "teams.yaml"
    file.write_bytes(content)
    with pytest.raises(Invalid) as refused:
        load_policy("routing", "teams", Teams, tmp_path)
    assert refused.value.reason == f"{file}:1: is not UTF-8"
