"""Clock events: they travel on the topic of the aggregate that the clock belongs to.

A clock names what must happen until when (`first_response`, `holding_statement`, `next_update`).
Its due time follows from its start, its policy and the policy's calendar; the policy's hash is
pinned at the start, so due times can be rebuilt from the log.
"""

from typing import Literal

from rapport.common.events.envelope import EventData, Instant, event
from rapport.common.events.vocabulary import Channel


class ClockEvent(EventData):
    """What every clock event carries: whose clock, which, from when until when, by which policy."""

    of: Literal["case", "crisis", "task"]
    aggregate_id: str
    clock: str
    started_at: Instant
    due_at: Instant
    policy: str
    channel: Channel | None = None
    owner: str | None = None


@event("rapport.clock.started.v1")
class ClockStarted(ClockEvent):
    """A clock runs from now on."""


@event("rapport.clock.warned.v1")
class ClockWarned(ClockEvent):
    """The policy's share (three quarters by default) of a clock's time has passed."""


@event("rapport.clock.breached.v1")
class ClockBreached(ClockEvent):
    """A clock's due time has passed and what it waits for has not happened."""


@event("rapport.clock.met.v1")
class ClockMet(ClockEvent):
    """What a clock waited for has happened, `elapsed` seconds of wall time after its start."""

    met_at: Instant
    elapsed: float
    breached: bool


@event("rapport.clock.cancelled.v1")
class ClockCancelled(ClockEvent):
    """A clock was ended without its matter; `reason` says why."""

    reason: str
