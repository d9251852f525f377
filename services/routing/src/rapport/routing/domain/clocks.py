"""Clocks: what must happen until when, with a warning before, a breach then, and a step after.

How long a clock runs is policy: the first rule whose conditions hold. The times follow from the
start, the rule and its calendar alone, and a clock keeps the hash of the policy that it was started
under, so they can be worked out again from the event log, whatever the policy says by then.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rapport.common.aggregate import Due
from rapport.common.errors import Invalid
from rapport.common.events.cases import Subject
from rapport.common.events.clocks import (
    ClockBreached,
    ClockCancelled,
    ClockEvent,
    ClockMet,
    ClockStarted,
    ClockWarned,
)
from rapport.common.events.envelope import Instant
from rapport.common.events.vocabulary import Channel
from rapport.common.matching import Conditions
from rapport.routing.domain.calendars import AROUND_THE_CLOCK, Calendar, Calendars, due_at

E = TypeVar("E", bound=ClockEvent)

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?(min|h|d)")
_UNITS: Final = {
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_LONGEST: Final = timedelta(days=366)

PROMISE_WARNS_AT: Final = 0.75
"""The share of a promised time that passes before its clock warns."""


def _duration(value: Any) -> Any:
    """Read `15 min`, `4 h`, `2 d`; ISO 8601, as policies are kept, is left to pydantic."""
    text = str(value)
    if found := _DURATION.fullmatch(text):
        return float(found[1]) * _UNITS[found[2]]
    if isinstance(value, timedelta) or text.startswith("P"):
        return value
    raise ValueError("give a duration as 15 min, 4 h or 2 d")


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(), le=_LONGEST)]
"""A duration that people write with its unit; longer than nothing, at most 366 days."""


def _about_a_case(when: Conditions) -> Conditions:
    try:
        when.check_fields(Subject.model_fields)
    except Invalid as error:
        names = ", ".join(problem.pointer.strip("/") for problem in error.problems)
        raise ValueError(
            f"a case has no {names}; it has {', '.join(Subject.model_fields)}"
        ) from None
    return when


SubjectConditions = Annotated[Conditions, AfterValidator(_about_a_case)]
"""Conditions on the fields of `Subject`."""


class ClockRule(BaseModel):
    """How long something may take where `when` holds, in the working time of a calendar.

    Without a calendar the clock runs around the clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: SubjectConditions = Conditions({})
    within: Duration
    calendar: str | None = None

    @field_validator("calendar")
    @classmethod
    def _is_there(cls, name: str | None, info: ValidationInfo) -> str | None:
        if info.context is not None and name is not None and name not in info.context["calendars"]:
            raise ValueError(f"there is no calendar {name!r}")
        return name


class ClockRules(BaseModel):
    """How long one kind of clock runs: the first rule that holds wins; the last holds always."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn_at: Annotated[float, Field(gt=0, lt=1)] = 0.75
    rules: Annotated[tuple[ClockRule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _always_finds_one(self) -> Self:
        if self.rules[-1].when.root:
            raise ValueError("the last rule must hold always: leave out its `when`")
        return self

    def rule_for(self, about: Subject | Mapping[str, Any]) -> ClockRule:
        """Return the first rule that holds."""
        return next(rule for rule in self.rules if rule.when.hold(about))


ClockName = Literal["first_response", "holding_statement", "next_update"]


class Clocks(BaseModel):
    """The clocks, and how long other things may stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_response: ClockRules
    holding_statement: ClockRules
    handover_expires_after: Duration
    referral_returns_after: Duration
    resolved_closes_after: Duration


class Clock(BaseModel):
    """A clock that was started: it warns, it is breached at `due_at`, and is looked at again later.

    `again_at` is as long after the breach as the clock ran. `passed` counts the steps that came.
    """

    of: Literal["case", "crisis", "task"]
    aggregate_id: str
    clock: ClockName
    started_at: Instant
    warn_at: Instant
    due_at: Instant
    again_at: Instant
    policy: str
    channel: Channel | None = None
    passed: int = 0
    ended_at: Instant | None = None
    outcome: Literal["met", "cancelled"] | None = None

    @property
    def is_running(self) -> bool:
        """Whether what it waits for has neither happened nor been given up."""
        return self.outcome is None

    @property
    def state(self) -> Literal["running", "warned", "breached", "met", "cancelled"]:
        """How it stands."""
        if self.outcome is not None:
            return self.outcome
        if self.passed == 0:
            return "running"
        return "warned" if self.passed == 1 else "breached"

    @property
    def is_breached(self) -> bool:
        """Whether it ran, or has run, past its due time."""
        if self.outcome == "met" and self.ended_at is not None:
            return self.ended_at > self.due_at
        return self.passed >= 2

    def due(self) -> Iterator[Due]:
        """Name the steps that are to come."""
        if self.is_running:
            yield from self._steps()[self.passed :]

    def started(self, owner: str | None) -> ClockStarted:
        """Return the event of its start."""
        return self._told(ClockStarted, owner)

    def step(self, item: Due, owner: str | None) -> ClockWarned | ClockBreached | None:
        """Pass the step that fell due; return what it is called, None for the last."""
        self.passed = self._steps().index(item) + 1
        if self.passed == 1:
            return self._told(ClockWarned, owner)
        return self._told(ClockBreached, owner) if self.passed == 2 else None

    def meet(self, at: datetime, owner: str | None) -> ClockMet:
        """End it because what it waited for happened at `at`; after `due_at` that is a breach."""
        self.ended_at, self.outcome = at, "met"
        elapsed = max(0.0, (at - self.started_at).total_seconds())
        return self._told(ClockMet, owner, met_at=at, elapsed=elapsed, breached=self.is_breached)

    def cancel(self, at: datetime, owner: str | None, reason: str) -> ClockCancelled:
        """End it although what it waits for has not happened."""
        self.ended_at, self.outcome = at, "cancelled"
        return self._told(ClockCancelled, owner, reason=reason)

    def _steps(self) -> tuple[Due, Due, Due]:
        return (
            Due(f"{self.clock}.warn", self.warn_at),
            Due(f"{self.clock}.breach", self.due_at),
            Due(f"{self.clock}.again", self.again_at),
        )

    def _told(self, event: type[E], owner: str | None, **more: Any) -> E:
        return event(
            of=self.of,
            aggregate_id=self.aggregate_id,
            clock=self.clock,
            started_at=self.started_at,
            due_at=self.due_at,
            policy=self.policy,
            channel=self.channel,
            owner=owner,
            **more,
        )


class Timing(BaseModel):
    """All that due times follow from, as one policy with one hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clocks: Clocks
    calendars: Calendars

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what it says: what clocks pin."""
        return sha256(self.model_dump_json().encode()).hexdigest()

    def start(
        self,
        clock: ClockName,
        about: Subject | Mapping[str, Any],
        at: datetime,
        *,
        of: Literal["case", "crisis", "task"],
        aggregate_id: str,
        channel: Channel | None = None,
    ) -> Clock:
        """Return a clock that runs since `at` for something that is `about` this."""
        rules: ClockRules = getattr(self.clocks, clock)
        rule = rules.rule_for(about)
        calendar = self._calendar(rule.calendar)
        due = due_at(at, rule.within, calendar)
        return Clock(
            of=of,
            aggregate_id=aggregate_id,
            clock=clock,
            started_at=at,
            warn_at=due_at(at, rule.within * rules.warn_at, calendar),
            due_at=due,
            again_at=due_at(due, rule.within, calendar),
            policy=self.hash,
            channel=channel,
        )

    def promise(
        self,
        clock: ClockName,
        due: datetime,
        at: datetime,
        *,
        of: Literal["case", "crisis", "task"],
        aggregate_id: str,
    ) -> Clock:
        """Return a clock that runs since `at` until the moment that somebody promised."""
        runs = due - at
        return Clock(
            of=of,
            aggregate_id=aggregate_id,
            clock=clock,
            started_at=at,
            warn_at=at + runs * PROMISE_WARNS_AT,
            due_at=due,
            again_at=due + runs,
            policy=self.hash,
        )

    def _calendar(self, name: str | None) -> Calendar:
        return AROUND_THE_CLOCK if name is None else self.calendars.root[name]
