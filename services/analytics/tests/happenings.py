"""What happens in analytics' tests: short words for the events of other services."""

from datetime import datetime, timedelta
from typing import Any

from rapport.common.events.cases import (
    CaseClosed,
    CaseEscalated,
    CaseOpened,
    CaseReferred,
    CaseReopened,
    CaseResolved,
    FeedbackClassified,
    Subject,
)
from rapport.common.events.clocks import ClockBreached, ClockMet
from rapport.common.events.ids import random_id
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationFailed,
    NotificationSuppressed,
)
from rapport.common.testing import Harness

HOUR = timedelta(hours=1)


def about(**changes: Any) -> Subject:
    """A complaint about a kettle, unless something is changed."""
    usual = {
        "kind": "complaint",
        "channel": "email",
        "language": "en",
        "product": "kettle",
        "brand": "Homely",
        "region": "north",
        "complaint_type": "product_quality",
        "need": "material",
        "sentiment": "negative",
        "trust_cause": "none",
        "severity": "normal",
    }
    return Subject.model_validate(usual | changes)


def heard(
    case_id: str | None = None,
    *,
    rating: float | None = None,
    occurred_at: datetime | None = None,
    **changes: Any,
) -> FeedbackClassified:
    """A message that was assessed; `rating` is a share of its scale."""
    return FeedbackClassified(
        case_id=case_id or random_id(),
        feedback_id=random_id(),
        about=about(**changes),
        because={},
        rating=rating,
        occurred_at=occurred_at or datetime.fromisoformat("2026-03-02T08:00:00Z"),
    )


def praise(**changes: Any) -> FeedbackClassified:
    """A message that nothing is wrong with."""
    calm = {"kind": "praise", "sentiment": "positive", "complaint_type": "none", "need": "none"}
    return heard(**calm | changes)


def opened(case_id: str, **changes: Any) -> CaseOpened:
    return CaseOpened(
        case_id=case_id,
        feedback_id=random_id(),
        about=about(**changes),
        owner="ana",
        team="care",
        rule="default",
        occurred_at=datetime.fromisoformat("2026-03-02T08:00:00Z"),
    )


def resolved(
    case_id: str, opened_at: datetime, *, first_contact: bool = False, **changes: Any
) -> CaseResolved:
    return CaseResolved(
        case_id=case_id,
        by="ana",
        resolution="a new one",
        about=about(**changes),
        opened_at=opened_at,
        first_contact=first_contact,
    )


def closed(case_id: str, opened_at: datetime) -> CaseClosed:
    return CaseClosed(case_id=case_id, by="ana", about=about(), owner="ana", opened_at=opened_at)


def reopened(case_id: str) -> CaseReopened:
    return CaseReopened(case_id=case_id, by="ana", owner="ana", reason="again", about=about())


def escalated(case_id: str, level: int = 1) -> CaseEscalated:
    return CaseEscalated(
        case_id=case_id, owner="ana", to="lea", level=level, reason="overdue", about=about()
    )


def referred(case_id: str, return_by: datetime) -> CaseReferred:
    return CaseReferred(
        case_id=case_id, owner="ana", handler="legal", by="ana", reason="?", return_by=return_by
    )


def met(
    case_id: str,
    started_at: datetime,
    *,
    after: timedelta,
    within: timedelta = 4 * HOUR,
    channel: str | None = "email",
    clock: str = "first_response",
) -> ClockMet:
    """A clock that what it waited for ended, in time or not."""
    return ClockMet(
        **_clock(case_id, started_at, within, channel, clock),
        met_at=started_at + after,
        elapsed=after.total_seconds(),
        breached=after > within,
    )


def breached(
    case_id: str,
    started_at: datetime,
    *,
    within: timedelta = 4 * HOUR,
    channel: str | None = "email",
    clock: str = "first_response",
) -> ClockBreached:
    """A clock whose time was over."""
    return ClockBreached(**_clock(case_id, started_at, within, channel, clock))


def _clock(
    case_id: str, started_at: datetime, within: timedelta, channel: str | None, clock: str
) -> dict[str, Any]:
    return {
        "of": "case",
        "aggregate_id": case_id,
        "clock": clock,
        "started_at": started_at,
        "due_at": started_at + within,
        "policy": "hash",
        "channel": channel,
    }


def delivered(at: datetime, **changes: Any) -> NotificationDelivered:
    return NotificationDelivered(
        **_message(changes), delivered_at=at, attempts=1, receipt="250", language="en"
    )


def failed(**changes: Any) -> NotificationFailed:
    return NotificationFailed(**_message(changes), attempts=8, reason="timeout")


def suppressed(**changes: Any) -> NotificationSuppressed:
    return NotificationSuppressed(**_message(changes), reason="opted_out")


def _message(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "notification_id": random_id(),
        "communication_id": random_id(),
        "recipient": "somebody",
        "channel": "email",
        "purpose": "reply",
        **changes,
    }


async def items(analytics: Harness, **query: Any) -> list[dict[str, Any]]:
    """The periods that the API answers, each with its figures by name."""
    if "from_" in query:
        query["from"] = query.pop("from_")
    response = await analytics.call("GET", "/analytics/v1/kpis", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    for item in found:
        item["kpis"] = {figure["name"]: figure for figure in item["kpis"]}
    return found


async def figures(analytics: Harness, **query: Any) -> dict[str, Any]:
    """The figures of the one period that the API answers, by name."""
    [item] = await items(analytics, **query)
    found: dict[str, Any] = item["kpis"]
    return found
