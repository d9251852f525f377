"""The stage: where the story is played, and the one door to all deeds."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatch
from typing import Final

from rapport.common.errors import Invalid
from rapport.standalone.demo import steps as story
from rapport.standalone.demo.chronicle import latest_proposal
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.world import World

CASES: Final = "/routing/v1/cases"
CRISES: Final = "/routing/v1/crises"
STATEMENTS: Final = "/knowledge/v1/statements"


@dataclass
class Stage:
    """Where the story is played: the world, who tells, and what the story's names stand for."""

    world: World
    narrator: Narrator
    cases: dict[str, str] = field(default_factory=dict)
    statements: dict[str, str] = field(default_factory=dict)
    first: dict[str, story.Hear] = field(default_factory=dict)
    feedback: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time in the story."""
        return self.world.clock.now()

    async def check(self, finding: Finding) -> None:
        """Show whether something is as it must be, and keep it."""
        self.findings.append(finding)
        await self.narrator.checked(finding.is_true, finding.what)

    async def does(self, who: str, what: str) -> None:
        """Tell what somebody inside does."""
        await self.narrator.does(self.now, self.world.person(who), what)

    def case(self, name: str) -> str:
        """Return the path of a case."""
        return f"{CASES}/{self.cases[name]}"

    def statement(self, name: str) -> str:
        """Return the path of a statement."""
        return f"{STATEMENTS}/{self.statements[name]}"

    @property
    def crisis(self) -> str:
        """The path of the crisis that was proposed last; raises Invalid where none was."""
        id = latest_proposal(self.world.outside.stream.events)
        if id is None:
            raise Invalid("no crisis has been proposed so far")
        return f"{CRISES}/{id}"

    async def owner(self, name: str) -> str:
        """Return who owns a case; raises Invalid where nobody does."""
        owner = (await self.world.see(self.case(name)))["owner"]
        if owner is None:
            raise Invalid(f"nobody owns “{name}”")
        return str(owner)


@singledispatch
async def act(step: story.Step, stage: Stage) -> str | None:
    """Do what a step says; return the path of what it concerned, None where that is nothing."""
    raise NotImplementedError(type(step).__name__)
