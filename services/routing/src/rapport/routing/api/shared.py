"""What cases and crises over HTTP have in common: bodies, texts, clocks, resources."""

from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapport.common.events.envelope import Instant
from rapport.common.text import one_line, paragraphs
from rapport.routing.domain.clocks import Clock
from rapport.routing.repository import Resources


def resources(request: Request) -> Resources:
    """Dependency: what routing works with."""
    found: Resources = request.app.state.resources
    return found


Routing = Annotated[Resources, Depends(resources)]


Text = Annotated[str, AfterValidator(paragraphs), Field(min_length=1, max_length=20_000)]
"""A text of one or many paragraphs."""

Line = Annotated[str, AfterValidator(one_line), Field(max_length=500)]
"""A reason, a subject, a title: one line, which may be empty."""

Name = Annotated[str, AfterValidator(one_line), Field(min_length=1, max_length=100)]
"""The name of a person or a team."""


class Body(BaseModel):
    """A request's body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class ClockView(BaseModel):
    """A clock: what must happen until when, and how that stands."""

    clock: str
    state: Literal["running", "warned", "breached", "met", "cancelled"]
    breached: bool
    started_at: Instant
    due_at: Instant
    ended_at: Instant | None
    policy: str


def clock_view(clock: Clock) -> ClockView:
    """Return what is shown of a clock."""
    return ClockView(
        clock=clock.clock,
        state=clock.state,
        breached=clock.is_breached,
        started_at=clock.started_at,
        due_at=clock.due_at,
        ended_at=clock.ended_at,
        policy=clock.policy,
    )
