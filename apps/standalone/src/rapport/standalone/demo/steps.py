"""What people do in a story, step by step: the words that a scenario is written in.

A step that names a conversation, a statement or somebody who works here is checked against what the
story has introduced so far, and so is its time: `SoFar` is handed through while a scenario is read.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from rapport.common.events.knowledge import Purpose, Wording
from rapport.common.events.vocabulary import Language, Severity
from rapport.common.matching import Conditions
from rapport.intake.domain.submission import Submission


@dataclass
class SoFar:
    """The names that a story has introduced up to the step that is being read, and its time."""

    names: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
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


def introduced(kind: str) -> Callable[[str, ValidationInfo], str]:
    def note(name: str, info: ValidationInfo) -> str:
        _so_far(info).names[kind].add(name)
        return name

    return note


def _in_quotes(value: object) -> object:
    if not isinstance(value, str | time):
        raise ValueError('write a time in quotes, like "08:15"')
    return value


def not_before(at: time, info: ValidationInfo) -> time:
    story = _so_far(info)
    if at < story.now:
        raise ValueError(f"lies before the step above it, at {story.now:%H:%M}")
    story.now = at
    return at


Name = Annotated[str, Field(min_length=1, max_length=60)]
Person = Annotated[Name, AfterValidator(_known("person"))]
Known = Annotated[Name, AfterValidator(_known("conversation"))]
Heard = Annotated[Name, AfterValidator(introduced("conversation"))]
Drafted = Annotated[Name, AfterValidator(introduced("statement"))]
Statement = Annotated[Name, AfterValidator(_known("statement"))]
Clock = Annotated[time, BeforeValidator(_in_quotes)]


class Told(BaseModel):
    """Base of all that a scenario tells: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Told):
    """Something that somebody does.

    `expect` has conditions on what the API shows afterwards, by path (`about.severity`); `refused`
    is the HTTP status that the step must be refused with.
    """

    at: Annotated[Clock, AfterValidator(not_before)]
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
    key_message: Annotated[Name, AfterValidator(_known("key message"))]


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
