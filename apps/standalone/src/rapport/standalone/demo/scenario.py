"""The story of the demo as data: who there is, what people say and do, and what must come of it.

A scenario is a YAML file that a reader can change (`scenario.yaml` is ours). Its chapters hold
steps: when, what, of which conversation or statement. Nothing in it says what the system does;
`expect` only says what the APIs must answer afterwards. Names are checked as the story goes on,
so a step that speaks of somebody unknown, or goes back in time, is a mistake with file and line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from rapport.common.auth import ROLES
from rapport.common.errors import Invalid
from rapport.common.events.knowledge import Purpose, Wording
from rapport.common.events.vocabulary import Channel, Kind, Language, Severity
from rapport.common.matching import Conditions
from rapport.common.policy import parse_yaml
from rapport.intake.domain.submission import Submission
from rapport.knowledge.domain.articles import ArticleContent
from rapport.knowledge.domain.key_messages import KeyMessageContent
from rapport.notification.api import GroupBody, StakeholderBody, SubscriptionBody

OWN: Final = "scenario.yaml"
"""The scenario that comes with the demo."""


@dataclass
class SoFar:
    """What a story has introduced up to the step that is being read."""

    names: dict[str, set[str]] = field(
        default_factory=lambda: {"person": set(), "conversation": set(), "statement": set()}
    )
    now: time = time.min


def _so_far(info: ValidationInfo) -> SoFar:
    context: Mapping[str, SoFar] = info.context or {}
    return context.get("so_far", SoFar())


def _known(kind: str) -> Callable[[str, ValidationInfo], str]:
    def check(name: str, info: ValidationInfo) -> str:
        if name not in _so_far(info).names[kind]:
            raise ValueError(f"there is no {kind} {name!r} so far")
        return name

    return check


def _introduced(kind: str) -> Callable[[str, ValidationInfo], str]:
    def note(name: str, info: ValidationInfo) -> str:
        _so_far(info).names[kind].add(name)
        return name

    return note


def _in_quotes(value: object) -> object:
    if not isinstance(value, str | time):
        raise ValueError('write a time in quotes, like "08:15"')
    return value


def _not_before(at: time, info: ValidationInfo) -> time:
    story = _so_far(info)
    if at < story.now:
        raise ValueError(f"lies before the step above it, at {story.now:%H:%M}")
    story.now = at
    return at


Name = Annotated[str, Field(min_length=1, max_length=60)]
Person = Annotated[Name, AfterValidator(_known("person"))]
Known = Annotated[Name, AfterValidator(_known("conversation"))]
Heard = Annotated[Name, AfterValidator(_introduced("conversation"))]
Drafted = Annotated[Name, AfterValidator(_introduced("statement"))]
Statement = Annotated[Name, AfterValidator(_known("statement"))]
Clock = Annotated[time, BeforeValidator(_in_quotes)]


class Told(BaseModel):
    """Base of all that a scenario tells: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# What people do


class Step(Told):
    """Something that somebody does.

    `expect` has conditions on what the API shows afterwards, by path (`about.severity`); `refused`
    is the HTTP status that the step must be refused with.
    """

    at: Annotated[Clock, AfterValidator(_not_before)]
    who: Person | None = None
    expect: Conditions = Conditions({})
    refused: int | None = None


class Hear(Step):
    """A message comes in; one of a conversation that is known joins it."""

    do: Literal["hear"]
    case: Heard
    feedback: Submission


class CaseStep(Step):
    """Somebody, the owner where nobody is named, works on a case."""

    PATH: ClassVar[str]
    case: Known

    @property
    def body(self) -> dict[str, Any]:
        """What the API is sent: the fields of the step's own."""
        return self.model_dump(mode="json", exclude={*CaseStep.model_fields, "do"})


class Accept(CaseStep):
    """The owner takes the case on."""

    PATH = "acceptance"
    do: Literal["accept"]


class Reply(CaseStep):
    """The person is answered: by e-mail, or `elsewhere` (by phone, in the same chat)."""

    PATH = "replies"
    do: Literal["reply"]
    text: str
    via: Literal["email", "elsewhere"] = "email"


class Refer(CaseStep):
    """Another team shall help; the owner stays the owner."""

    PATH = "referral"
    do: Literal["refer"]
    to: Name
    reason: str


class Return(CaseStep):
    """A referred case comes back to its owner."""

    PATH = "referral/return"
    do: Literal["return"]
    outcome: str


class Offer(CaseStep):
    """Somebody else is asked to become the owner."""

    PATH = "handover"
    do: Literal["offer"]
    to: Person
    reason: str


class Decline(CaseStep):
    """Who was asked says no."""

    PATH = "handover/decline"
    do: Literal["decline"]
    reason: str


class Resolve(CaseStep):
    """A solution was found and told."""

    PATH = "resolution"
    do: Literal["resolve"]
    resolution: str


class Suggest(Step):
    """The owner looks for what the knowledge base suggests for a case; `finds` must be there."""

    do: Literal["suggest"]
    case: Known
    finds: tuple[Name, ...]


class ClearDesks(Step):
    """Every owner answers what waits for an answer with `text`, or resolves what is in work."""

    do: Literal["clear desks"]
    text: dict[Language, str] = Field(default_factory=dict)
    resolution: str | None = None


class Publish(Step):
    """PR publishes a key message of the scenario."""

    do: Literal["publish"]
    key_message: Name


class Check(Step):
    """Nobody does anything: the case, or where none is named the crisis, is as expected."""

    do: Literal["check"]
    case: Known | None = None


class Received(Step):
    """Nobody does anything: somebody outside got a message that `mentions` something.

    `times` is how often; at least once where it is not given.
    """

    do: Literal["received"]
    channel: Literal["email", "webhook", "stream"]
    to: str
    mentions: str
    times: int | None = None


class CrisisStep(Step):
    """Somebody leads the crisis that was proposed last."""

    PATH: ClassVar[str]
    who: Person

    @property
    def body(self) -> dict[str, Any]:
        """What the API is sent: the fields of the step's own."""
        return self.model_dump(
            mode="json", exclude={*CrisisStep.model_fields, "do"}, exclude_none=True
        )


class Declare(CrisisStep):
    """It is a crisis."""

    PATH = "declaration"
    do: Literal["declare"]
    title: str | None = None
    severity: Severity | None = None


class Decide(CrisisStep):
    """A decision goes on record."""

    PATH = "decisions"
    do: Literal["decide"]
    text: str


class Update(CrisisStep):
    """How it stands, and when the next update is promised."""

    PATH = "updates"
    do: Literal["update"]
    text: str
    next_update_at: Clock | None = None


class Link(CrisisStep):
    """A case belongs to the crisis that its criteria do not find."""

    PATH = "cases"
    do: Literal["link"]
    case: Known


class StandDown(CrisisStep):
    """The end of the crisis is asked for; the coverage decides."""

    PATH = "stand-down"
    do: Literal["stand down"]


class Review(CrisisStep):
    """What was learned goes on record."""

    PATH = "review"
    do: Literal["review"]
    text: str


class Draft(Step):
    """A statement is written: first the source, then its translations, which name its hash."""

    do: Literal["draft"]
    who: Person
    statement: Drafted
    purpose: Purpose
    groups: tuple[Name, ...] = ()
    source_language: Language = Language.EN
    wordings: dict[Language, Wording]


class StatementStep(Step):
    """Somebody moves a statement on its way."""

    who: Person
    statement: Statement


class Submit(StatementStep):
    """Approval is asked for: the bytes are fixed."""

    do: Literal["submit"]


class Approve(StatementStep):
    """Somebody agrees, for a group, to exactly these bytes."""

    do: Literal["approve"]
    group: Name


class Release(StatementStep):
    """The statement goes out."""

    do: Literal["release"]


class Count(Step):
    """Nobody does anything: who got the statement is counted, at the receivers and in the APIs."""

    do: Literal["count"]
    statement: Statement


AnyStep = Annotated[
    Hear
    | Accept
    | Reply
    | Refer
    | Return
    | Offer
    | Decline
    | Resolve
    | Suggest
    | ClearDesks
    | Publish
    | Check
    | Received
    | Declare
    | Decide
    | Update
    | Link
    | StandDown
    | Review
    | Draft
    | Submit
    | Approve
    | Release
    | Count,
    Field(discriminator="do"),
]


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
    story: str
    day: date
    begins: Clock
    ends: Clock
    policies: dict[Name, str] = Field(default_factory=dict)
    people: Annotated[
        dict[Annotated[Name, AfterValidator(_introduced("person"))], Employee], Field(min_length=1)
    ]
    groups: dict[Name, GroupBody]
    stakeholders: dict[Name, StakeholderBody]
    subscriptions: dict[Name, SubscriptionBody]
    articles: dict[Name, ArticleContent]
    key_messages: dict[Name, KeyMessageContent] = Field(default_factory=dict)
    history: History
    chapters: Annotated[tuple[Chapter, ...], Field(min_length=1)]

    @field_validator("begins")
    @classmethod
    def _starts_the_story(cls, begins: time, info: ValidationInfo) -> time:
        return _not_before(begins, info)

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
