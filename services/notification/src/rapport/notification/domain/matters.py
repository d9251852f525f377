"""What an event is to those who are told of it: a name, a few words, what conditions match on.

`MATTERS` lists the events that can be subscribed to. A matter holds no personal data; only the
words of an alert may.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from rapport.common.events.analytics import (
    DigestCompiled,
    KpiTargetMissed,
    Series,
    SignalCleared,
    SignalDetected,
)
from rapport.common.events.cases import (
    CaseEscalated,
    CaseHandoverExpired,
    CaseHandoverOffered,
    CaseOpened,
    CaseOwnerChanged,
    CaseReferralReturned,
    CaseReferred,
    CaseReopened,
    Subject,
)
from rapport.common.events.clocks import ClockBreached, ClockEvent, ClockWarned
from rapport.common.events.crises import (
    CrisisDeclared,
    CrisisProposed,
    CrisisStandDownRefused,
    CrisisStoodDown,
    CrisisUpdated,
    Criteria,
)
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.knowledge import (
    StatementApproved,
    StatementRejected,
    StatementReleased,
    StatementSubmitted,
)

FIELDS: Final = frozenset(Subject.model_fields) | {"owner", "clock", "crisis_id", "purpose"}
"""What conditions of a subscription may name."""

TITLE: Final = 80
"""Characters of a text that a title shows."""

_REASONS: Final = ("excerpt", "reason", "outcome")


@dataclass(frozen=True, slots=True)
class Matter:
    """An event in the words of an alert; `about` is what conditions are matched against.

    `title` names what it is about; before that comes its `term`, of which there are words in each
    language (`topic.product_quality`). `reason` says why, by language or as one text.
    """

    event: str
    title: str
    about: Mapping[str, Any]
    term: str | None = None
    reason: str | Mapping[str, str] = ""
    severity: str | None = None
    owner: str | None = None
    due_at: datetime | None = None
    case_id: str | None = None
    crisis_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def event_name(event: type[EventData]) -> str:
    """Return how subscriptions name an event type: `case.opened`."""
    return name_of(event.TYPE)


def name_of(type: str) -> str:
    """Return how subscriptions name what events carry as their type."""
    return type.removeprefix("rapport.").removesuffix(".v1")


def matter_of(event: Event[EventData]) -> Matter | None:
    """Return what an event is to those who subscribe, None where nobody can."""
    tell = MATTERS.get(type(event.data))
    return tell(event.data) if tell is not None else None


def _case(data: Any) -> Matter:
    about: Subject | None = getattr(data, "about", None)
    names = (about.brand, about.product, about.region) if about else ()
    return Matter(
        event=event_name(type(data)),
        title=_names(*names, data.case_id),
        about={**(about.model_dump(mode="json") if about else {}), "owner": data.owner},
        term=_topic(about),
        reason=next(filter(None, (getattr(data, name, "") for name in _REASONS)), ""),
        severity=about.severity.value if about else None,
        owner=getattr(data, "to", None) or data.owner,
        due_at=getattr(data, "return_by", None) or getattr(data, "expires_at", None),
        case_id=data.case_id,
    )


def _handover_expired(data: Any) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title=data.case_id,
        about={"owner": data.returned_to},
        owner=data.returned_to,
        case_id=data.case_id,
    )


def _clock(data: ClockEvent) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title=data.aggregate_id,
        about={"clock": data.clock, "channel": data.channel, "owner": data.owner},
        term=f"clock.{data.clock}",
        owner=data.owner,
        due_at=data.due_at,
        case_id=data.aggregate_id if data.of == "case" else None,
        crisis_id=data.aggregate_id if data.of == "crisis" else None,
    )


def _crisis(data: Any) -> Matter:
    criteria: Criteria | None = getattr(data, "criteria", None)
    severity = getattr(data, "severity", None)
    text = getattr(data, "text", "")
    return Matter(
        event=event_name(type(data)),
        title=getattr(data, "title", None) or _short(text) or data.crisis_id,
        about={
            **(criteria.model_dump(mode="json") if criteria else {}),
            "crisis_id": data.crisis_id,
            "severity": severity.value if severity else None,
        },
        reason=getattr(data, "reasons", None) or getattr(data, "reason", "") or text,
        severity=severity.value if severity else None,
        owner=getattr(data, "by", None),
        due_at=getattr(data, "next_update_at", None),
        crisis_id=data.crisis_id,
    )


def _proposal(data: CrisisProposed) -> Matter:
    """What a signal proposes has no title of somebody's, but what stands out."""
    matter, matters = _crisis(data), data.criteria
    if data.signal_id is None:
        return matter
    return replace(matter, title=_names(matters.brand, matters.product), term=_topic(matters))


def _signal(data: SignalDetected | SignalCleared) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title=_names(data.series.brand, data.series.product),
        about=data.series.model_dump(mode="json"),
        term=_topic(data.series),
        reason=data.reason if isinstance(data, SignalDetected) else "",
    )


def _statement(data: Any) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title=data.statement_id,
        about={"purpose": data.purpose, "crisis_id": data.crisis_id},
        term=f"purpose.{data.purpose}",
        reason=getattr(data, "reason", ""),
        owner=getattr(data, "by", None),
        crisis_id=data.crisis_id,
    )


def _target_missed(data: KpiTargetMissed) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title="",
        about={},
        term=f"kpi.{data.kpi}",
        reason=f"{data.value:.3g} / {data.target:.3g} (n = {data.n})",
    )


def _digest(data: DigestCompiled) -> Matter:
    return Matter(
        event=event_name(type(data)),
        title=data.digest,
        about={},
        data=data.model_dump(mode="json"),
    )


def _short(text: str) -> str:
    line = " ".join(text[: 2 * TITLE].split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1]}…"


def _names(*names: str | None) -> str:
    return " / ".join(map(_short, filter(None, names)))


def _topic(about: Subject | Series | Criteria | None) -> str | None:
    return f"topic.{about.complaint_type}" if about and about.complaint_type else None


MATTERS: Final[dict[type[EventData], Callable[[Any], Matter]]] = {
    CaseOpened: _case,
    CaseReopened: _case,
    CaseEscalated: _case,
    CaseOwnerChanged: _case,
    CaseReferred: _case,
    CaseReferralReturned: _case,
    CaseHandoverOffered: _case,
    CaseHandoverExpired: _handover_expired,
    ClockWarned: _clock,
    ClockBreached: _clock,
    CrisisProposed: _proposal,
    CrisisDeclared: _crisis,
    CrisisUpdated: _crisis,
    CrisisStandDownRefused: _crisis,
    CrisisStoodDown: _crisis,
    SignalDetected: _signal,
    SignalCleared: _signal,
    StatementSubmitted: _statement,
    StatementApproved: _statement,
    StatementRejected: _statement,
    StatementReleased: _statement,
    KpiTargetMissed: _target_missed,
    DigestCompiled: _digest,
}
"""The events that can be subscribed to, and how each is told."""

EVENTS: Final = frozenset(event_name(kind) for kind in MATTERS)
"""What can be subscribed to, by name."""

DIGEST_ONLY: Final = frozenset({event_name(StatementReleased)})
"""What no alert tells of: a statement goes to whom it concerns by itself."""
