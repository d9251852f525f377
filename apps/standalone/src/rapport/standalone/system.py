"""The whole system in one process: five services, one embedded bus, one port, one data directory.

The data directory holds the log of events, a store per service and the installation's keys. It
belongs to one process at a time (the bus locks it); everything else goes over HTTP.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from rapport.analytics.service import SERVICE as ANALYTICS
from rapport.common.auth import Signer, write_secret
from rapport.common.bus.port import Bus
from rapport.common.clock import Clock, clock_led_by
from rapport.common.errors import TemporaryError
from rapport.common.http import Front, create_app, operations
from rapport.common.jwks import open_verifier
from rapport.common.runtime import Running, Service, disks_of, open_bus, open_store
from rapport.common.serving import listening
from rapport.common.settings import Settings
from rapport.intake.service import SERVICE as INTAKE
from rapport.knowledge.service import SERVICE as KNOWLEDGE
from rapport.notification.service import SERVICE as NOTIFICATION
from rapport.routing.service import SERVICE as ROUTING
from rapport.standalone.data_files import KEYS, check_files, log_of, mark_new_stores
from rapport.standalone.openapi import offer
from rapport.standalone.operations.api import router as operating

HOST: Final = "127.0.0.1"

SERVICES: Final[dict[str, Service]] = {
    service.name: service for service in (INTAKE, ROUTING, NOTIFICATION, KNOWLEDGE, ANALYTICS)
}


@dataclass(frozen=True)
class System:
    """The running system: where it answers, and what standalone code may ask of it directly."""

    url: str
    signer: Signer
    bus: Bus
    clock: Clock
    services: Mapping[str, Running]

    def token(self, subject: str, *roles: str) -> str:
        """Mint a token."""
        return self.signer.mint(subject, roles)

    @property
    def urls(self) -> Mapping[str, str]:
        """Where each service answers: all at the same address."""
        return dict.fromkeys(self.services, self.url)

    async def next_due(self) -> Sequence[datetime]:
        """Return when the next item of each service falls due."""
        found = [await running.scheduler.next_due() for running in self.services.values()]
        return [due for due in found if due is not None]

    async def quiet(self) -> bool:
        """Tell whether nothing is on its way anywhere."""
        for running in self.services.values():
            if not await running.quiet():
                return False
        return True

    async def rest(self) -> dict[str, Any]:
        """Say whether all is quiet, and when something falls due (for /rest)."""
        quiet = await self.quiet()
        due = min(await self.next_due(), default=None)
        return {"quiet": quiet, "next_due": due and due.isoformat()}

    async def missing(self) -> dict[str, str]:
        """Name what any service lacks (for /readyz)."""
        found: dict[str, str] = {}
        for running in self.services.values():
            found |= await running.missing()
        return found


def keys(folder: Path) -> dict[str, Any]:
    """Return the installation's secrets as settings, making those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"auth_keys": folder / "verify.json"}
    for name in ("person_key", "status_key"):
        path = folder / name
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(32))
        found[name] = path.read_text().strip()
    return found


def signer_of(data_dir: Path, settings: Settings) -> Signer:
    """Return what signs tokens that services with these settings take; makes the key if need be."""
    return Signer.open(data_dir / KEYS, settings.auth_issuer, settings.auth_audience)


@asynccontextmanager
async def system(
    data_dir: Path,
    *,
    host: str = HOST,
    port: int = 8080,
    clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[System]:
    """Run everything while the block runs; `settings` win over the environment.

    All services go by one clock: `clock` or, unless it is given, the one that the settings name.
    Raises PermanentError where the files in `data_dir` do not belong together, TemporaryError where
    they cannot be used or another process has them.
    """
    check_files(data_dir, SERVICES)
    try:
        given = {
            "bus": f"embedded:{log_of(data_dir)}",
            "store": f"sqlite:{data_dir}",
            **keys(data_dir / KEYS),
            **(settings or {}),
        }
        common = Settings.load(**given)
        signer = signer_of(data_dir, common)
    except OSError as error:
        raise TemporaryError(f"{data_dir} cannot be used: {error.strerror}") from error
    led_by = common.clock_file
    clock = clock or clock_led_by(led_by)
    async with AsyncExitStack() as stack:
        services: dict[str, Running] = {}
        bus: Bus | None = None
        for name, service in SERVICES.items():
            own = service.settings.load(**given)
            if bus is None:
                bus = open_bus(own, clock)
                await bus.start()
                stack.push_async_callback(bus.stop)
                mark_new_stores(data_dir, SERVICES)
                verifier = await stack.enter_async_context(open_verifier(own))
                stack.push_async_callback(_drain, services)
            store = open_store(own, service)
            running = Running(service, own, bus, store, clock, verifier, disks_of(own))
            await running.start()
            services[name] = running
        assert bus is not None
        up = System("", signer, bus, clock, services)
        apps = {name: running.app for name, running in services.items()}
        apps["operations"] = create_app(
            "operations", "Operations", operating, verifier=verifier, bus=bus
        )
        other = operations(up.missing, None if led_by is None else up.rest)
        offer(other, SERVICES.values())
        front = Front(dict(apps), other)
        bound = await stack.enter_async_context(listening(front, host, port))
        yield System(f"http://{host}:{bound}", signer, bus, clock, services)


async def _drain(services: Mapping[str, Running]) -> None:
    """Let all services finish what is in flight, side by side, so that it takes as long as one."""
    ended = await asyncio.gather(
        *(running.stop(running.settings.drain_seconds) for running in services.values()),
        return_exceptions=True,
    )
    for failure in ended:
        if failure is not None:
            raise failure


class HasTokens(Protocol):
    """Whatever mints tokens."""

    def token(self, subject: str, *roles: str) -> str:
        """Mint a token."""


PEOPLE: Final = {
    "publisher": "web-shop",
    "viewer": "vic",
    "agent": "ana",
    "lead": "lin",
    "pr": "paula",
    "approver": "louis",
    "admin": "admin",
}
"""Somebody for each role; those inside are in the built-in teams and approver groups."""


def role_tokens(up: HasTokens) -> dict[str, str]:
    """Return a token per role, to try things with."""
    return {role: up.token(subject, role) for role, subject in PEOPLE.items()}
