"""How a command reaches the bus: Kafka itself, or the log in a data directory.

The log can be read by anybody at any time. It belongs to the process that runs on it, so what is to
be written goes through that process, over HTTP; where none runs, the command opens the log.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import httpx2

from rapport.common.bus.log import InUse
from rapport.common.bus.port import Bus, Readable
from rapport.common.bus.spectator import Spectator
from rapport.common.errors import NotFound, PermanentError, TemporaryError
from rapport.common.runtime import open_bus
from rapport.common.settings import Settings
from rapport.standalone.operations.api import Redrive, Redriven
from rapport.standalone.replay import told_problem
from rapport.standalone.terminal import own_token

URL: Final = "http://127.0.0.1:8080"
PATIENCE: Final = 600.0
"""Seconds that a running system may take to send everything back."""

Some = TypeVar("Some", bound=Readable)


@asynccontextmanager
async def reading(data_dir: Path) -> AsyncIterator[Readable]:
    """Give the bus that `RAPPORT_BUS` names, or the log in `data_dir`, to read."""
    settings = Settings.load()
    bus = Spectator(_log(data_dir)) if _is_embedded(settings) else open_bus(settings)
    async with _open(bus):
        yield bus


@asynccontextmanager
async def writing(data_dir: Path) -> AsyncIterator[Bus]:
    """Give the bus as `reading` does, to publish on; raises InUse where a process has the log."""
    settings = Settings.load()
    if _is_embedded(settings):
        path = _log(data_dir)
        if not path.is_file():
            raise NotFound(f"there is no log at {path}")
        settings = Settings.load(bus=f"embedded:{path}")
    bus = open_bus(settings)
    async with _open(bus):
        yield bus


async def redrive(wanted: Redrive, data_dir: Path, url: str | None, token: str | None) -> Redriven:
    """Send dead letters back, over HTTP where `url` says so or a process has the log.

    Raises NotFound where a letter is not there, PermanentError where the server refuses it and
    TemporaryError where it cannot be reached.
    """
    if url is None:
        try:
            async with writing(data_dir) as bus:
                return await wanted.carry_out(bus)
        except InUse:
            url = URL
    bearer = token or own_token(data_dir, "dlq", "admin")
    target = f"{url.rstrip('/')}/operations/v1/dead-letters/redrive"
    headers = {"Authorization": f"Bearer {bearer}"}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as client:
        try:
            response = await client.post(target, json=wanted.model_dump())
        except httpx2.TransportError:
            raise TemporaryError(f"{target} cannot be reached: give --url") from None
    if response.status_code != 200:
        raise PermanentError(told_problem(response))
    return Redriven.model_validate(response.json())


@asynccontextmanager
async def _open(bus: Readable) -> AsyncIterator[None]:
    await bus.start()
    try:
        yield
    finally:
        await bus.stop()


def _is_embedded(settings: Settings) -> bool:
    return settings.bus.startswith("embedded:")


def _log(data_dir: Path) -> Path:
    return data_dir / "bus.db"
