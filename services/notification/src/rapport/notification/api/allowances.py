"""Allowances over HTTP: how much somebody got, and how much was held back."""

from datetime import datetime

from pydantic import BaseModel

from rapport.common.events.notifications import NotificationChannel
from rapport.common.http import Cursor, Limit, Router, may
from rapport.notification.api.shared import Id, Listed, Notifying, given, listed
from rapport.notification.domain.allowances import Allowance

router = Router(tags=["notifications"])


class AllowanceView(BaseModel):
    """What one recipient got through one channel of what is limited, and what was held back.

    `admitted` and `held_back` count all there ever were; of the latter, the recipient is told of
    `untold` (by event) at `summary_at`.
    """

    id: str
    recipient: str
    channel: NotificationChannel
    admitted: int
    held_back: int
    untold: dict[str, int]
    untold_since: datetime | None
    summary_at: datetime | None


def _shown(item: Allowance) -> AllowanceView:
    return AllowanceView(**{name: getattr(item, name) for name in AllowanceView.model_fields})


@router.get(
    "/allowances",
    summary="List how much recipients got, and how much was held back",
    dependencies=[may("communication.read")],
)
async def list_allowances(
    notification: Notifying,
    recipient: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[AllowanceView]:
    """Of a recipient or of all; of those only to whom anything limited was to be sent."""
    where = given(recipient=recipient)
    found = await notification.store.find(Allowance, where, limit=limit, cursor=cursor)
    return listed(found, _shown)
