"""Taking a submission in: what is added to it, and the event that tells of it.

The event is named like the feedback, so whoever sends the same once more tells the same once more.
A drill's names are derived apart: what it sends never meets what is real.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from rapport.common.events.envelope import Event, Value
from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.vocabulary import Channel, Language
from rapport.common.text import language_of
from rapport.intake.domain.identity import case_id, reference_of
from rapport.intake.domain.submission import Submission

V = TypeVar("V", bound=Value)

OPEN_CHANNELS: Final = (Channel.APP_STORE, Channel.SOCIAL, Channel.FORUM, Channel.PRESS)
"""Where everybody can read along, unless the sender says otherwise."""

_LANGUAGES: Final = {language.value: language for language in Language}
_FIELDS: Final[dict[type[Value], set[str]]] = {
    kind: set(kind.model_fields) for kind in (Contact, FeedbackReceived)
}
_set: Final = object.__setattr__


class Sender(NamedTuple):
    """Who sends: the client that the token names, and the drill that it takes part in, if any.

    `source` is the system that stands for a client where there is no token: on the bus.
    """

    client: str
    exercise: str | None = None
    source: str | None = None

    @property
    def scope(self) -> str:
        """Whose references are meant: those of a client, of a source and of a drill never meet."""
        return self.scoped(self.client if self.source is None else f"\x1f{self.source}")

    def scoped(self, name: str) -> str:
        """Return `name` as ids are derived from it: in a drill, together with the drill's."""
        return name if self.exercise is None else f"{self.exercise}\x1f{name}"


def admit(
    submission: Submission,
    feedback: str,
    sender: Sender,
    at: datetime,
    person: str | None = None,
    traceparent: str | None = None,
) -> Event[FeedbackReceived]:
    """Return the event that `submission` came in `at` this time, under the id `feedback`.

    `person` is the id of whoever its contact points lead to, `traceparent` the story it belongs to.
    """
    case = case_id(sender.scope, submission, feedback)
    fields = vars(submission) | {
        "feedback_id": feedback,
        "reference": reference_of(feedback),
        "case_id": case,
        "client": sender.client,
        "contact": _as_checked(Contact, vars(submission.contact) | {"person": person}),
        "language": submission.language or _language_of(submission),
        "public": _is_public(submission),
        "occurred_at": submission.occurred_at or at,
        "received_at": at,
    }
    del fields["historical"]
    return Event(
        id=feedback,
        source="/rapport/intake",
        type=FeedbackReceived.TYPE,
        subject=feedback,
        time=at,
        data=_as_checked(FeedbackReceived, fields),
        partitionkey=case,
        correlationid=feedback,
        exercise=sender.exercise,
        historical=submission.historical,
        traceparent=traceparent,
    )


def _as_checked(kind: type[V], fields: dict[str, Any]) -> V:
    """Return `fields`, which are all there and of their types, as a `kind`.

    It is what `model_construct` does, in a tenth of its time: intake's busiest path has checked
    everything once.
    """
    value = kind.__new__(kind)
    _set(value, "__dict__", fields)
    _set(value, "__pydantic_fields_set__", _FIELDS[kind])
    _set(value, "__pydantic_extra__", None)
    _set(value, "__pydantic_private__", None)
    return value


def _language_of(submission: Submission) -> Language:
    return _LANGUAGES[language_of(submission.text or submission.subject or "")]


def _is_public(submission: Submission) -> bool:
    if submission.public is None:
        return submission.channel in OPEN_CHANNELS
    return submission.public
