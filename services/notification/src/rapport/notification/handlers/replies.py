"""Replies: an owner's answer to one person, sent, or recorded where it was given elsewhere."""

from collections.abc import Sequence
from typing import Any, Final

from rapport.common.events.cases import CaseReplyRequested
from rapport.common.events.envelope import Event
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Wording
from rapport.common.handling import Declared, on
from rapport.notification.channels.rendering import Renderer, Reply
from rapport.notification.domain.communications import Communication, Target
from rapport.notification.resources import Resources


async def templates(events: Sequence[Event[Any]], notification: Resources) -> Renderer:
    """Give replies their template."""
    return notification.renderer


@on(
    CaseReplyRequested,
    changes=Communication,
    key=lambda event: derived_id("reply", event.data.reply_id),
    prepare=templates,
)
def reply(
    communication: Communication | None, event: Event[CaseReplyRequested], renderer: Renderer
) -> Communication | None:
    """Send an owner's answer to the person, or record one that was given elsewhere."""
    if communication is not None:
        return None
    told = event.data
    words = renderer.render(
        "reply",
        told.language,
        Reply(subject=told.subject, text=told.text, reference=told.case_id),
    )
    made = Communication(
        id=derived_id("reply", told.reply_id),
        purpose="reply",
        wordings={told.language: Wording(subject=words.subject, text=words.text)},
        case_id=told.case_id,
        reply_id=told.reply_id,
        in_reply_to=told.in_reply_to,
        planned_at=event.time,
    ).planned()
    address = told.contact.email if told.via == "email" else None
    recipient = told.contact.person or told.case_id
    made.request([Target(recipient, told.via, address or "", told.language)])
    return made


DECLARED: Final[list[Declared]] = [reply]
