"""The error words of Rapport: two for those who write handlers, a few more with an HTTP status.

`TemporaryError` says that our own store, bus or a channel is in trouble: the pipeline waits and
tries again, an API answers 503 with Retry-After. `PermanentError` says that trying again cannot
help: the pipeline dead-letters the event, an API answers with the error's own status. Reasons are
read by operators and clients, so they never carry personal data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

LONGEST_PAUSE: Final = 30.0


class RapportError(Exception):
    """Base of all errors that Rapport raises on purpose; `reason` is safe to show."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TemporaryError(RapportError):
    """Our own infrastructure is in trouble; the same attempt may succeed after `delay` seconds."""

    status = 503
    title = "Temporarily unavailable"

    def __init__(self, reason: str, delay: float = 1.0) -> None:
        super().__init__(reason)
        self.delay = delay


def reason_of(error: Exception) -> str:
    """Return what may be told about an error: our own words, or only the kind of a foreign one."""
    return error.reason if isinstance(error, RapportError) else type(error).__name__


def pause_after(error: Exception, tries: int) -> float:
    """Return how many seconds to wait after so many tries that failed, the last one with `error`.

    What the error itself asks for (else a second) doubles with each try, up to half a minute.
    """
    first = error.delay if isinstance(error, TemporaryError) else 1.0
    return min(LONGEST_PAUSE, max(first, 0.05) * 2.0 ** min(tries - 1, 16))


class PermanentError(RapportError):
    """The same attempt would fail again, however often it is made."""

    status = 422
    title = "Cannot be done"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that was refused: where (an RFC 6901 JSON pointer, "" is the whole) and why."""

    pointer: str
    reason: str


class Invalid(PermanentError):
    """What was sent breaks the contract; `problems` names every field that does."""

    title = "Invalid input"

    def __init__(self, reason: str, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(reason)
        self.problems = tuple(problems)


class Malformed(Invalid):
    """What was sent cannot be read at all: broken JSON, broken UTF-8, a missing header."""

    status = 400
    title = "Malformed request"


class TooLarge(PermanentError):
    """What was sent is over a limit of size or count."""

    status = 413
    title = "Too large"


class Unauthorized(PermanentError):
    """No valid token came with the request."""

    status = 401
    title = "Unauthorized"


class Forbidden(PermanentError):
    """The caller is known and may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(PermanentError):
    """There is no such thing, or the caller may not know of it."""

    status = 404
    title = "Not found"


class Conflict(PermanentError):
    """The thing is in a state that does not allow this."""

    status = 409
    title = "Conflict"


class PreconditionFailed(PermanentError):
    """The thing has changed since the caller read it (If-Match)."""

    status = 412
    title = "Precondition failed"
