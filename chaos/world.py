"""The system that things happen to: processes, servers of its own, and the lines between them.

Embedded it is one process on one data directory. Distributed it is a process per service, two of
those that matter most, over a broker and a database that nobody else uses, so that they may be
killed; each service reaches the two through proxies of its own, so that a line may go bad. All
follow one clock, which at the end jumps past the leases that the dead have left behind.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx2
import servers
from servers import HOST, Server

from chaos.proxy import Proxy, listeners
from chaos.victim import REACHED, STANDALONE
from rapport.common.auth import Signer
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.port import Bus, Handler, Position, Subscription
from rapport.common.bus.spectator import Spectator
from rapport.common.clock import LeadingClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message, Record
from rapport.common.runtime import open_bus
from rapport.common.settings import Settings
from rapport.standalone.demo.receivers import Outside, outside
from rapport.standalone.processes import Process, apply_topics
from rapport.standalone.system import SERVICES, keys

EMBEDDED: Final = "embedded"
DISTRIBUTED: Final = "distributed"
MODES: Final = (EMBEDDED, DISTRIBUTED)

REPLICAS: Final = {"routing": 2, "notification": 2}
"""How many processes of a service run where it is not one."""

READY_WITHIN: Final = 300.0
GLANCE_SECONDS: Final = 0.1

_SERVERS: Final = ("kafka", "store")


class FromOutside:
    """A bus that others than Rapport publish on; what they published is remembered.

    The embedded log belongs to the process that runs on it: there it is published between two of
    its lives.
    """

    def __init__(
        self, reading: Spectator | Bus, publish: Callable[[Sequence[Message]], Awaitable[None]]
    ) -> None:
        self._reading = reading
        self._publish = publish
        self.published: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish past every check that intake makes."""
        self.published += messages
        await self._publish(messages)

    async def start(self) -> None:
        """Open what is read."""
        await self._reading.start()

    async def stop(self) -> None:
        """Close what is read."""
        await self._reading.stop()

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> Subscription:
        """Nobody outside is a member of a group."""
        raise PermanentError("nobody outside is a member of a group")

    def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read without a group; see the port."""
        return self._reading.tail(topics, after, until=until)

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return where partitions start; see the port."""
        return await self._reading.starts(topics)

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return where partitions end; see the port."""
        return await self._reading.ends(topics)


@dataclass
class World:
    """See the module's docstring. `replicas` are the processes, by service, the oldest first."""

    mode: str
    random: Random
    folder: Path
    clock: LeadingClock
    signer: Signer
    http: httpx2.AsyncClient
    outside: Outside
    settings: Mapping[str, Any]
    log: Path
    kafka: Server | None = None
    store: Server | None = None
    links: dict[tuple[str, str], Proxy] = field(default_factory=dict)
    replicas: dict[str, list[Process]] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    begin_crisis: Callable[[], None] = lambda: None
    """Lets people begin to play a crisis, for faults that want to happen in one."""
    bus: FromOutside = field(init=False)

    @property
    def data(self) -> Path:
        """Where an embedded system keeps everything."""
        return self.folder / "data"

    @property
    def urls(self) -> Mapping[str, Sequence[str]]:
        """Where the replicas of each service answer."""
        if self.mode == EMBEDDED:
            return {name: [self.replicas[STANDALONE][0].url] for name in SERVICES}
        return {name: [item.url for item in self.replicas[name]] for name in SERVICES}

    def token(self, subject: str, roles: Sequence[str]) -> str:
        """Mint a token."""
        return self.signer.mint(subject, roles)

    async def begin(self) -> None:
        """Start everything."""
        if self.mode == EMBEDDED:
            self.bus = FromOutside(Spectator(self.data / "bus.db"), self._publish_at_rest)
            self.replicas = {STANDALONE: [self._process(STANDALONE)]}
        else:
            common = Settings.load(**self.settings, **self._direct)
            await apply_topics(common)
            direct = open_bus(common, self.clock)
            self.bus = FromOutside(direct, direct.publish)
            self.replicas = {
                name: [self._process(name) for _ in range(REPLICAS.get(name, 1))]
                for name in SERVICES
            }
        await self.ready()
        await self.bus.start()

    async def end(self) -> None:
        """Stop every process."""
        with suppress(AttributeError):
            await self.bus.stop()
        everybody = [item for replicas in self.replicas.values() for item in replicas]
        await asyncio.gather(*(process.stop() for process in everybody))

    async def ready(self) -> None:
        """Start whoever has ended, as an orchestrator does, and return when all are ready.

        Raises TemporaryError where somebody is not in time.
        """
        everybody = [item for replicas in self.replicas.values() for item in replicas]
        waits: dict[int, str] = {}
        try:
            async with asyncio.timeout(READY_WITHIN):
                await asyncio.gather(*(self._revive(process, waits) for process in everybody))
        except TimeoutError:
            why = "; ".join(waits.values())
            raise TemporaryError(f"not all are ready after {READY_WITHIN:.0f} s: {why}") from None

    async def join(self, service: str) -> Process:
        """Start a process more of a service; return it when it is ready."""
        process = self._process(service)
        self.replicas[service].append(process)
        await self._revive(process, {})
        return process

    async def leave(self, service: str) -> None:
        """Let the youngest process of a service drain and end."""
        await self.replicas[service].pop().stop()

    async def kill(self, *processes: Process) -> None:
        """Kill processes at the same time; return when they are gone."""
        for process in processes:
            self.deaths += process.is_running
            process.kill()
        await asyncio.gather(*(process.ended() for process in processes))

    def home(self, service: str) -> str:
        """Return under which name the processes are kept that run a service."""
        return STANDALONE if self.mode == EMBEDDED else service

    async def doom(self, service: str, point: str, times: int) -> Process:
        """Put one process in place of all that run a service: it dies as it passes a point.

        It answers where the oldest did. `replace` brings the others back.
        """
        home = self.home(service)
        old = self.replicas[home]
        await self.kill(*old)
        victim = self._process(home, point, str(times), port=_port(old[0]))
        self.replicas[home] = [victim]
        await victim.start()
        return victim

    async def replace(self, service: str) -> None:
        """End those that run a service, if they live, and start as many as there should be."""
        home = self.home(service)
        old = self.replicas[home]
        await asyncio.gather(*(process.stop() for process in old))
        fresh = [self._process(home, port=_port(old[0]))]
        fresh += [self._process(home) for _ in range(1, REPLICAS.get(home, 1))]
        self.replicas[home] = fresh
        await self.ready()

    def _process(self, service: str, *moment: str, port: int = 0) -> Process:
        number = port or servers.free_port()
        settings = {**self.settings, **self._lines(service)}
        return Process(
            service, number, settings, self._hear, ("-m", "chaos.victim", service, *moment)
        )

    async def _revive(self, process: Process, waits: dict[int, str]) -> None:
        """Have a process run and be ready; `waits` has why it is not."""
        while True:
            if not process.is_running:
                await process.start()
            try:
                await process.ready(self.http)
            except TemporaryError as error:
                waits[id(process)] = error.reason
            else:
                waits.pop(id(process), None)
                return

    def _hear(self, service: str, line: str) -> None:
        if line.startswith(REACHED):
            self.reached[line.removeprefix(REACHED)] += 1
            self.deaths += 1
        with self.log.open("a", encoding="utf-8") as log:
            print(f"{service}: {line}", file=log)

    @property
    def _direct(self) -> Mapping[str, str]:
        """How the servers are reached past all proxies."""
        if self.kafka is None or self.store is None:
            return {}
        return _servers(self.kafka.port, self.store.port)

    def _lines(self, service: str) -> Mapping[str, str]:
        """How a service reaches log and store."""
        if service == STANDALONE:
            return {"bus": f"embedded:{self.data / 'bus.db'}", "store": f"sqlite:{self.data}"}
        kafka, store = (self.links[service, server].port for server in _SERVERS)
        return _servers(kafka, store)

    async def _publish_at_rest(self, messages: Sequence[Message]) -> None:
        [process] = self.replicas[STANDALONE]
        await process.stop()
        bus = EmbeddedBus(self.data / "bus.db", clock=self.clock)
        await bus.start()
        try:
            await bus.publish(messages)
        finally:
            await bus.stop()
        await self.ready()


@asynccontextmanager
async def world(mode: str, random: Random, folder: Path, log: Path) -> AsyncIterator[World]:
    """Run a world while the block runs, with its data in `folder`; what processes say is in `log`.

    Raises ServersError where the servers cannot be had.
    """
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(outside())
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
        clock = LeadingClock(datetime.now(UTC), folder / "clock")
        settings = {
            **keys(folder / "data" / "keys"),
            "smtp_host": HOST,
            "smtp_port": around.mail.port,
            "smtp_security": "none",
            "webhook_allow": (around.webhooks.authority,),
            "clock_file": folder / "clock",
            "log_level": "INFO",
        }
        signer = Signer.open(folder / "data" / "keys")
        built = World(mode, random, folder, clock, signer, http, around, settings, log)
        if mode == DISTRIBUTED:
            await _serve(built, stack)
        stack.push_async_callback(built.end)
        await built.begin()
        yield built


async def _serve(built: World, stack: AsyncExitStack) -> None:
    """Start the servers, and a proxy for each service to each of them."""
    built.store = servers.mongodb(built.folder / "mongodb", servers.fetch_mongodb())
    stack.callback(built.store.kill)
    await asyncio.to_thread(built.store.start)
    own = servers.free_port()
    taken = [own]
    for name in SERVICES:
        taken.append(servers.free_port(*taken))
        built.links[name, "kafka"] = Proxy(taken[-1])
        built.links[name, "store"] = Proxy(built.store.port)
    for proxy in built.links.values():
        await proxy.start()
        stack.push_async_callback(proxy.stop)
    lines = {name: built.links[name, "kafka"] for name in SERVICES}
    built.kafka = servers.kafka(
        built.folder / "kafka", servers.fetch_kafka(), own, settings=listeners(lines)
    )
    stack.callback(built.kafka.kill)
    await asyncio.to_thread(built.kafka.start)


def _servers(kafka: int, store: int) -> Mapping[str, str]:
    options = f"directConnection=true&{servers.REPEATS_NOTHING}"
    return {
        "bus": f"kafka://{HOST}:{kafka}",
        "store": f"mongodb://{HOST}:{store}/rapport?{options}",
    }


def _port(process: Process) -> int:
    return int(process.url.rpartition(":")[2])
