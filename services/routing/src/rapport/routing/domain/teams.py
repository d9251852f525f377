"""Teams: who works here, who leads, and who is there when nobody else is.

People are known by the subject of their token. A case is given to a team's least loaded member, one
who speaks its language if there is one; the team's lead steps in where it has no members. The duty
owner gets what belongs to no team.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rapport.common.events.vocabulary import Language

DUTY: Final = "duty"
"""The name of the team that stands behind all others: the duty owner and the duty manager."""

Loads = Counter[str]
"""How many cases in work each person owns."""

Name = Annotated[str, Field(min_length=1, max_length=100)]


class Member(BaseModel):
    """Somebody in a team; no languages means any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    languages: tuple[Language, ...] = ()

    def speaks(self, language: Language) -> bool:
        """Tell whether cases in `language` may go to them; an undetermined one may to all."""
        return not self.languages or language in (Language.UND, *self.languages)


class Team(BaseModel):
    """A lead and the members that cases are spread over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lead: Name
    members: dict[Name, Member] = {}

    def __contains__(self, person: str) -> bool:
        return person == self.lead or person in self.members

    def least_loaded(self, language: Language, loads: Loads) -> str:
        """Return the member with the fewest cases among those who speak `language`, if any do.

        Among equals the first one listed.
        """
        speakers = [name for name, member in self.members.items() if member.speaks(language)]
        return min(speakers or self.members or [self.lead], key=loads.__getitem__)


class Duty(BaseModel):
    """Who owns what no rule places, and who hears of it when a lead has not helped either."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: Name
    manager: Name | None = None


class Teams(BaseModel):
    """The company as far as cases are concerned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duty: Duty
    teams: dict[Name, Team]

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        if DUTY in self.teams:
            raise ValueError(f"{DUTY!r} is the name of the duty owner's own team")
        if both := sorted({DUTY, *self.teams} & set(self.people())):
            raise ValueError(f"{', '.join(both)} cannot name both a team and a person")
        return self

    def people(self) -> Iterator[str]:
        """Name everybody; somebody in two teams is named twice."""
        yield self.duty.owner
        if self.duty.manager is not None:
            yield self.duty.manager
        for team in self.teams.values():
            yield team.lead
            yield from team.members

    def knows(self, name: str) -> bool:
        """Tell whether `name` is a team or a person."""
        return name in self.teams or self.has_person(name)

    def has_person(self, name: str) -> bool:
        """Tell whether `name` is a person."""
        return name in self.people()

    def team_of(self, person: str, preferred: str | None) -> str:
        """Return the name of a team that `person` is in: `preferred` if it is one of several."""
        if preferred is not None and self.includes(preferred, person):
            return preferred
        return next((name for name in self.teams if self.includes(name, person)), DUTY)

    def includes(self, team: str, person: str) -> bool:
        """Tell whether `person` leads or belongs to `team`."""
        if team == DUTY:
            return person in (self.duty.owner, self.duty.manager)
        return team in self.teams and person in self.teams[team]

    def ladder(self, team: str | None) -> tuple[str, ...]:
        """Return whom to bring in, in order, when a case of `team` needs more than its owner."""
        lead = self.teams[team].lead if team is not None and team in self.teams else None
        return tuple(dict.fromkeys(name for name in (lead, self.duty.manager) if name is not None))
