"""Each service at work, and where its HTTP begins."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from joserfc.jwk import KeySet

from rapport.common.auth import Verifier
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.clock import SystemClock
from rapport.common.http import create_app
from rapport.common.testing import harness
from rapport.standalone.operations.api import router as operating
from rapport.standalone.system import SERVICES

from .cast import PUBLIC

OPERATIONS = "operations"


@dataclass(frozen=True)
class Door:
    """A service's name, its application and a client of it."""

    name: str
    app: FastAPI
    http: httpx2.AsyncClient


@pytest.fixture(params=[*SERVICES, OPERATIONS])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    """Each service, and what operators ask; tokens are checked with the keys of the cast."""
    name: str = request.param
    verifier = Verifier(KeySet([PUBLIC]), "rapport", "rapport")
    if name == OPERATIONS:
        bus = EmbeddedBus(tmp_path / "bus.db", clock=SystemClock())
        await bus.start()
        app = create_app(name, "Operations", operating, verifier=verifier, bus=bus)
        async with _client(app) as http:
            yield Door(name, app, http)
        await bus.stop()
        return
    async with harness(SERVICES[name]) as running:
        app = running.running.app
        app.state.verifier = verifier
        async with _client(app) as http:
            yield Door(name, app, http)


def _client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://rapport.test"
    )
