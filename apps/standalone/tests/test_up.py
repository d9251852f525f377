"""`rapport up` does as it was told by its settings, and says little unless it was told to."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import structlog
from click.testing import CliRunner

from rapport.common.auth import Verifier
from rapport.common.clock import LeadingClock
from rapport.common.errors import TemporaryError
from rapport.common.runtime import Running
from rapport.common.settings import Settings
from rapport.intake.settings import Settings as IntakeSettings
from rapport.standalone import cli
from rapport.standalone.system import SERVICES, signer_of, system

PATIENCE: Final = 60.0


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Leave logging as it was."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


def test_a_token_is_of_an_installation_that_is_there(tmp_path: Path) -> None:
    asked = ["token", "--subject", "ana", "--roles", "agent", "--data-dir", str(tmp_path / "x")]
    ended = CliRunner().invoke(cli.rapport, asked)
    assert (ended.exit_code, "holds no installation" in ended.output) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_one_that_the_services_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPPORT_AUTH_ISSUER", "us")
    signer_of(tmp_path, Settings.load())
    asked = ["token", "--subject", "ana", "--roles", "agent", "--data-dir", str(tmp_path)]
    token = CliRunner().invoke(cli.rapport, asked).output.strip()
    verifier = Verifier.from_file(tmp_path / "keys" / "verify.json", "us", "rapport")
    assert verifier.verify(token).subject == "ana"


async def test_settings_win_over_the_secrets_of_the_installation(tmp_path: Path) -> None:
    given = {"status_key": "another secret of over thirty-two bytes"}
    async with system(tmp_path, port=0, settings=given) as up:
        used = up.services["intake"].settings
    assert isinstance(used, IntakeSettings)
    assert used.status_key.get_secret_value() == given["status_key"]


async def test_every_service_may_drain_for_as_long_as_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, float | None] = {}
    stop = Running.stop

    async def stop_and_tell(running: Running, drain: float | None = None) -> None:
        given[running.service.name] = drain
        await stop(running, *(() if drain is None else (drain,)))

    monkeypatch.setattr(Running, "stop", stop_and_tell)
    monkeypatch.setenv("RAPPORT_DRAIN_SECONDS", "7.5")
    async with system(tmp_path, port=0):
        pass
    assert given == dict.fromkeys(SERVICES, 7.5)


async def test_all_services_follow_the_clock_that_is_set_and_say_when_they_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    led_by = tmp_path / "clock"
    leader = LeadingClock(datetime(2040, 1, 2, 9, tzinfo=UTC), led_by)
    monkeypatch.setenv("RAPPORT_CLOCK_FILE", str(led_by))
    async with (
        system(tmp_path / "data", port=0) as up,
        httpx2.AsyncClient(base_url=up.url, trust_env=False) as http,
    ):
        leader.move(timedelta(days=365))
        clocks = [up.clock, *(running.clock for running in up.services.values())]
        assert {clock.now().year for clock in clocks} == {2041}
        async with asyncio.timeout(PATIENCE):
            while not (rest := (await http.get("/rest")).json())["quiet"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert datetime.fromisoformat(rest["next_due"]).year == 2041


@asynccontextmanager
async def no_system(*_: Any, **__: Any) -> AsyncIterator[None]:
    raise TemporaryError("another process has the data directory")
    yield


@pytest.mark.parametrize(("setting", "level"), [(None, "WARNING"), ("DEBUG", "DEBUG")])
def test_it_logs_from_the_level_that_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str | None, level: str
) -> None:
    monkeypatch.setattr(cli, "system", no_system)
    if setting is not None:
        monkeypatch.setenv("RAPPORT_LOG_LEVEL", setting)
    ended = CliRunner().invoke(cli.rapport, ["up", "--data-dir", str(tmp_path)])
    assert ended.output == "Error: another process has the data directory\n"
    assert logging.getLevelName(logging.getLogger().level) == level


@pytest.mark.parametrize(
    ("name", "value"), [("RAPPORT_LOG_LEVEL", "LOUD"), ("OTEL_TRACES_EXPORTER", "zipkin")]
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "system", no_system)
    ended = CliRunner().invoke(cli.rapport, ["up", "--data-dir", str(tmp_path)])
    assert ended.exit_code == 1
    assert name in ended.output
