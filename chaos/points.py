"""Named points at which a process dies: between two steps that must not be torn apart.

A point is a function of the real modules and whether death comes before it or after it. Shipped
code knows nothing of points: `chaos.victim` wraps the function before it runs the service. A test
sees to it that each of the functions is there.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any, Final, Literal

Strike = Callable[[], None]


async def _at_once(*arguments: Any) -> bool:
    return True


async def _relayed(pipeline: Any, *arguments: Any) -> bool:
    """Wait until what a batch led to is published; False where it led to nothing."""
    relay = pipeline._engine.relay
    if not relay.behind:
        return False
    await relay.idle()
    return True


def _always(*arguments: Any) -> bool:
    return True


def _has_messages(engine: Any, changes: Any, *others: Any) -> bool:
    return any(change.messages for change in changes)


@dataclass(frozen=True, slots=True)
class Point:
    """Where in the code: `module:Class.function`, before or after it.

    It counts only where `counts` says so of the arguments; of a coroutine function, `until` is
    waited for first.
    """

    where: str
    when: Literal["before", "after"]
    services: tuple[str, ...]
    counts: Callable[..., bool] = _always
    until: Callable[..., Awaitable[bool]] = _at_once
    most: int = 30
    needs_crisis: bool = False

    def find(self) -> tuple[Any, str, Callable[..., Any]]:
        """Return the class or module, the function's name and the function itself.

        Raises ImportError or AttributeError where there is no such function any more.
        """
        module, _, path = self.where.partition(":")
        owner: Any = import_module(module)
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        return owner, name, vars(owner)[name] if name in vars(owner) else getattr(owner, name)

    def wrap(self, strike: Strike) -> None:
        """Have `strike` called each time that the point is passed."""
        owner, name, function = self.find()
        wrapped = _slow if inspect.iscoroutinefunction(function) else _quick
        setattr(owner, name, wrapped(self, function, strike))


POINTS: Final[Mapping[str, Point]] = {
    "after publish, before answer": Point(
        "rapport.intake.api.reception:Reception.publish", "after", ("intake",)
    ),
    "after save, before relay": Point(
        "rapport.common.engine:Engine._note",
        "before",
        ("routing", "notification"),
        counts=_has_messages,
    ),
    "after relay, before clearing": Point(
        "rapport.common.store.outbox:Relay._clear", "before", ("routing", "notification")
    ),
    "after relay, before commit": Point(
        "rapport.common.bus.pipeline:Pipeline.handle",
        "after",
        ("routing", "notification"),
        until=_relayed,
    ),
    "after lease, before send": Point(
        "rapport.notification.channels:Channels.send", "before", ("notification",)
    ),
    "after send, before outcome": Point(
        "rapport.notification.channels:Channels.send", "after", ("notification",)
    ),
    "in a fan-out page": Point(
        "rapport.notification.domain.communications:Communication.turn_page",
        "after",
        ("notification",),
        most=4,
        needs_crisis=True,
    ),
    "in a stand-down, as the coverage is counted": Point(
        "rapport.notification.domain.audience:Audience.review",
        "after",
        ("notification",),
        most=1,
        needs_crisis=True,
    ),
    "in a stand-down, as the crisis ends": Point(
        "rapport.routing.domain.crisis:Crisis.answer_stand_down",
        "after",
        ("routing",),
        most=1,
        needs_crisis=True,
    ),
}
"""`most` is how many times it is passed before somebody dies, at most; some are passed only in a
crisis."""


def _slow(point: Point, function: Callable[..., Any], strike: Strike) -> Callable[..., Any]:
    @wraps(function)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        counts = point.counts(*arguments)
        if counts and point.when == "before" and await point.until(*arguments):
            strike()
        result = await function(*arguments, **named)
        if counts and point.when == "after" and await point.until(*arguments):
            strike()
        return result

    return wrapped


def _quick(point: Point, function: Callable[..., Any], strike: Strike) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        counts = point.counts(*arguments)
        if counts and point.when == "before":
            strike()
        result = function(*arguments, **named)
        if counts and point.when == "after":
            strike()
        return result

    return wrapped
