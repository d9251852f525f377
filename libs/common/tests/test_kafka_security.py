"""How brokers are spoken to: wrong combinations are refused by name, tokens are asked for once."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiokafka.errors import KafkaConnectionError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from rapport.common.bus.kafka import client_options
from rapport.common.bus.kafka.security import ClientCredentials
from rapport.common.errors import Invalid
from rapport.common.settings import Settings

SCRAM = {"kafka_username": "ana", "kafka_password": "secret"}


def options(security: str = "PLAINTEXT", **more: object) -> dict[str, Any]:
    return client_options(Settings.load(kafka_security=security, **more))


def refusal(security: str, **more: object) -> dict[str, str]:
    """Return what is said of each setting at fault."""
    with pytest.raises(Invalid) as refused:
        options(security, **more)
    assert "secret" not in refused.value.reason
    return {problem.pointer: problem.reason for problem in refused.value.problems}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, its key, the same key with a password, and what is neither."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rapport")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    for file, how in (("key", NoEncryption()), ("locked", BestAvailableEncryption(b"secret"))):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        (folder / f"{file}.pem").write_bytes(pem)
    (folder / "neither.pem").write_text("neither")
    return folder


def test_without_settings_brokers_are_spoken_to_in_the_clear() -> None:
    assert options() == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_a_user_and_a_password(mechanism: str) -> None:
    assert options("SASL_PLAINTEXT", kafka_mechanism=mechanism, **SCRAM) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "ana",
        "sasl_plain_password": "secret",
    }


def test_tls_checks_the_brokers_and_may_show_a_certificate(files: Path) -> None:
    for more in (
        {},
        {"kafka_ca_file": files / "certificate.pem"},
        {
            "kafka_certificate_file": files / "certificate.pem",
            "kafka_key_file": files / "key.pem",
        },
    ):
        context = options("SSL", **more)["ssl_context"]
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


def test_what_is_missing_is_named() -> None:
    assert refusal("SASL_SSL") == {
        "RAPPORT_KAFKA_USERNAME": "expected one, as RAPPORT_KAFKA_SECURITY is SASL_SSL "
        "and RAPPORT_KAFKA_MECHANISM is SCRAM-SHA-512",
        "RAPPORT_KAFKA_PASSWORD": "expected one, as RAPPORT_KAFKA_SECURITY is SASL_SSL "
        "and RAPPORT_KAFKA_MECHANISM is SCRAM-SHA-512",
    }
    assert set(refusal("SASL_SSL", kafka_mechanism="OAUTHBEARER")) == {
        "RAPPORT_KAFKA_USERNAME",
        "RAPPORT_KAFKA_PASSWORD",
        "RAPPORT_KAFKA_TOKEN_URL",
    }


def test_what_would_not_be_used_is_named(files: Path) -> None:
    """Whoever gives a password or certificates expects them to be used."""
    assert set(refusal("SSL", **SCRAM)) == {"RAPPORT_KAFKA_USERNAME", "RAPPORT_KAFKA_PASSWORD"}
    assert set(refusal("PLAINTEXT", kafka_ca_file=files / "certificate.pem")) == {
        "RAPPORT_KAFKA_CA_FILE"
    }
    assert set(refusal("SASL_SSL", kafka_token_url="http://id.example", **SCRAM)) == {
        "RAPPORT_KAFKA_TOKEN_URL"
    }
    assert refusal("SSL", kafka_key_file=files / "key.pem") == {
        "RAPPORT_KAFKA_KEY_FILE": "expected only with RAPPORT_KAFKA_CERTIFICATE_FILE"
    }


def test_files_that_cannot_be_used_are_named(files: Path) -> None:
    for wrong in ("neither.pem", "nowhere.pem"):
        assert set(refusal("SSL", kafka_ca_file=files / wrong)) == {"RAPPORT_KAFKA_CA_FILE"}
    for key in ("locked.pem", "neither.pem", "nowhere.pem"):
        found = refusal(
            "SSL",
            kafka_certificate_file=files / "certificate.pem",
            kafka_key_file=files / key,
        )
        assert set(found) == {"RAPPORT_KAFKA_CERTIFICATE_FILE"}


class Issuer:
    """An HTTP server that issues tokens."""

    def __init__(self) -> None:
        self.answer: object = {"access_token": "token-1", "expires_in": 3600}
        self.status = 200
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        credentials = next(line for line in head.split("\r\n") if "Basic " in line)
        user = base64.b64decode(credentials.partition("Basic ")[2]).decode()
        self.asked.append((user, parse_qs(body.decode())))
        answer = json.dumps(self.answer).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (self.status, len(answer), answer)
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    yield issuer
    server.close()
    await server.wait_closed()


async def test_a_token_is_asked_for_once_while_it_is_good() -> None:
    async with serving() as issuer:
        given = options(
            "SASL_SSL",
            kafka_mechanism="OAUTHBEARER",
            kafka_token_url=issuer.url,
            kafka_token_scope="kafka",
            **SCRAM,
        )
        provider = given["sasl_oauth_token_provider"]
        tokens = await asyncio.gather(*(provider.token() for _ in range(5)))
        assert tokens == ["token-1"] * 5
        form = {"grant_type": ["client_credentials"], "scope": ["kafka"]}
        assert issuer.asked == [("ana:secret", form)]


async def test_a_token_that_ends_is_replaced() -> None:
    async with serving() as issuer:
        provider = ClientCredentials(issuer.url, "ana", "secret")
        issuer.answer = {"access_token": "token-1", "expires_in": 0}
        assert await provider.token() == "token-1"
        issuer.answer = {"access_token": "token-2", "expires_in": 3600}
        assert [await provider.token() for _ in range(3)] == ["token-2"] * 3
        assert len(issuer.asked) == 2


async def test_without_a_token_there_is_no_connection() -> None:
    async with serving() as issuer:
        provider = ClientCredentials(issuer.url, "ana", "secret")
        for status, answer in ((401, {}), (200, {"token": "x"}), (200, [])):
            issuer.status, issuer.answer = status, answer
            with pytest.raises(KafkaConnectionError, match="RAPPORT_KAFKA_TOKEN_URL gives no"):
                await provider.token()
    with pytest.raises(KafkaConnectionError, match="RAPPORT_KAFKA_TOKEN_URL gives no"):
        await provider.token()
