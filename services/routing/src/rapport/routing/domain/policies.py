"""The policies that cases are decided by, each kept under the hash that it is known by."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Self

from pydantic import BaseModel

from rapport.common.aggregate import Aggregate
from rapport.routing.domain.clocks import Timing
from rapport.routing.domain.rules import Rules
from rapport.routing.domain.teams import Teams


class KeptPolicy(Aggregate):
    """What a policy said, as JSON; its id is the hash that clocks pin."""

    COLLECTION: ClassVar[str] = "policies"
    ORDER: ClassVar[str] = "name"

    name: str
    text: str

    @classmethod
    def of(cls, name: str, rules: BaseModel) -> Self:
        """Return a policy to be kept."""
        text = rules.model_dump_json()
        return cls(id=sha256(text.encode()).hexdigest(), name=name, text=text)

    def unless_kept(self, kept: "KeptPolicy | None") -> "KeptPolicy | None":
        """Return what is to be saved: this policy, nothing where it is kept already."""
        return self if kept is None else None


@dataclass(frozen=True, slots=True)
class Policies:
    """What is in force."""

    rules: Rules
    teams: Teams
    timing: Timing

    def to_keep(self) -> Iterator[KeptPolicy]:
        """Yield each policy as it is kept."""
        yield KeptPolicy.of("rules", self.rules)
        yield KeptPolicy.of("teams", self.teams)
        yield KeptPolicy.of("timing", self.timing)
