"""Futures: telling those who wait for a piece of work what came of it."""

import asyncio
from collections.abc import Iterable
from typing import Any


def tell(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    """Tell one who still waits the result, or how it failed."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def settle(waiting: Iterable[asyncio.Future[None]], error: Exception | None = None) -> None:
    """Tell all who still wait that it is done, or how it failed."""
    for future in waiting:
        tell(future, None, error)
