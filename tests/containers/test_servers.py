"""Kafka and MongoDB as the containers that compose runs: they start, our adapters speak to them.

Image, settings, command and health check are those of `docker-compose.yml`; only the addresses at
which they answer are the test's.
"""

import asyncio
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import yaml
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import ExecWaitStrategy

from rapport.common.aggregate import Aggregate
from rapport.common.events.codec import Message, Record
from rapport.common.events.topics import FEEDBACK
from rapport.common.runtime import open_bus
from rapport.common.settings import Settings
from rapport.common.store.port import Change

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
PATIENCE: Final = 120


def has_engine() -> bool:
    try:
        return not subprocess.run(["docker", "version"], capture_output=True).returncode
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    not has_engine(), reason="NOT TESTED: Kafka and MongoDB as containers (no container engine)"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Composed(DockerContainer):
    """A container as compose runs it, at a free port of this machine; ready when it is healthy."""

    def __init__(self, name: str, inner_port: int, **settings: str) -> None:
        service = COMPOSE[name]
        given = {**service.get("environment", {}), **settings}
        super().__init__(service["image"], env={key: str(value) for key, value in given.items()})
        self.port = free_port()
        ports: dict[str, Any] = self.ports
        ports[f"{inner_port}/tcp"] = ("127.0.0.1", self.port)
        if "command" in service:
            self.with_command(service["command"])
        self.with_kwargs(hostname=name, user=service.get("user"), cap_drop=service["cap_drop"])
        kind, *check = service["healthcheck"]["test"]
        command = ["sh", "-c", *check] if kind == "CMD-SHELL" else check
        self.waiting_for(ExecWaitStrategy(command).with_startup_timeout(PATIENCE))


class Kafka(Composed):
    """The broker, which tells its clients where it answers."""

    def __init__(self) -> None:
        super().__init__("kafka", 9094)
        outside = f"INSIDE://localhost:9092,OUTSIDE://127.0.0.1:{self.port}"
        self.with_env("KAFKA_ADVERTISED_LISTENERS", outside)


@pytest.fixture(scope="module")
def kafka() -> Iterator[Settings]:
    with Kafka() as container:
        yield Settings.load(bus=f"kafka://127.0.0.1:{container.port}")


@pytest.fixture(scope="module")
def mongodb() -> Iterator[str]:
    with Composed("mongo", 27017) as container:
        yield f"mongodb://127.0.0.1:{container.port}/?directConnection=true"


async def test_what_is_published_is_read(kafka: Settings) -> None:
    from rapport.standalone.processes import apply_topics, check_topics

    await apply_topics(kafka)
    assert await check_topics(kafka) == ([], [])
    sent = Message(FEEDBACK.name, "case-1", b"{}", (("content-type", b"application/json"),))
    arrived: asyncio.Queue[Record] = asyncio.Queue()

    async def take(records: Sequence[Record]) -> None:
        for record in records:
            arrived.put_nowait(record)

    bus = open_bus(kafka)
    await bus.start()
    try:
        subscription = await bus.subscribe("routing", [FEEDBACK.name], take)
        await bus.publish([sent])
        async with asyncio.timeout(PATIENCE):
            record = await arrived.get()
        assert (record.topic, record.key, record.value) == sent[:3]
        await subscription.stop()
    finally:
        await bus.stop()


class Note(Aggregate):
    """Something to keep."""

    COLLECTION: ClassVar[str] = "notes"

    text: str = ""


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_what_is_saved_is_there_and_is_overtaken_by_nobody(mongodb: str, driver: Any) -> None:
    from rapport.common.store.mongo import MongoStore

    store = MongoStore(mongodb, f"test_{driver}", (Note,), driver=driver)
    await store.start()
    try:
        note = Note(id="a", text="first")
        assert await store.save_many([Change(note)]) == [True]
        note.text = "second"
        assert await store.save_many([Change(note)]) == [True]
        assert await store.save_many([Change(Note(id="a", text="late"))]) == [False]
        found = await store.get(Note, "a")
        assert found is not None
        assert (found.text, found.version) == ("second", note.version)
    finally:
        await store.stop()
