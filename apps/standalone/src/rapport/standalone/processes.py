"""The system as it runs elsewhere, on one machine: a process per service, over Kafka and MongoDB.

`rapport up-local`, the demo and the tests run it so. Each process is what a container would run
(`python -m rapport.<service>`), is told everything by its environment, and is stopped by SIGTERM.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
from pydantic import SecretStr

from rapport.common.auth import Signer
from rapport.common.bus.kafka import apply, check, client_options
from rapport.common.bus.kafka.topics import Checked
from rapport.common.bus.port import Bus
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import TemporaryError
from rapport.common.events.topics import TOPICS
from rapport.common.runtime import kafka_servers, open_bus
from rapport.common.settings import PREFIX, Settings
from rapport.standalone.data_files import KEYS
from rapport.standalone.system import HOST, SERVICES, keys, signer_of

PORTS: Final = {name: port for port, name in enumerate(SERVICES, 8101)}
START_SECONDS: Final = 60.0
GLANCE_SECONDS: Final = 0.05
LINE_BYTES: Final = 1024 * 1024

Tell = Callable[[str, str], None]
"""Is told each line that a process writes: the service's name and the line."""


class Process:
    """One service as a process of its own, at `url`; it can be started again after it ended.

    `python` are the arguments that make Python run it, by default the service's own module.
    """

    def __init__(
        self,
        service: str,
        port: int,
        settings: Mapping[str, Any],
        tell: Tell,
        python: Sequence[str] = (),
    ) -> None:
        self.service = service
        self._python = python or ("-m", f"rapport.{service}")
        self.url = f"http://{HOST}:{port}"
        self._environment = environment({**settings, "http_host": HOST, "http_port": port})
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; `ready` tells when it can be used."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._python,
            env=os.environ | self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
        assert self._process.stdout is not None
        self._telling = asyncio.create_task(self._tell_all(self._process.stdout))

    async def ready(self, http: httpx2.AsyncClient) -> None:
        """Return when /readyz says so; raises TemporaryError where the process ends before."""
        said = "no answer"
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self.is_running:
                    with suppress(httpx2.HTTPError):
                        answer = await http.get(f"{self.url}/readyz")
                        if answer.is_success:
                            return
                        said = answer.text
                    await asyncio.sleep(GLANCE_SECONDS)
            raise TemporaryError(f"{self.service} has ended while it was starting")
        raise TemporaryError(f"{self.service} is not ready after {START_SECONDS:.0f} s: {said}")

    async def ended(self) -> int:
        """Return the process's status once it has ended, and all that it wrote has been told."""
        assert self._process is not None
        assert self._telling is not None
        status = await self._process.wait()
        await self._telling
        return status

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still where it is, as on a machine that hangs, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Let it drain and end; one that does not in its time is killed."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), START_SECONDS)
        except TimeoutError:
            self.kill()
        await self.ended()

    def _signal(self, number: int) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    async def _tell_all(self, written: asyncio.StreamReader) -> None:
        """Tell each line; of one that is too long to be kept, that there was one."""
        while True:
            try:
                line = await written.readline()
            except ValueError:
                line = b"(a line that is too long)"
            if not line:
                return
            self._tell(self.service, line.decode(errors="replace").rstrip())


@dataclass(frozen=True)
class Processes:
    """The running system; what it offers is what `System` does."""

    signer: Signer
    bus: Bus
    clock: Clock
    settings: Mapping[str, Any]
    tell: Tell
    http: httpx2.AsyncClient
    running: list[Process]

    @property
    def replicas(self) -> Mapping[str, Sequence[str]]:
        """Where the replicas of each service answer that run, the oldest first."""
        return {
            name: [item.url for item in self.running if item.service == name and item.is_running]
            for name in SERVICES
        }

    @property
    def urls(self) -> Mapping[str, str]:
        """Where each service answers: its oldest replica."""
        return {name: urls[0] for name, urls in self.replicas.items()}

    async def start(
        self,
        *services: str,
        ports: Mapping[str, int] | None = None,
        python: Sequence[str] = (),
    ) -> list[Process]:
        """Start one process more of each of `services`; return them when they are ready."""
        chosen = [ports[name] for name in services] if ports else free_ports(len(services))
        fresh = [
            Process(name, port, self.settings, self.tell, python)
            for name, port in zip(services, chosen, strict=True)
        ]
        self.running.extend(fresh)
        await asyncio.gather(*(process.start() for process in fresh))
        await asyncio.gather(*(process.ready(self.http) for process in fresh))
        return fresh

    def token(self, subject: str, *roles: str) -> str:
        """Mint a token."""
        return self.signer.mint(subject, roles)

    async def quiet(self) -> bool:
        """Tell whether nothing is on its way anywhere."""
        return all(rest["quiet"] for rest in await self._rest())

    async def next_due(self) -> Sequence[datetime]:
        """Return when the next item of each service falls due."""
        return [
            datetime.fromisoformat(rest["next_due"])
            for rest in await self._rest()
            if rest["next_due"]
        ]

    async def _rest(self) -> Iterable[dict[str, Any]]:
        answers = await asyncio.gather(
            *(self.http.get(f"{process.url}/rest") for process in self.running)
        )
        nobody_knows: dict[str, Any] = {"quiet": False, "next_due": None}
        return [answer.json() if answer.is_success else nobody_knows for answer in answers]


@asynccontextmanager
async def processes(
    data_dir: Path,
    *,
    ports: Mapping[str, int] | None = None,
    clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
    tell: Tell = lambda service, line: None,
) -> AsyncIterator[Processes]:
    """Run a process per service while the block runs; keys and secrets are kept in `data_dir`.

    `settings` win over the environment. Topics are created where they are missing. Raises
    TemporaryError where a server or a service does not come up.
    """
    given = {**keys(data_dir / KEYS), **(settings or {})}
    common = Settings.load(**given)
    signer = signer_of(data_dir, common)
    await apply_topics(common)
    async with AsyncExitStack() as stack:
        time = clock or SystemClock()
        bus = open_bus(common, time)
        await bus.start()
        stack.push_async_callback(bus.stop)
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
        up = Processes(signer, bus, time, given, tell, http, [])
        stack.push_async_callback(_stop, up.running)
        await up.start(*SERVICES, ports=ports)
        yield up


async def apply_topics(settings: Settings, replication: int = 1) -> list[str]:
    """Create and correct the topics at the brokers that `RAPPORT_BUS` names; say what was done.

    Raises Invalid where that is not Kafka, PermanentError for what cannot be corrected.
    """
    return await apply(
        kafka_servers(settings), client_options(settings), TOPICS, consumers(), replication
    )


async def check_topics(settings: Settings) -> Checked:
    """Return what is not as declared at the brokers; raises as `apply_topics` does."""
    return await check(kafka_servers(settings), client_options(settings), TOPICS, consumers())


async def first_end(up: Processes, stopped: asyncio.Event) -> str | None:
    """Return the first service whose process ends, or None once somebody has asked to stop."""
    ends = {asyncio.create_task(process.ended()): process.service for process in up.running}
    asked = asyncio.create_task(stopped.wait())
    done, pending = await asyncio.wait({asked, *ends}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return None if asked in done else ends[done.pop()]


def prefixed(service: str, line: str) -> None:
    """Print a line that a process has written, after its name; a full disk stops nobody."""
    with suppress(OSError):
        print(f"{service:<12} | {line}", flush=True)


def consumers() -> dict[str, list[str]]:
    """Return the topics that each consumer group reads."""
    return {
        service.name: [topic.name for topic in service.consumes] for service in SERVICES.values()
    }


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as environment variables."""
    return {
        f"{PREFIX}{name.upper()}": _text(value)
        for name, value in settings.items()
        if value is not None
    }


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on at the moment."""
    with ExitStack() as open_until_all_are_known:
        return [
            int(
                open_until_all_are_known.enter_context(
                    socket.create_server((HOST, 0))
                ).getsockname()[1]
            )
            for _ in range(count)
        ]


async def _stop(running: Iterable[Process]) -> None:
    await asyncio.gather(*(process.stop() for process in running))


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
