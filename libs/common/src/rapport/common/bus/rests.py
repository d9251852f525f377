"""Rests: a handler says that it only waits, so whoever takes its partition away need not wait too.

Nothing is under way in a rest that would have to be finished: a bus may cancel it at once. So only
the handler itself rests, never a task of its own beside others.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

Rest = Callable[[], AbstractContextManager[None]]

_rest: ContextVar[Rest] = ContextVar("rest", default=nullcontext)


def rest() -> AbstractContextManager[None]:
    """Have the bus that handed over this batch know that its handler only waits in here."""
    return _rest.get()()


def tell_of_rests(by: Rest) -> None:
    """Have the handlers that this task calls tell of their rests `by` entering and leaving this."""
    _rest.set(by)
