"""The heap of a process that runs for months: what is free goes back to the system.

glibc keeps freed pages that lie between used ones, so that the process grows for a long time under
an even load; see malloc_trim(3). Other libraries for memory have nothing to trim by this name.
"""

import asyncio
import ctypes
from typing import Final, NoReturn

EVERY_SECONDS: Final = 60.0

_ARENA_MAX: Final = -8
_ARENAS: Final = 2

_library: Final = ctypes.CDLL(None)
_trim: Final = getattr(_library, "malloc_trim", None)
_set: Final = getattr(_library, "mallopt", None)


def keep_together() -> None:
    """Have few arenas, before there are threads: each would get one of its own, to fill by and by.

    As Python runs in one thread at a time, they seldom wait for each other; see mallopt(3).
    """
    if _set is not None:
        _set(_ARENA_MAX, _ARENAS)


def give_back() -> bool:
    """Give free pages back, which takes some milliseconds; False where nothing can or need be."""
    return _trim is not None and bool(_trim(0))


async def keep_giving_back() -> NoReturn:
    """Give back what is free, time and again; whoever wants memory meanwhile may wait for it."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        await asyncio.to_thread(give_back)
