"""The story of the demo as data: who there is, what people say and do, and what must come of it.

A scenario is a YAML file that a reader can change (`scenario.yaml` is ours). Its chapters hold
steps: when, what, of which conversation or statement. Nothing in it says what the system does;
`expect` only says what the APIs must answer afterwards. Names are checked as the story goes on, so
a step that speaks of somebody unknown, or goes back in time, is a mistake with file and line.
"""

from datetime import UTC, date, datetime, time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from rapport.common.auth import ROLES
from rapport.common.errors import Invalid
from rapport.common.events.vocabulary import Channel, Kind, Language
from rapport.common.policy import parse_yaml
from rapport.knowledge.domain.articles import ArticleContent
from rapport.knowledge.domain.key_messages import KeyMessageContent
from rapport.notification.api import GroupBody, StakeholderBody, SubscriptionBody
from rapport.standalone.demo.steps import AnyStep, Clock, Name, SoFar, Told, introduced, not_before

OWN: Final = "scenario.yaml"
"""The scenario that comes with the demo."""


class Chapter(Told):
    """A part of the day."""

    title: str
    story: str = ""
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]


# Who there is


class Employee(Told):
    """Somebody who works here; the key is the subject of their token."""

    name: str
    roles: Annotated[tuple[Literal[ROLES], ...], Field(min_length=1)]  # type: ignore[valid-type]
    language: Language = Language.EN


# What was before


class Ordinary(Told):
    """Something that people often say, in each language; `{product}` stands for the product."""

    kind: Kind
    weight: Annotated[int, Field(ge=1)] = 1
    texts: Annotated[dict[Language, tuple[str, ...]], Field(min_length=1)]


class History(Told):
    """The weeks before: so many messages a day, drawn with a seed from what people often say."""

    days: Annotated[int, Field(ge=1, le=28)]
    per_day: Annotated[int, Field(ge=1, le=200)]
    seed: int
    products: Annotated[dict[Name, dict[Language, str]], Field(min_length=1)]
    regions: Annotated[dict[Language, str], Field(min_length=1)]
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    ordinary: Annotated[tuple[Ordinary, ...], Field(min_length=1)]


class Scenario(Told):
    """A day at a company; times are UTC."""

    company: str
    domain: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$", description="Of its e-mail.")]
    story: str
    day: date
    begins: Clock
    ends: Clock
    policies: dict[Name, str] = Field(default_factory=dict)
    people: Annotated[
        dict[Annotated[Name, AfterValidator(introduced("person"))], Employee], Field(min_length=1)
    ]
    groups: dict[Name, GroupBody]
    stakeholders: dict[Name, StakeholderBody]
    subscriptions: dict[Name, SubscriptionBody]
    articles: dict[Name, ArticleContent]
    key_messages: dict[
        Annotated[Name, AfterValidator(introduced("key message"))], KeyMessageContent
    ] = Field(default_factory=dict)
    history: History
    chapters: Annotated[tuple[Chapter, ...], Field(min_length=1)]

    @field_validator("begins")
    @classmethod
    def _starts_the_story(cls, begins: time, info: ValidationInfo) -> time:
        return not_before(begins, info)

    def moment(self, at: time) -> datetime:
        """Return a time of the day as a moment."""
        return datetime.combine(self.day, at, UTC)

    def name_of(self, person: str | None) -> str:
        """Return how somebody is called."""
        employee = self.people.get(person or "")
        return employee.name if employee is not None else person or "nobody"


def load(path: Path | None = None) -> Scenario:
    """Return the scenario in a file, or our own; raises Invalid with `file:line: field: reason`."""
    source = path if path is not None else files(__package__).joinpath(OWN)
    try:
        text = source.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: is not UTF-8 (byte {error.start})") from None
    return parse_yaml(text, Scenario, str(path or OWN), {"so_far": SoFar()})
