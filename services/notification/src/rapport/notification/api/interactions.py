"""The communication log over HTTP: every contact with somebody is on record."""

from typing import Annotated, Literal

from pydantic import Field

from rapport.common.events.envelope import Instant
from rapport.common.events.ids import derived_id
from rapport.common.http import Command, Cursor, Limit, Router, command, may
from rapport.notification.api.shared import Body, Id, Line, Listed, Notifying, Text, given, listed
from rapport.notification.domain.log import Interaction

router = Router(tags=["interactions"])


class InteractionBody(Body):
    """A contact to put on record."""

    stakeholder: Id
    direction: Literal["in", "out"]
    channel: Line
    purpose: Line
    occurred_at: Instant
    outcome: Line
    follow_up: Line | None = None
    case_id: Id | None = None
    summary: Annotated[Text, Field(max_length=5000)] = ""


class InteractionView(InteractionBody):
    """A contact on record."""

    id: str
    by: str | None
    notification_id: str | None


def _shown(item: Interaction) -> InteractionView:
    return InteractionView(**{name: getattr(item, name) for name in InteractionView.model_fields})


@router.post("/interactions", status_code=201, summary="Put a contact on record")
async def post_interaction(
    body: InteractionBody, cmd: Annotated[Command, command("interaction.write")]
) -> InteractionView:
    """Sent messages are recorded by themselves; this is for calls, meetings, letters."""
    id = derived_id("interaction", cmd.cause)

    def decide(current: Interaction | None) -> Interaction | None:
        if current is not None:
            return None
        return Interaction(id=id, by=cmd.by.subject, **body.model_dump()).recorded()

    return _shown(await cmd.change(Interaction, id, decide))


@router.get(
    "/interactions",
    summary="List contacts, newest first",
    dependencies=[may("stakeholder.read")],
)
async def list_interactions(
    notification: Notifying,
    stakeholder: Id | None = None,
    case_id: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[InteractionView]:
    """With one stakeholder, about one case, or both."""
    where = given(stakeholder=stakeholder, case_id=case_id)
    found = await notification.store.find(
        Interaction, where, limit=limit, cursor=cursor, newest_first=True
    )
    return listed(found, _shown)
