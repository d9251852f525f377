"""Settings: from the environment or from files, and what is wrong is named."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from rapport.common import settings
from rapport.common.errors import Invalid


class Settings(settings.Settings):
    """What a toy service can be told beyond the common settings."""

    kettle_size: int = Field(2, ge=1, description="Litres that the kettle holds.")
    kettle_colours: settings.Parts = Field((), description="Colours that it comes in.")
    kettle_secret: SecretStr = Field(SecretStr(""), description="What the kettle must not tell.")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has set does not count here."""
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"RAPPORT_{name}".upper(), raising=False)


def test_without_an_environment_everything_has_a_default() -> None:
    found = Settings.load()
    assert (found.bus, found.http_port, found.kettle_size) == ("embedded:data/bus.db", 8080, 2)


def test_the_environment_wins_over_the_defaults_and_what_is_given_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAPPORT_HTTP_PORT", "9000")
    monkeypatch.setenv("RAPPORT_KETTLE_SIZE", "3")
    monkeypatch.setenv("HTTP_PORT", "1")
    assert (Settings.load().http_port, Settings.load().kettle_size) == (9000, 3)
    assert Settings.load(http_port=0).http_port == 0


def test_every_wrong_setting_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_HTTP_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("RAPPORT_KETTLE_SIZE", "0")
    with pytest.raises(Invalid) as told:
        Settings.load()

    assert [problem.pointer for problem in told.value.problems] == [
        "RAPPORT_HTTP_PORT",
        "RAPPORT_KETTLE_SIZE",
    ]
    assert told.value.reason.startswith("wrong settings: RAPPORT_HTTP_PORT: ")
    assert "10.0.0.1" not in told.value.reason


def test_several_values_have_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_KETTLE_COLOURS", " red,  blue ,")
    assert Settings.load().kettle_colours == ("red", "blue")
    assert Settings.load(kettle_colours=("green",)).kettle_colours == ("green",)


def test_a_secret_may_come_from_a_file_and_a_variable_wins_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rapport_kettle_secret").write_text("from a file\n")
    (tmp_path / "rapport_kettle_size").write_text("5")
    monkeypatch.setenv("RAPPORT_SECRETS_DIR", str(tmp_path))
    found = Settings.load()
    assert (found.kettle_secret.get_secret_value(), found.kettle_size) == ("from a file", 5)

    monkeypatch.setenv("RAPPORT_KETTLE_SECRET", "from a variable")
    assert Settings.load().kettle_secret.get_secret_value() == "from a variable"


def test_a_file_may_have_the_name_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "RAPPORT_KETTLE_SECRET").write_text("from a file")
    monkeypatch.setenv("RAPPORT_SECRETS_DIR", str(tmp_path))
    assert Settings.load().kettle_secret.get_secret_value() == "from a file"


@pytest.mark.parametrize("setting", ["RAPPORT_SECRETS_DIR", "RAPPORT_POLICY_DIR"])
def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv(setting, str(tmp_path / "nowhere"))
    with pytest.raises(Invalid, match=setting):
        Settings.load()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_KETTLE_SECRET", "hush")
    assert "hush" not in repr(Settings.load())
    assert "hush" not in Settings.load().model_dump_json()
