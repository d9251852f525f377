"""The runtime: a service is declared once, and runs over whatever bus and store it is given.

`Service` is the declaration that each service's `service.py` makes. `Running` is one such service
at work: store, outbox relay, consumer group, scheduler and HTTP routes, started and stopped in
order. Standalone runs five of them in one process; elsewhere each has a process of its own.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.auth import Verifier
from rapport.common.bus.pipeline import Pipeline
from rapport.common.bus.port import Bus, Lag, Position, Subscription
from rapport.common.clock import Clock, SystemClock
from rapport.common.disks import require_room
from rapport.common.engine import Engine
from rapport.common.errors import Invalid, RapportError, reason_of
from rapport.common.events.topics import Topic
from rapport.common.handling import (
    Declared,
    DueHandler,
    EventHandler,
    FactHandler,
    ForeignHandler,
)
from rapport.common.http import create_app
from rapport.common.scheduler import Scheduler
from rapport.common.settings import Settings
from rapport.common.store.outbox import Relay
from rapport.common.store.port import Store
from rapport.common.telemetry import (
    LAG_RECORDS,
    LAG_SECONDS,
    OUTBOX_AGE,
    PARTITIONS_STOPPED,
    RELAY_BEHIND,
)

ANSWER_SECONDS: Final = 3.0

log = structlog.get_logger(__name__)

_SERVER: Final = r"([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}"
_SERVERS: Final = re.compile(f"{_SERVER}(,{_SERVER})*")


@dataclass(frozen=True)
class Host:
    """What a running service offers its own code: the ports, the engine and the settings."""

    store: Store
    bus: Bus
    clock: Clock
    engine: Engine
    settings: Any


async def _nothing(resources: Any) -> None:
    return None


@dataclass(frozen=True)
class Service:
    """A service: what it consumes, owns and does.

    `resources` builds what handlers' `prepare` and the API work with (policies, repositories).
    `begin` runs once everything is up (ensure a schedule, build an index, start a tail), `end`
    before it goes down. `at_once` bounds the POST requests that are let in at the same time.
    """

    name: str
    title: str
    consumes: tuple[Topic, ...]
    kinds: tuple[type[Aggregate] | type[Fact], ...]
    declared: Sequence[Declared]
    router: APIRouter
    resources: Callable[[Host], Any]
    settings: type[Settings] = Settings
    begin: Callable[[Any], Awaitable[None]] = _nothing
    end: Callable[[Any], Awaitable[None]] = _nothing
    at_once: int | None = None

    def only(self, kind: type[Any]) -> list[Any]:
        """Return the declared handlers of one kind."""
        return [item for item in self.declared if isinstance(item, kind)]


@dataclass
class Running:
    """One service over its ports; `start` before use, `stop` at the end.

    `disks` are the folders that its bus and its store write to, if they are here.
    """

    service: Service
    settings: Settings
    bus: Bus
    store: Store
    clock: Clock
    verifier: Verifier
    disks: Mapping[str, Path] = field(default_factory=dict)
    app: FastAPI = field(init=False)
    engine: Engine = field(init=False)
    relay: Relay = field(init=False)
    pipeline: Pipeline = field(init=False)
    scheduler: Scheduler = field(init=False)
    resources: Any = field(init=False)
    _subscription: Subscription | None = field(default=None, init=False)
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)
    _deadline: float = field(default=0.0, init=False)
    _behind_since: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        service = self.service
        system = self.settings.bus.partition(":")[0]
        self.relay = Relay(
            self.bus,
            self.store,
            self._aggregates,
            self.clock,
            service=service.name,
            system=system,
        )
        RELAY_BEHIND.labels(service.name).set_function(lambda: self.relay.behind)
        OUTBOX_AGE.labels(service.name).set_function(lambda: self.relay.age)
        PARTITIONS_STOPPED.labels(service.name).set_function(lambda: len(self._stopped))
        self.engine = Engine(service.name, self.store, self.relay, self.clock)
        host = Host(self.store, self.bus, self.clock, self.engine, self.settings)
        self.resources = service.resources(host)
        self.pipeline = Pipeline(
            self.engine,
            self.bus,
            self.clock,
            service.only(EventHandler),
            service.only(FactHandler),
            self.resources,
            foreign=service.only(ForeignHandler),
            system=system,
        )
        self.scheduler = Scheduler(
            self.engine, self.clock, service.only(DueHandler), self.resources, self._lag_seconds
        )
        self.engine.on_saved = self.scheduler.saved
        self.engine.room = self.scheduler.room
        self.engine.begin = self.scheduler.begin
        self.app = create_app(
            service.name,
            service.title,
            service.router,
            at_once=service.at_once,
            engine=self.engine,
            verifier=self.verifier,
            resources=self.resources,
        )

    @property
    def _aggregates(self) -> list[type[Aggregate]]:
        return [kind for kind in self.service.kinds if issubclass(kind, Aggregate)]

    async def start(self, *, consume: bool = True) -> None:
        """Open the store, publish what a crash left behind, then consume and scan.

        What fails here closes all that was opened before. `consume` False leaves reading and
        scanning to the caller (tests drive them step by step).
        """
        async with AsyncExitStack() as opening:
            await self.store.start()
            opening.push_async_callback(self.store.stop)
            await self.relay.start()
            opening.push_async_callback(lambda: self.relay.stop(self._left))
            await self.service.begin(self.resources)
            opening.push_async_callback(lambda: self.service.end(self.resources))
            opening.push_async_callback(lambda: self.scheduler.stop(self._left))
            if consume:
                await self._subscribe(opening)
                self.scheduler.start()
            self._opened = opening.pop_all()
        log.info("service.started", service=self.service.name)

    async def stop(self, drain: float = 20.0) -> None:
        """Stop reading, finish what is in flight, publish it, close the store.

        Each of these happens even where the one before it fails; together they have `drain`
        seconds.
        """
        self._deadline = monotonic() + drain
        await self._opened.aclose()
        log.info("service.stopped", service=self.service.name)

    @property
    def _left(self) -> float:
        """How many seconds are left to finish what is in flight."""
        return max(0.0, self._deadline - monotonic())

    async def _subscribe(self, opening: AsyncExitStack) -> None:
        topics = [topic.name for topic in self.service.consumes]
        if topics:
            subscription = await self.bus.subscribe(self.service.name, topics, self.pipeline.handle)
            opening.push_async_callback(lambda: subscription.stop(self._left))
            self._subscription = subscription
            self._behind_since = monotonic()

    async def lag(self) -> Lag:
        """Return how far the service is behind on its events; while nobody can say, time counts."""
        if self._subscription is None:
            return Lag(0, 0.0)
        try:
            lag = await self._subscription.lag()
        except Exception:
            LAG_SECONDS.labels(self.service.name).set(monotonic() - self._behind_since)
            raise
        self._behind_since = monotonic() - lag.seconds
        LAG_RECORDS.labels(self.service.name).set(lag.records)
        LAG_SECONDS.labels(self.service.name).set(lag.seconds)
        return lag

    async def quiet(self) -> bool:
        """Tell whether nothing is unread, unpublished, due or under way outside."""
        return self._is_quiet(await self.scheduler.next_due(), await self.lag())

    async def rest(self) -> dict[str, Any]:
        """Say whether this service is quiet, and when something falls due (for /rest)."""
        due = await self.scheduler.next_due()
        quiet = self._is_quiet(due, await self.lag())
        return {"quiet": quiet, "next_due": due and due.isoformat()}

    def _is_quiet(self, due: datetime | None, lag: Lag) -> bool:
        """Judge by what is due, which was read first, and what is unread.

        If nothing is due because it is being carried out just then, the scheduler is busy, or the
        relay is.
        """
        if lag.records or (due is not None and due <= self.clock.now()):
            return False
        return self.relay.is_idle and not self.scheduler.busy

    async def missing(self) -> dict[str, str]:
        """Name what this service needs and does not have at the moment (for /readyz)."""
        troubles = {
            "store": await _trouble(self._read()) or await self._disk("store"),
            "bus": await _trouble(self.lag()) or await self._disk("bus"),
            "relay": self.relay.trouble,
            "partitions": "; ".join(
                f"{topic}/{partition} stopped: {reason_of(failure)}"
                for (topic, partition), failure in self._stopped.items()
            ),
        }
        return {f"{self.service.name}.{name}": why for name, why in troubles.items() if why}

    async def _read(self) -> None:
        """Read as little as can be: to be asked often must not make a slow store slower."""
        for kind in self._aggregates[:1]:
            await self.store.get(kind, "")

    async def _disk(self, part: str) -> str | None:
        folder = self.disks.get(part)
        return None if folder is None else await _trouble(asyncio.to_thread(require_room, folder))

    @property
    def _stopped(self) -> Mapping[Position, Exception]:
        return {} if self._subscription is None else self._subscription.failures

    async def _lag_seconds(self) -> float:
        return (await self.lag()).seconds


async def _trouble(question: Awaitable[object]) -> str | None:
    """Return why there is no answer, None where there is one in time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await question
    except TimeoutError:
        return f"no answer within {ANSWER_SECONDS:g} s"
    except RapportError as error:
        return error.reason
    return None


def open_bus(settings: Settings, clock: Clock | None = None) -> Bus:
    """Return the bus that `RAPPORT_BUS` names; raises Invalid for a name that is none."""
    scheme, _, place = settings.bus.partition(":")
    if scheme == "embedded" and place:
        from rapport.common.bus.embedded import EmbeddedBus

        return EmbeddedBus(Path(place), clock=clock or SystemClock())
    if scheme == "kafka":
        from rapport.common.bus.kafka import KafkaBus, client_options

        return KafkaBus(kafka_servers(settings), clock=clock, client=client_options(settings))
    raise Invalid("RAPPORT_BUS: expected embedded:PATH or kafka://HOST:PORT,...")


def disks_of(settings: Settings) -> dict[str, Path]:
    """Return the folders that bus and store write to, where they are files of this machine."""
    kind, _, log_file = settings.bus.partition(":")
    found = {"bus": Path(log_file).parent} if kind == "embedded" else {}
    kind, _, folder = settings.store.partition(":")
    return found | ({"store": Path(folder)} if kind == "sqlite" else {})


def kafka_servers(settings: Settings) -> str:
    """Return the brokers that `RAPPORT_BUS` names, HOST:PORT with commas; raises Invalid."""
    scheme, _, place = settings.bus.partition("://")
    servers = place.rstrip("/")
    if scheme != "kafka" or not _SERVERS.fullmatch(servers):
        raise Invalid("RAPPORT_BUS: expected kafka://HOST:PORT,...")
    return servers


def open_store(settings: Settings, service: Service) -> Store:
    """Return the store of one service that `RAPPORT_STORE` names; raises Invalid as `open_bus`."""
    scheme, _, place = settings.store.partition(":")
    if scheme == "sqlite" and place:
        from rapport.common.store.sqlite import SqliteStore

        return SqliteStore(Path(place) / f"{service.name}.db", service.kinds)
    if scheme in ("mongodb", "mongodb+srv") and place.strip("/"):
        from rapport.common.store.mongo import open_mongo

        return open_mongo(settings, service.name, service.kinds)
    raise Invalid("RAPPORT_STORE: expected sqlite:FOLDER or mongodb://HOST:PORT/NAME?...")
