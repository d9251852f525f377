"""Settings come from the environment (`RAPPORT_*`), or from files of the same names in a folder.

`RAPPORT_SECRETS_DIR` names that folder (as container platforms mount secrets); a variable wins over
a file. A wrong value stops the start with the setting's name and what was expected.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, DirectoryPath, Field, FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rapport.common.errors import FieldProblem, Invalid

PREFIX = "RAPPORT_"
SHORTEST_SECRET = 32
"""Bytes of a secret that is needed."""


def _parts(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Parts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
"""A setting of several values, written with commas between them."""


class Settings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    bus: str = Field(
        "embedded:data/bus.db",
        description="Where events go: `embedded:PATH`, or `kafka://HOST:PORT,...`.",
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to: with TLS, SASL, both or neither."
    )
    kafka_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism."
    )
    kafka_username: str | None = Field(
        None, description="User at the brokers; with OAUTHBEARER, the client's id."
    )
    kafka_password: SecretStr | None = Field(
        None, description="Password at the brokers; with OAUTHBEARER, the client's secret."
    )
    kafka_token_url: str | None = Field(
        None,
        description="With OAUTHBEARER: where access tokens are asked for (client credentials).",
    )
    kafka_token_scope: str | None = Field(
        None, description="With OAUTHBEARER: the scope that is asked for."
    )
    kafka_ca_file: Path | None = Field(
        None,
        description="Certificates (PEM) that brokers are trusted by; the system's unless given.",
    )
    kafka_certificate_file: Path | None = Field(
        None, description="Our own certificate (PEM), where brokers ask for one."
    )
    kafka_key_file: Path | None = Field(None, description="The key (PEM) of that certificate.")
    store: str = Field(
        "sqlite:data",
        description="Where aggregates live: `sqlite:FOLDER`, or `mongodb://HOST:PORT/NAME?...`; "
        "each service has a database of its own, `NAME_service`.",
    )
    store_driver: Literal["pymongo", "motor"] = Field(
        "pymongo", description="Client of MongoDB: PyMongo's own for asyncio, or Motor."
    )
    store_username: str | None = Field(None, description="User at MongoDB.")
    store_password: SecretStr | None = Field(None, description="Password at MongoDB.")
    store_ca_file: Path | None = Field(
        None, description="Certificates (PEM) that MongoDB is trusted by; given, TLS is used."
    )
    store_certificate_file: Path | None = Field(
        None, description="Our own certificate and key (PEM), where MongoDB asks for one."
    )
    http_host: str = Field("127.0.0.1", description="Address that the HTTP server listens on.")
    http_port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server; 0 is any.")
    policy_dir: DirectoryPath | None = Field(
        None, description="Folder of YAML policies that replace the built-in ones, by service."
    )
    auth_issuer: str = Field("rapport", description="The `iss` that tokens must carry.")
    auth_audience: str = Field("rapport", description="The `aud` that tokens must carry.")
    auth_keys: Path = Field(
        Path("data/keys/verify.json"), description="JSON Web Key Set that tokens are checked with."
    )
    auth_jwks_url: str | None = Field(
        None,
        description="Address (https) of the identity provider's JSON Web Key Set; given, it takes "
        "the place of the file. Where it does not answer at the start, the process ends.",
    )
    person_key: SecretStr = Field(
        SecretStr(""),
        description="Secret that persons' contact points are hashed with, the same for every "
        "service and replica; at least 32 bytes, such as `openssl rand -hex 32` makes. Needed by "
        "each process that runs one service.",
    )
    drain_seconds: float = Field(
        20.0,
        ge=0,
        description="How long each part may finish what is in flight when it is told to stop; "
        "less than half of what the platform's grace period is.",
    )
    clock_file: FilePath | None = Field(
        None,
        description="File of a clock that is followed in place of the machine's, in demos and "
        "drills; `/rest` then tells whether the service has come to rest.",
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

    def check_secrets(self) -> None:
        """Raise Invalid naming every secret that is needed and missing, or short enough to guess.

        A secret that a process can do without is declared as optional.
        """
        problems = [
            FieldProblem(
                f"{PREFIX}{name}".upper(),
                f"expected a secret of at least {SHORTEST_SECRET} bytes, the same for every "
                "replica; `openssl rand -hex 32` makes one",
            )
            for name, field in type(self).model_fields.items()
            if field.annotation is SecretStr
            and len(getattr(self, name).get_secret_value().encode()) < SHORTEST_SECRET
        ]
        if problems:
            raise _wrong(problems)


def _wrong(problems: Sequence[FieldProblem]) -> Invalid:
    reasons = "; ".join(f"{item.pointer}: {item.reason}" for item in problems)
    return Invalid(f"wrong settings: {reasons}", problems)
