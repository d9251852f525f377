"""Communications over HTTP: what was said to whom, and how far it has come."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.crises import Coverage
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Wording
from rapport.common.events.vocabulary import Language
from rapport.common.http import Command, Cursor, Limit, Router, command, may
from rapport.notification import repository
from rapport.notification.api.shared import (
    Body,
    Id,
    Line,
    Listed,
    Notifying,
    Text,
    existing,
    given,
    listed,
)
from rapport.notification.domain.communications import Communication, Stage
from rapport.notification.domain.notifications import Notification, State

router = Router(tags=["communications"])


class WordingBody(Body):
    """A subject line and a text in one language."""

    subject: Annotated[Line, Field(min_length=1)]
    text: Annotated[Text, Field(min_length=1)]


class CommunicationBody(Body):
    """Something to say to groups, in any of the languages."""

    groups: Annotated[tuple[Id, ...], Field(min_length=1, max_length=50)]
    wordings: Annotated[dict[Language, WordingBody], Field(min_length=1)]


class CommunicationView(BaseModel):
    """A communication; `stage` tells how far it has been expanded."""

    id: str
    purpose: CommunicationPurpose
    groups: Sequence[str]
    crisis_id: str | None
    case_id: str | None
    statement_id: str | None
    statement_purpose: str | None
    statement_hash: str | None
    planned_at: datetime
    stage: Stage
    requested: int


def _shown(item: Communication) -> CommunicationView:
    return CommunicationView(
        **{name: getattr(item, name) for name in CommunicationView.model_fields}
    )


@router.post("/communications", status_code=201, summary="Say something to stakeholder groups")
async def post_communication(
    body: CommunicationBody, cmd: Annotated[Command, command("communication.write")]
) -> CommunicationView:
    """Planned, then expanded page by page; each member gets it once."""
    id = derived_id("communication", cmd.cause)
    wordings = {
        language: Wording(subject=words.subject, text=words.text)
        for language, words in body.wordings.items()
    }

    def decide(current: Communication | None) -> Communication | None:
        if current is not None:
            return None
        return Communication(
            id=id,
            purpose="alert",
            wordings=wordings,
            groups=body.groups,
            planned_at=cmd.at,
            stage="groups",
            step_at=cmd.at,
        ).planned()

    return _shown(await cmd.change(Communication, id, decide))


@router.get(
    "/communications",
    summary="List communications, newest first",
    dependencies=[may("communication.read")],
)
async def list_communications(
    notification: Notifying,
    purpose: CommunicationPurpose | None = None,
    crisis_id: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[CommunicationView]:
    """Of one purpose, of one crisis, or both."""
    where = given(purpose=purpose, crisis_id=crisis_id)
    found = await notification.store.find(
        Communication, where, limit=limit, cursor=cursor, newest_first=True
    )
    return listed(found, _shown)


@router.get(
    "/communications/{id}",
    summary="Show a communication",
    dependencies=[may("communication.read")],
)
async def get_communication(id: Id, notification: Notifying) -> CommunicationView:
    """Without its words."""
    return _shown(await existing(notification.store, Communication, id))


class CoverageView(BaseModel):
    """How far a communication has come (A1): its notifications by state, and, for a crisis
    statement, the coverage of the persons linked to the crisis."""

    notifications: dict[State, int]
    crisis: Coverage | None


@router.get(
    "/communications/{id}/coverage",
    summary="Who has received it, in numbers",
    dependencies=[may("communication.read")],
)
async def get_coverage(id: Id, notification: Notifying) -> CoverageView:
    """Counted now."""
    item = await existing(notification.store, Communication, id)
    tallies = await notification.store.tally(
        Notification, ("state",), {"communication_id": item.id}
    )
    crisis = (
        await repository.coverage(notification.store, item.crisis_id, item.exercise)
        if item.crisis_id
        else None
    )
    return CoverageView(
        notifications={tally.group[0]: tally.count for tally in tallies}, crisis=crisis
    )
