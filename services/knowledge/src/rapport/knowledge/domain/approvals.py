"""The approval policy: whose agreement, and which languages, a statement needs before it goes out.

A statement keeps the quorum of the day it was submitted; who belongs to a group is asked when
somebody approves, so that people can come and go.
"""

from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from rapport.common.events.knowledge import Purpose
from rapport.knowledge.domain.words import Name, WrittenLanguage


class Requirement(BaseModel):
    """How many must approve in each group, and the languages that there must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quorum: Annotated[dict[Name, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    languages: Annotated[tuple[WrittenLanguage, ...], Field(min_length=1)]


class ApprovalRules(BaseModel):
    """Who is in which approver group (by the subject of their token), and what is required."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: dict[Name, tuple[Name, ...]]
    purposes: dict[Purpose, Requirement]

    @field_validator("purposes")
    @classmethod
    def _can_be_met(
        cls, purposes: dict[Purpose, Requirement], info: ValidationInfo
    ) -> dict[Purpose, Requirement]:
        if missing := sorted(set(get_args(Purpose)) - purposes.keys()):
            raise ValueError(f"nothing is said about {', '.join(missing)}")
        groups = info.data.get("groups", {})
        for purpose, requirement in purposes.items():
            for group, count in requirement.quorum.items():
                if len(set(groups.get(group, ()))) < count:
                    raise ValueError(f"{purpose} needs {count} of {group}, which has fewer people")
        return purposes

    def has(self, group: str, person: str) -> bool:
        """Tell whether `person` belongs to `group`."""
        return person in self.groups.get(group, ())
