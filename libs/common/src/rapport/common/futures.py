"""Futures that several wait for one piece of work with."""

import asyncio
from collections.abc import Iterable


def settle(waiting: Iterable[asyncio.Future[None]], error: Exception | None = None) -> None:
    """Tell all who still wait that it is done, or how it failed."""
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
