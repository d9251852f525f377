"""Taking a submission in: what is added to it, and the event that tells of it.

The event is named like the feedback, so whoever sends the same once more tells the same once more.
A drill's names are derived apart: what it sends never meets what is real.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from rapport.common.events.envelope import Event
from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.vocabulary import Channel
from rapport.common.text import language_of
from rapport.intake.domain.identity import case_id, reference_of
from rapport.intake.domain.submission import Submission

OPEN_CHANNELS: Final = frozenset({Channel.APP_STORE, Channel.SOCIAL, Channel.FORUM, Channel.PRESS})
"""Where everybody can read along, unless the sender says otherwise."""


class Sender(NamedTuple):
    """Who sends: the client that the token names, and the drill that it takes part in, if any."""

    client: str
    exercise: str | None = None

    def scoped(self, name: str) -> str:
        """Return `name` as ids are derived from it: in a drill, together with the drill's."""
        return name if self.exercise is None else f"{self.exercise}\x1f{name}"


def admit(
    submission: Submission,
    feedback: str,
    sender: Sender,
    at: datetime,
    person: str | None = None,
) -> Event[FeedbackReceived]:
    """Return the event that `submission` came in `at` this time, under the id `feedback`.

    `person` is the id of whoever its contact points lead to.
    """
    case = case_id(sender.scoped(sender.client), submission, feedback)
    fields: dict[str, Any] = vars(submission) | {
        "feedback_id": feedback,
        "reference": reference_of(feedback),
        "case_id": case,
        "client": sender.client,
        "contact": Contact.model_validate(vars(submission.contact) | {"person": person}),
        "language": submission.language or language_of(submission.text or submission.subject or ""),
        "public": _is_public(submission),
        "occurred_at": submission.occurred_at or at,
        "received_at": at,
    }
    data = FeedbackReceived.model_validate(fields)
    return Event(
        id=feedback,
        source="/rapport/intake",
        type=data.TYPE,
        subject=feedback,
        time=at,
        data=data,
        partitionkey=case,
        correlationid=feedback,
        exercise=sender.exercise,
        historical=submission.historical,
    )


def _is_public(submission: Submission) -> bool:
    if submission.public is None:
        return submission.channel in OPEN_CHANNELS
    return submission.public
