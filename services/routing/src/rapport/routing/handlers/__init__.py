"""What routing does when something happens, by aggregate."""

from typing import Final

from rapport.common.handling import Declared
from rapport.routing.handlers import cases, crises

DECLARED: Final[list[Declared]] = [*cases.DECLARED, *crises.DECLARED]
