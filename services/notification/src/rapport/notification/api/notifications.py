"""Notifications over HTTP: one message to one recipient, and what became of it."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel

from rapport.common.errors import NotFound
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.notifications import NotificationChannel
from rapport.common.events.vocabulary import Language
from rapport.common.http import Command, Cursor, Limit, Router, command, may
from rapport.notification.api.shared import Id, Listed, Notifying, given, listed
from rapport.notification.domain.notifications import Notification, State

router = Router(tags=["notifications"])


class NotificationView(BaseModel):
    """A message to one recipient, without its words and address."""

    id: str
    communication_id: str
    recipient: str
    channel: NotificationChannel
    purpose: CommunicationPurpose
    crisis_id: str | None
    case_id: str | None
    statement_purpose: str | None
    statement_hash: str | None
    language: Language
    state: State
    attempts: int
    reason: str | None
    receipt: str | None
    requested_at: datetime
    finished_at: datetime | None
    acknowledged_by: str | None


def _shown(item: Notification) -> NotificationView:
    return NotificationView(**{name: getattr(item, name) for name in NotificationView.model_fields})


@router.get(
    "/notifications",
    summary="List notifications, newest first",
    dependencies=[may("communication.read")],
)
async def list_notifications(
    notification: Notifying,
    communication_id: Id | None = None,
    recipient: Id | None = None,
    crisis_id: Id | None = None,
    state: State | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[NotificationView]:
    """Of a communication (and a state), or of a recipient, a crisis or a state."""
    where = given(
        communication_id=communication_id, recipient=recipient, crisis_id=crisis_id, state=state
    )
    found = await notification.store.find(
        Notification, where, limit=limit, cursor=cursor, newest_first=True
    )
    return listed(found, _shown)


@router.post("/notifications/{id}/acknowledgement", summary="Confirm a delivered message")
async def acknowledge(
    id: Id, cmd: Annotated[Command, command("notification.acknowledge")]
) -> NotificationView:
    """Once; a repeat changes nothing."""

    def decide(current: Notification | None) -> Notification:
        if current is None:
            raise NotFound("there is no such notification")
        current.acknowledge(cmd.by.subject)
        return current

    return _shown(await cmd.change(Notification, id, decide))
