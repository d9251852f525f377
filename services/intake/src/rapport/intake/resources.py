"""The desk: what came in, whichever way, gets its name here and becomes an event.

Requests get here through the reception, records of the bus through a handler.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from rapport.common import tracing
from rapport.common.clock import Clock
from rapport.common.errors import Invalid, TooLarge
from rapport.common.events.codec import Message, encode
from rapport.common.people import person_id
from rapport.intake import domain
from rapport.intake.domain import CloudEvent, Sender, Submission

LOT_LIMIT: Final = 1_000
"""Items of one request, or of one record."""


class Item(NamedTuple):
    """One item: where it stands in what was sent, from whom, its id, and what it holds."""

    place: Mapping[str, int]
    sender: Sender
    id: str
    content: Submission | Invalid


class Lot(NamedTuple):
    """All items of a request or record, and a message for each good one."""

    items: Sequence[Item]
    messages: Sequence[Message]

    @property
    def ids(self) -> list[str]:
        """The ids of the good items."""
        return [item.id for item in self.items if isinstance(item.content, Submission)]


class Desk:
    """Makes events of what came in; `person_key` is what persons are known by."""

    def __init__(
        self, clock: Clock, mappings: Mapping[str, domain.Mapping], person_key: bytes
    ) -> None:
        self.clock = clock
        self.mappings = mappings
        self._person_key = person_key

    def message(
        self,
        submission: Submission,
        id: str,
        sender: Sender,
        at: datetime,
        traceparent: str | None = None,
    ) -> Message:
        """Return the message that tells of `submission`.

        It carries on the trace of `traceparent`, by default the current one.
        """
        contact = submission.contact
        person = person_id(
            self._person_key, email=contact.email, phone=contact.phone, handles=contact.handles
        )
        trace = traceparent or tracing.traceparent()
        return encode(domain.admit(submission, id, sender, at, person, trace))

    def lot(self, items: Iterable[Item], at: datetime, traceparent: str | None = None) -> Lot:
        """Go through items and make a message of each good one; raises TooLarge over 1,000."""
        gone_through = list(islice(items, LOT_LIMIT + 1))
        if len(gone_through) > LOT_LIMIT:
            raise TooLarge(f"at most {LOT_LIMIT:,} items are taken at once")
        messages = [
            self.message(item.content, item.id, item.sender, at, traceparent)
            for item in gone_through
            if isinstance(item.content, Submission)
        ]
        return Lot(gone_through, messages)

    def brought(
        self, event: CloudEvent, client: str | None, at: datetime, exercise: str | None = None
    ) -> Iterator[Item]:
        """Yield the items of a CloudEvent, each at its `index`; raises Invalid if nothing reads it.

        Without a `client`, who is known by a token, its source stands for one. An event names its
        own drill; one that names none is part of `exercise`.
        """
        source = event.source if client is None else None
        sender = Sender(client or event.source, event.exercise or exercise, source)
        scope = sender.scoped(event.source if client is None else f"{client}\x1f{event.source}")
        for index, content in domain.items_of_event(event, self.mappings, at):
            id = domain.feedback_id_of_event(scope, event.id, index)
            is_good = isinstance(content, Submission)
            yield Item({"index": index}, sender, id if is_good else "", content)
