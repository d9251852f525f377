"""Rules: which conversations need somebody to act, and whose they are."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from rapport.common.events.cases import Subject
from rapport.routing.domain.clocks import SubjectConditions
from rapport.routing.domain.teams import DUTY, Loads, Name, Teams


class Rule(BaseModel):
    """Cases for which `when` holds belong to `team`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    when: SubjectConditions
    team: Name

    @field_validator("team")
    @classmethod
    def _is_there(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not None and name not in info.context["teams"]:
            raise ValueError(f"there is no team {name!r}")
        return name


class Rules(BaseModel):
    """Where any of `needs_action` holds somebody must act; the first rule to hold says who."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs_action: tuple[SubjectConditions, ...]
    rules: tuple[Rule, ...]

    def need_action(self, about: Subject) -> bool:
        """Tell whether a message that is `about` this needs somebody to act."""
        return any(condition.hold(about) for condition in self.needs_action)


class Assignment(NamedTuple):
    """Who owns a case, in which team, and the name of the rule that decided."""

    owner: str
    team: str
    rule: str


def assign(about: Subject, rules: Rules, teams: Teams, loads: Loads) -> Assignment:
    """Return the owner by the first rule that holds; without one, the duty owner."""
    for rule in rules.rules:
        if rule.when.hold(about):
            owner = teams.teams[rule.team].least_loaded(about.language, loads)
            return Assignment(owner, rule.team, rule.name)
    return Assignment(teams.duty.owner, DUTY, DUTY)
