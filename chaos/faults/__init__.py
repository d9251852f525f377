"""What can go wrong, each thing a function that does it to a world and returns once it has healed.

A module of this package declares its faults with `@fault`; importing it puts them in the catalogue.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from chaos.world import World

Act = Callable[["World"], Awaitable[None]]


class Fault(NamedTuple):
    """Something that goes wrong: its name as the table has it, where it can, and how to do it."""

    name: str
    modes: Sequence[str]
    act: Act


CATALOGUE: Final[list[Fault]] = []
"""Every fault, in the order in which they were declared."""


def fault(name: str, modes: Sequence[str] = ("embedded", "distributed")) -> Callable[[Act], Act]:
    """Declare a function as the fault of this name; it can happen in these modes."""

    def declare(act: Act) -> Act:
        CATALOGUE.append(Fault(name, modes, act))
        return act

    return declare
