"""The reception: what was found good gets its name, is published durably, and only then answered.

There is no store on this path. What takes long to read is read in a thread, so that one large batch
does not keep everybody else waiting.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple, ParamSpec, TypeVar

from starlette.requests import Request

from rapport.common.auth import Verifier
from rapport.common.bus.port import Bus
from rapport.common.clock import Clock
from rapport.common.errors import FieldProblem, Invalid
from rapport.common.events.codec import Message
from rapport.common.events.ids import derived_id
from rapport.intake import domain
from rapport.intake.api.load import Load
from rapport.intake.api.memory import Memory
from rapport.intake.api.publishing import Publisher
from rapport.intake.domain import Sender, Submission
from rapport.intake.repository import Statuses
from rapport.intake.resources import Desk, Item

LARGE: Final = 64 * 1024
"""Bytes of a body from which on it is read in a thread."""

KEYS_KEPT: Final = 10_000
IDS_KEPT: Final = 10_000
KEY_LENGTH: Final = 200

P = ParamSpec("P")
T = TypeVar("T")


class Call(NamedTuple):
    """One request: who sends, when, and what its headers ask for."""

    sender: Sender
    at: datetime
    key: str | None
    asks_known: bool

    def name(self, submission: Submission, index: int = 0) -> str:
        """Return the id of a submission that came in this call, as item `index` of it."""
        client = self.sender.scoped(self.sender.client)
        return domain.feedback_id(client, submission, key=self.key, index=index)

    def item(self, place: Mapping[str, int], content: Submission | Invalid) -> Item:
        """Return an item of this call, at its `index`."""
        id = self.name(content, place["index"]) if isinstance(content, Submission) else ""
        return Item(place, self.sender, id, content)


class Reception(Desk):
    """Takes in what senders bring over HTTP; see the module's docstring."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        statuses: Statuses,
        mappings: Mapping[str, domain.Mapping],
        person_key: bytes,
        status_key: bytes,
    ) -> None:
        super().__init__(clock, mappings, person_key)
        self._publisher = Publisher(bus)
        self._status_key = blake2b(status_key or secrets.token_bytes(32)).digest()
        self._contents: Memory[str] = Memory(KEYS_KEPT)
        self._recent: Memory[None] = Memory(IDS_KEPT)
        self.statuses = statuses
        self.load = Load()

    async def call(self, request: Request) -> Call:
        """Return what a request's headers say; raises Unauthorized, Forbidden or Invalid."""
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        token, key = headers.get(b"authorization"), headers.get(b"idempotency-key")
        exercise, prefer = headers.get(b"x-rapport-exercise"), headers.get(b"prefer")
        verifier: Verifier = request.app.state.verifier
        principal = await verifier.authorize(
            token.decode("latin-1") if token else None, "feedback.submit"
        )
        return Call(
            Sender(principal.subject, _exercise(exercise) if exercise is not None else None),
            self.clock.now(),
            _key(key) if key else None,
            _prefers(prefer, b"known") if prefer else False,
        )

    async def publish(self, call: Call, ids: Sequence[str], messages: Sequence[Message]) -> None:
        """Return once `messages` are durable.

        Raises Invalid for an Idempotency-Key that came with other content, TemporaryError where the
        bus is in trouble: sending the same once more is safe then, as ever.
        """
        if call.key is not None:
            self._check_key(call, derived_id(*ids))
        await self._publisher.publish(messages)
        for id in ids:
            self._recent.recall(id, None)

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that were accepted before: lately here, or as the log has told."""
        lately = {id for id in ids if id in self._recent}
        return lately | await self.statuses.known([id for id in ids if id not in lately])

    def mac(self, id: str) -> str:
        """Return what proves that a status URL was given out by us."""
        return blake2b(id.encode(), key=self._status_key, digest_size=16).hexdigest()

    def status_url(self, id: str) -> str:
        """Return where the sender of feedback `id` can ask how it stands."""
        return f"/intake/v1/feedback/{id}?mac={self.mac(id)}"

    def _check_key(self, call: Call, content: str) -> None:
        name = derived_id(call.sender.scoped(call.sender.client), call.key or "")
        if self._contents.recall(name, content) != content:
            other = FieldProblem("/header/idempotency-key", "came with other content before")
            raise Invalid("this Idempotency-Key is taken", [other])


async def read_aside(body: bytes, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `read` makes of its arguments, in a thread where `body` is large."""
    if len(body) < LARGE:
        return read(*args, **kwargs)
    return await asyncio.to_thread(read, *args, **kwargs)


def _key(value: bytes) -> str:
    if len(value) > KEY_LENGTH:
        long = FieldProblem("/header/idempotency-key", f"is over {KEY_LENGTH} characters")
        raise Invalid("the request does not fit", [long])
    return value.decode("latin-1")


def _exercise(value: bytes) -> str:
    try:
        return domain.exercise_id(value.decode("latin-1"))
    except ValueError as error:
        wrong = FieldProblem("/header/x-rapport-exercise", str(error))
        raise Invalid("the request does not fit", [wrong]) from None


def _prefers(value: bytes, preference: bytes) -> bool:
    """Tell whether a Prefer header (RFC 7240) names `preference`."""
    return preference in [part.strip() for part in value.split(b",")]
