"""Settings come from the environment (`RAPPORT_*`), or from files of the same names in a folder.

`RAPPORT_SECRETS_DIR` names that folder (as container platforms mount secrets); a variable wins over
a file. A wrong value stops the start with the setting's name and what was expected.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rapport.common.errors import FieldProblem, Invalid

PREFIX = "RAPPORT_"


def _parts(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Parts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
"""A setting of several values, written with commas between them."""


class Settings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    bus: str = Field("embedded:data/bus.db", description="Where events go: `embedded:PATH`.")
    store: str = Field("sqlite:data", description="Where aggregates live: `sqlite:FOLDER`.")
    http_host: str = Field("127.0.0.1", description="Address that the HTTP server listens on.")
    http_port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server; 0 is any.")
    policy_dir: Path | None = Field(
        None, description="Folder of YAML policies that replace the built-in ones, by service."
    )
    auth_issuer: str = Field("rapport", description="The `iss` that tokens must carry.")
    auth_audience: str = Field("rapport", description="The `aud` that tokens must carry.")
    auth_keys: Path = Field(
        Path("data/keys/verify.json"), description="JSON Web Key Set that tokens are checked with."
    )
    person_key: SecretStr = Field(
        SecretStr(""), description="Secret that persons' contact points are hashed with."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged."
    )

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the settings; raises Invalid naming every variable that is wrong."""
        folder = os.environ.get(f"{PREFIX}SECRETS_DIR")
        if folder is not None and not Path(folder).is_dir():
            raise _wrong([FieldProblem(f"{PREFIX}SECRETS_DIR", "there is no such folder")])
        try:
            return cls(_secrets_dir=folder, **overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = [
                FieldProblem(
                    f"{PREFIX}{'_'.join(str(part) for part in item['loc'])}".upper(), item["msg"]
                )
                for item in error.errors(include_input=False, include_url=False)
            ]
            raise _wrong(problems) from None


def _wrong(problems: Sequence[FieldProblem]) -> Invalid:
    reasons = "; ".join(f"{item.pointer}: {item.reason}" for item in problems)
    return Invalid(f"wrong settings: {reasons}", problems)
