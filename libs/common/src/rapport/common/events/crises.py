"""Topic rapport.crises: from a signal to the stand-down."""

from typing import Literal

from pydantic import Field, model_validator

from rapport.common.events.cases import Subject
from rapport.common.events.envelope import EventData, Instant, Value, event
from rapport.common.events.topics import CRISES
from rapport.common.events.vocabulary import ComplaintType, Severity


class Criteria(Value):
    """Which cases belong to a crisis; a field that is None matches every case, one must be given.

    `since` is the first moment of the matter: cases that say they happened before do not belong.
    """

    product: str | None = None
    brand: str | None = None
    complaint_type: ComplaintType | None = None
    region: str | None = None
    since: Instant | None = None

    @model_validator(mode="after")
    def _names_something(self) -> "Criteria":
        if not any((self.product, self.brand, self.complaint_type, self.region)):
            raise ValueError("criteria must name a product, brand, complaint type or region")
        return self

    def match(self, about: Subject, occurred_at: Instant) -> bool:
        """Tell whether a case about this, at this time, belongs to the crisis."""
        wanted = (self.product, self.brand, self.complaint_type, self.region)
        given = (about.product, about.brand, about.complaint_type, about.region)
        return all(
            want is None or want == have for want, have in zip(wanted, given, strict=True)
        ) and (self.since is None or occurred_at >= self.since)


class Coverage(Value):
    """How far a crisis's statements have reached the persons linked to it (A1, A2 of MISSION).

    `missing` persons are linked, have not opted out, and lack a delivered holding statement;
    `without_closing` have a holding statement and no closing statement queued; `unreachable` have
    no address that anything could be sent to and are counted apart.
    """

    linked: int = 0
    delivered: int = 0
    opted_out: int = 0
    unreachable: int = 0
    missing: int = 0
    without_closing: int = 0


class CrisisEvent(EventData):
    """What every crisis event carries."""

    crisis_id: str


@event("rapport.crisis.proposed.v1", CRISES)
class CrisisProposed(CrisisEvent):
    """A signal, or somebody, says that this may be a crisis.

    `reasons` is a signal's reason by language; what somebody wrote is in `reason` alone.
    """

    title: str
    criteria: Criteria
    reason: str
    severity: Severity
    signal_id: str | None = None
    by: str | None = None
    reasons: dict[str, str] = Field(default_factory=dict)


@event("rapport.crisis.dismissed.v1", CRISES)
class CrisisDismissed(CrisisEvent):
    """Somebody decided that this is no crisis."""

    by: str
    reason: str


@event("rapport.crisis.declared.v1", CRISES)
class CrisisDeclared(CrisisEvent):
    """It is a crisis; from now on cases that match the criteria link themselves."""

    title: str
    criteria: Criteria
    severity: Severity
    by: str
    declared_at: Instant


@event("rapport.crisis.link_requested.v1", CRISES, key="case_id")
class CrisisLinkRequested(CrisisEvent):
    """A stored case matches a crisis and shall link itself."""

    case_id: str


@event("rapport.crisis.updated.v1", CRISES)
class CrisisUpdated(CrisisEvent):
    """An entry in the crisis log: an update for everyone concerned, or a decision on record."""

    entry: Literal["update", "decision"]
    by: str
    text: str
    next_update_at: Instant | None = None
    title: str = ""


@event("rapport.crisis.stand_down_requested.v1", CRISES)
class CrisisStandDownRequested(CrisisEvent):
    """Somebody asks to end the crisis; the coverage decides."""

    request_id: str
    by: str


@event("rapport.crisis.stood_down.v1", CRISES)
class CrisisStoodDown(CrisisEvent):
    """The crisis is over: everyone who got a holding statement has a closing one."""

    by: str
    coverage: Coverage
    title: str = ""


@event("rapport.crisis.stand_down_refused.v1", CRISES)
class CrisisStandDownRefused(CrisisEvent):
    """The crisis goes on: people would be left without a closing statement.

    `reasons` says so by language.
    """

    request_id: str
    by: str
    coverage: Coverage
    reason: str
    title: str = ""
    reasons: dict[str, str] = Field(default_factory=dict)


@event("rapport.crisis.reviewed.v1", CRISES)
class CrisisReviewed(CrisisEvent):
    """The post-incident review is on record."""

    by: str
    text: str
