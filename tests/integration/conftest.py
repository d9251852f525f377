"""The system that the stories are played on, over real HTTP, in both of its forms.

`embedded` is all of it in this process. `distributed` is a process per service over a Kafka broker
and a database of its own, where `make test` has found what it takes to start them.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import servers
from servers import HOST, MONGODB_OPTIONS, Server

from rapport.common.events.codec import Message
from rapport.common.settings import Settings
from rapport.standalone.demo.receivers import MailServer, Outside, outside
from rapport.standalone.processes import Processes, apply_topics, processes
from rapport.standalone.system import System, system

from .clients import Rapport

Up = System | Processes


class Installation:
    """An installation that can be stopped and started again on what it has stored."""

    def __init__(self, run: Callable[[], AbstractAsyncContextManager[Up]]) -> None:
        self._run = run
        self._running = AsyncExitStack()
        self.up: Up
        self.client: Rapport

    @property
    def processes(self) -> Processes:
        """The system, where it is distributed."""
        assert isinstance(self.up, Processes)
        return self.up

    async def start(self) -> Self:
        """Run the system."""
        self.up = await self._running.enter_async_context(self._run())
        self.client = await self._running.enter_async_context(Rapport(self._urls, self._token))
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
        await self.up.bus.publish([message])

    def _urls(self) -> Mapping[str, Sequence[str]]:
        if isinstance(self.up, Processes):
            return self.up.replicas
        return {name: [url] for name, url in self.up.urls.items()}

    def _token(self, subject: str, roles: Sequence[str]) -> str:
        return self.up.token(subject, *roles)


@pytest.fixture
async def world() -> AsyncIterator[Outside]:
    """Who is outside: a mail server, and receivers of webhooks."""
    async with outside() as running:
        yield running


@pytest.fixture
def mail(world: Outside) -> MailServer:
    """What has arrived by e-mail."""
    return world.mail


@pytest.fixture(scope="session")
def kafka_with_topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a broker that has our topics and has been stopped: what others begin with."""
    if not os.environ.get("RAPPORT_TEST_KAFKA"):
        pytest.skip("there is no Kafka here: `make test` starts one where Java and Maven are")
    folder = tmp_path_factory.mktemp("kafka")
    broker = servers.kafka(folder, servers.fetch_kafka())
    broker.start()
    asyncio.run(apply_topics(Settings.load(bus=f"kafka://{broker.address}")))
    broker.stop()
    return folder


@pytest.fixture
def kafka_settings() -> str:
    """What a broker of one's own is told beside what every broker is told."""
    return ""


@pytest.fixture
def kafka(tmp_path: Path, kafka_with_topics: Path, kafka_settings: str) -> Iterator[Server]:
    """A Kafka broker of one's own."""
    shutil.copytree(kafka_with_topics / "data", tmp_path / "kafka" / "data")
    broker = servers.kafka(tmp_path / "kafka", servers.fetch_kafka(), settings=kafka_settings)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    """A server of MongoDB's protocol of one's own."""
    if not os.environ.get("RAPPORT_TEST_MONGODB"):
        pytest.skip("there is no server of MongoDB's protocol: `make test` starts one")
    server = servers.mongodb(tmp_path / "mongodb", servers.fetch_mongodb())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def outside_settings(world: Outside) -> Mapping[str, Any]:
    """How the system reaches who is outside."""
    return {
        "smtp_host": HOST,
        "smtp_port": world.mail.port,
        "smtp_security": "none",
        "webhook_allow": (world.webhooks.authority,),
    }


@pytest.fixture
async def distributed(
    tmp_path: Path, outside_settings: Mapping[str, Any], kafka: Server, store: Server
) -> AsyncIterator[Installation]:
    """A running installation of one's own, a process per service; its logs are kept beside it."""
    settings = {
        **outside_settings,
        "bus": f"kafka://{kafka.address}",
        "store": f"mongodb://{store.address}/rapport?{MONGODB_OPTIONS}",
        "log_level": "INFO",
    }
    with (tmp_path / "processes.log").open("a") as log:

        def tell(service: str, line: str) -> None:
            print(f"{service}: {line}", file=log, flush=True)

        installation = Installation(
            lambda: processes(tmp_path / "data", settings=settings, tell=tell)
        )
        await installation.start()
        yield installation
        await installation.stop()


@pytest.fixture
async def embedded(
    tmp_path: Path, outside_settings: Mapping[str, Any]
) -> AsyncIterator[Installation]:
    """A running installation of one's own, all of it in this process."""
    installation = Installation(
        lambda: system(tmp_path / "data", port=0, settings=outside_settings)
    )
    await installation.start()
    yield installation
    await installation.stop()


@pytest.fixture(params=["embedded", "distributed"])
def installation(request: pytest.FixtureRequest) -> Installation:
    """A running installation of one's own, in each of its forms."""
    found: Installation = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def rapport(installation: Installation) -> Rapport:
    """A client of a running system."""
    return installation.client
