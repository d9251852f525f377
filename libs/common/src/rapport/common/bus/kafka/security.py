"""How brokers are spoken to: settings turned into the client's options, or refused by their names.

With OAUTHBEARER the client asks for a token whenever it connects; one is kept until shortly before
it ends.
"""

import asyncio
import ssl
from time import monotonic
from typing import Any, Final

import httpx2
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import SecretStr

from rapport.common.errors import FieldProblem, Invalid
from rapport.common.settings import PREFIX, Settings

TOKEN_SECONDS: Final = 10.0
EARLY_SECONDS: Final = 30.0
DEFAULT_LIFE_SECONDS: Final = 300.0


def client_options(settings: Settings) -> dict[str, Any]:
    """Return what clients of the brokers are told; raises Invalid naming every setting at fault."""
    if problems := list(_problems(settings)):
        reasons = "; ".join(f"{item.pointer}: {item.reason}" for item in problems)
        raise Invalid(f"wrong settings: {reasons}", problems)
    options: dict[str, Any] = {"security_protocol": settings.kafka_security}
    if _has_tls(settings):
        options["ssl_context"] = _tls(settings)
    if _has_sasl(settings):
        options |= _sasl(settings)
    return options


def _has_tls(settings: Settings) -> bool:
    return settings.kafka_security in ("SSL", "SASL_SSL")


def _has_sasl(settings: Settings) -> bool:
    return settings.kafka_security.startswith("SASL_")


def _problems(settings: Settings) -> list[FieldProblem]:
    """Return what is missing, and what is given and would not be used."""
    security = settings.kafka_security
    oauth = _has_sasl(settings) and settings.kafka_mechanism == "OAUTHBEARER"
    expected = {
        "kafka_username": _has_sasl(settings),
        "kafka_password": _has_sasl(settings),
        "kafka_token_url": oauth,
    }
    allowed = {
        "kafka_token_scope": oauth,
        "kafka_ca_file": _has_tls(settings),
        "kafka_certificate_file": _has_tls(settings),
        "kafka_key_file": _has_tls(settings) and settings.kafka_certificate_file is not None,
    }
    how = f"{PREFIX}KAFKA_SECURITY is {security}"
    if _has_sasl(settings):
        how += f" and {PREFIX}KAFKA_MECHANISM is {settings.kafka_mechanism}"
    problems = []
    for name, used in (expected | allowed).items():
        given = bool(_text(getattr(settings, name)))
        if given and not used:
            reason = f"expected none, as {how}"
            if name == "kafka_key_file" and _has_tls(settings):
                reason = f"expected only with {PREFIX}KAFKA_CERTIFICATE_FILE"
            problems.append(_problem(name, reason))
        elif not given and expected.get(name):
            problems.append(_problem(name, f"expected one, as {how}"))
    return problems


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _problem(name: str, reason: str) -> FieldProblem:
    return FieldProblem(f"{PREFIX}{name}".upper(), reason)


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    except (OSError, ssl.SSLError):
        raise _unreadable("kafka_ca_file", "a file of certificates (PEM)") from None
    if settings.kafka_certificate_file is not None:
        try:
            context.load_cert_chain(
                settings.kafka_certificate_file, settings.kafka_key_file, password=_no_password
            )
        except (OSError, ssl.SSLError):
            wanted = "a certificate (PEM) and the key that belongs to it, without a password"
            raise _unreadable("kafka_certificate_file", wanted) from None
    return context


def _no_password() -> str:
    """Give none: without this a key with a password would ask for it at the terminal."""
    return ""


def _unreadable(name: str, expected: str) -> Invalid:
    problem = _problem(name, f"expected {expected}")
    return Invalid(f"wrong settings: {problem.pointer}: {problem.reason}", [problem])


def _sasl(settings: Settings) -> dict[str, Any]:
    username, password = settings.kafka_username or "", _text(settings.kafka_password)
    options: dict[str, Any] = {"sasl_mechanism": settings.kafka_mechanism}
    if settings.kafka_mechanism != "OAUTHBEARER":
        return options | {"sasl_plain_username": username, "sasl_plain_password": password}
    provider = ClientCredentials(
        settings.kafka_token_url or "", username, password, settings.kafka_token_scope
    )
    return options | {"sasl_oauth_token_provider": provider}


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """Access tokens by OAuth's client credentials grant."""

    def __init__(self, url: str, client: str, secret: str, scope: str | None = None) -> None:
        self._url = url
        self._client = client
        self._secret = secret
        self._scope = scope
        self._token = ""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that is good for a while; KafkaConnectionError where there is none."""
        async with self._asking:
            if monotonic() >= self._until:
                self._token, life = await self._ask()
                self._until = monotonic() + max(life - EARLY_SECONDS, life / 2)
            return self._token

    async def _ask(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        try:
            async with httpx2.AsyncClient(timeout=TOKEN_SECONDS) as http:
                answer = await http.post(self._url, data=form, auth=(self._client, self._secret))
            return _token_of(answer.raise_for_status().json())
        except (httpx2.HTTPError, ValueError) as error:
            raise KafkaConnectionError(
                f"{PREFIX}KAFKA_TOKEN_URL gives no access token: {type(error).__name__}"
            ) from None


def _token_of(answer: object) -> tuple[str, float]:
    """Return a token and its life in seconds; raises ValueError where there is none."""
    match answer:
        case {"access_token": str(token), "expires_in": int() | float() | str() as life}:
            return token, float(life)
        case {"access_token": str(token)}:
            return token, DEFAULT_LIFE_SECONDS
    raise ValueError("no access_token")
