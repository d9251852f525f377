"""The system that the stories are played on: here all of it in this process, over real HTTP."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Self

import pytest

from rapport.common.events.codec import Message
from rapport.standalone.demo.receivers import MailServer, Outside, outside
from rapport.standalone.system import SERVICES, System, system

from .clients import Rapport


class Installation:
    """An installation that can be stopped and started again on what it has stored."""

    def __init__(self, run: Callable[[], AbstractAsyncContextManager[System]]) -> None:
        self._run = run
        self._running = AsyncExitStack()
        self._system: System
        self.client: Rapport

    async def start(self) -> Self:
        """Run the system."""
        self._system = await self._running.enter_async_context(self._run())
        urls = dict.fromkeys(SERVICES, self._system.url)
        self.client = await self._running.enter_async_context(Rapport(urls, self._token))
        return self

    async def stop(self) -> None:
        """Stop the system."""
        await self._running.aclose()

    async def restart(self) -> Rapport:
        """Stop the system and run it again."""
        await self.stop()
        return (await self.start()).client

    async def publish(self, message: Message) -> None:
        """Put a message on the bus, past every check that intake makes."""
        await self._system.bus.publish([message])

    def _token(self, subject: str, roles: Sequence[str]) -> str:
        return self._system.token(subject, *roles)


@pytest.fixture
async def world() -> AsyncIterator[Outside]:
    """Who is outside: a mail server, and receivers of webhooks."""
    async with outside() as running:
        yield running


@pytest.fixture
def mail(world: Outside) -> MailServer:
    """What has arrived by e-mail."""
    return world.mail


@pytest.fixture
async def installation(tmp_path: Path, world: Outside) -> AsyncIterator[Installation]:
    """A running installation of one's own."""
    settings = {
        "smtp_host": "127.0.0.1",
        "smtp_port": world.mail.port,
        "smtp_security": "none",
        "webhook_allow": (world.webhooks.authority,),
    }
    running = Installation(lambda: system(tmp_path / "data", port=0, settings=settings))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def rapport(installation: Installation) -> Rapport:
    """A client of a running system."""
    return installation.client
