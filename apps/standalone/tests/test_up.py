"""`rapport up`: how much it says is what it was told, and little unless it was told."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from rapport.common.auth import Verifier
from rapport.common.errors import TemporaryError
from rapport.common.settings import Settings
from rapport.intake.settings import Settings as IntakeSettings
from rapport.standalone import cli
from rapport.standalone.system import signer_of, system


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
