"""The door of a service: who is turned away before anything is done for them.

A refusal is paid for with what could have been taken in instead, so where twice as many come as can
be served, it has to cost next to nothing. Who comes to a service that has enough under way gets an
answer that was written beforehand, as soon as the request's head is there: no task is begun, no
route looked for, no token checked. A request counts from when it is whole until it is answered, so
one who sends slowly keeps nobody else out.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from rapport.common.telemetry import REQUESTS
from rapport.common.whole_answers import WholeAnswers


class Door:
    """Lets in so many POST requests to `service` at once; others get `answer`, a whole response."""

    def __init__(self, service: str, at_once: int, answer: bytes) -> None:
        self.inside = 0
        self._at_once = at_once
        self._answer = answer
        self._turned_away = REQUESTS.labels(service, "POST", "503")

    @property
    def is_shut(self) -> bool:
        """Whether enough are inside."""
        return self.inside >= self._at_once

    def turn_away(self) -> bytes:
        """Return what somebody is sent away with."""
        self._turned_away.inc()
        return self._answer


class HasDoors(Protocol):
    """An application that is served behind doors."""

    def door(self, method: bytes, target: bytes) -> Door | None:
        """Return the door that a request goes through, None where it goes through none."""


class _Refused:
    """What uvicorn's protocol has in place of a request that was turned away: it is over."""

    class _Nobody:
        def set(self) -> None:
            """Wake nobody."""

    response_complete = True
    keep_alive = True
    message_event = _Nobody()


_REFUSED: Final = cast("Any", _Refused())


class Doorkeeper(WholeAnswers):
    """uvicorn's protocol, for an application with doors."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._door_of: Callable[[bytes, bytes], Door | None] = cast("HasDoors", self.app).door
        self._door: Door | None = None
        self._inside: Door | None = None

    def on_headers_complete(self) -> None:
        """Turn the request away, or let it go on to the application."""
        self._door = self._door_of(self.parser.get_method(), self.url)
        if self._door is not None and self._door.is_shut and self._can_answer_now():
            self.cycle = _REFUSED
            self._joining.write_now(self._door.turn_away())
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        if self._door is not None and self._inside is None and self.is_under_way:
            self._inside = self._door
            self._inside.inside += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that the request is done."""
        self._leave()
        super().on_response_complete()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that there is nobody to answer."""
        self._leave()
        super().connection_lost(error)

    def _can_answer_now(self) -> bool:
        """Tell whether nothing speaks against an answer at once, and going on after it.

        What does is left to the application, which refuses as well: earlier requests on the same
        connection that wait for their answers, answers that nobody reads, a client that asks
        whether to send its body or will not send anything else.
        """
        return (
            not self.is_under_way
            and not self.flow.write_paused
            and not self.expect_100_continue
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _leave(self) -> None:
        if self._inside is not None:
            self._inside.inside -= 1
            self._inside = None
