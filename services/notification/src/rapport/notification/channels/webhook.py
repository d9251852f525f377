"""Webhooks: signed JSON over HTTPS, as Standard Webhooks 1.0 describes.

The body is the same bytes at every attempt, `webhook-id` is the notification's id, and the
signature covers id, time of the attempt and body. A receiver that rotates its secret gets one
signature for each. Redirects are failures, 410 ends it for good, Retry-After is honoured. URLs come
from users: `addresses` decides where a connection may go.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpcore2
import httpx2

from rapport.notification.channels import Delivered, Outcome, Outgoing, Reason, Refused, Retry
from rapport.notification.channels.addresses import (
    AddressPolicy,
    AddressRefused,
    CheckedNetwork,
)
from rapport.notification.channels.tls import is_tls_failure, tls_context

PREFIX: Final = "whsec_"
LONGEST_ANSWER: Final = 65_536
ANSWER_SECONDS: Final = 2.0
"""How long the rest of an answer is waited for, whose beginning has told all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """How patient we are, in seconds, and how many receivers are talked to at once.

    `timeout` is for a whole attempt, the wait for a free connection included, `connect_timeout` for
    each address of a host, `keep_alive` for an idle connection. `ca_file` adds certificate
    authorities to the system's.
    """

    timeout: float = 15.0
    connect_timeout: float = 5.0
    connections: int = 256
    keep_alive: float = 30.0
    ca_file: Path | None = None


class WebhookChannel:
    """Posts to the receiver's URL through connections that are kept open for a while."""

    name = "webhook"

    def __init__(self, policy: AddressPolicy, config: WebhookConfig | None = None) -> None:
        self._policy = policy
        self._config = config or WebhookConfig()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls_context(self._config.ca_file),
            max_connections=self._config.connections,
            keepalive_expiry=self._config.keep_alive,
            network_backend=CheckedNetwork(policy),
        )

    async def send(self, message: Outgoing) -> Outcome:
        """Post the message once."""
        if message.exercise is not None:
            return Refused(Reason.EXERCISE)
        try:
            url = self._policy.check(message.to)
            body = payload(message)
            headers = signed_headers(message, int(time.time()), body)
        except AddressRefused as refused:
            return Refused(refused.cause)
        except UnsignedWebhook:
            return Refused(Reason.UNSIGNED)
        except UnicodeEncodeError:
            return Refused(Reason.MALFORMED_MESSAGE)
        return await self._post(url, headers, body)

    async def close(self) -> None:
        """Close the kept connections."""
        await self._pool.aclose()

    async def _post(self, url: httpx2.URL, headers: dict[str, str], body: bytes) -> Outcome:
        """Return what the answer's status means, whatever becomes of the rest of the answer.

        A receiver that has said 200 has the message.
        """
        answered: Outcome | None = None
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                self._answer(url, headers, body) as response,
            ):
                after = _header(response, b"retry-after")
                answered = outcome_of(response.status, after, time.time())
                await _read_through(response)
                return answered
        except (TimeoutError, httpcore2.TimeoutException):
            return answered or Retry(Reason.TIMEOUT)
        except AddressRefused as refused:
            return Refused(refused.cause)
        except socket.gaierror:
            return Retry(Reason.UNRESOLVED)
        except httpcore2.ConnectError as error:
            return Retry(Reason.TLS if is_tls_failure(error) else Reason.CONNECTION_REFUSED)
        except (httpcore2.NetworkError, httpcore2.ProtocolError):
            return answered or Retry(Reason.CONNECTION_LOST)

    def _answer(
        self, url: httpx2.URL, headers: dict[str, str], body: bytes
    ) -> AbstractAsyncContextManager[httpcore2.Response]:
        return self._pool.stream(
            "POST",
            httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=[("host", url.netloc.decode("ascii")), *headers.items()],
            content=body,
            extensions={"timeout": {"connect": self._config.connect_timeout}},
        )


async def _read_through(response: httpcore2.Response) -> None:
    """Read a short answer to its end, so that the connection stays usable; leave any other."""
    read = 0
    with suppress(TimeoutError, httpcore2.NetworkError, httpcore2.ProtocolError):
        async with asyncio.timeout(ANSWER_SECONDS):
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read > LONGEST_ANSWER:
                    return


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    return next((v.decode("latin-1") for k, v in response.headers if k.lower() == name), None)


def outcome_of(status: int, retry_after: str | None, now: float) -> Outcome:
    """Return what an HTTP answer means; `now` (Unix seconds) is for a Retry-After date."""
    match status:
        case _ if 200 <= status < 300:
            return Delivered(str(status))
        case 410:
            return Refused(Reason.GONE, disable=True)
        case 429:
            return Retry(Reason.THROTTLED, wait_of(retry_after, now))
        case 503:
            return Retry(Reason.SERVER_ERROR, wait_of(retry_after, now))
        case 401 | 403:
            return Retry(Reason.AUTH)
        case _ if 300 <= status < 400:
            return Retry(Reason.REDIRECT)
        case _ if 400 <= status < 500:
            return Retry(Reason.REJECTED_MESSAGE)
        case _:
            return Retry(Reason.SERVER_ERROR)


def wait_of(retry_after: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def payload(message: Outgoing) -> bytes:
    """Return the body: type, timestamp and data, in the same bytes at every attempt."""
    data = {
        "id": message.notification_id,
        "language": message.language,
        "subject": message.subject,
        "text": message.text,
        "statement_hash": message.statement_hash,
        "details": message.data or None,
    }
    body = {
        "type": f"rapport.{message.kind}",
        "timestamp": message.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": {name: value for name, value in data.items() if value is not None},
    }
    return json.dumps(
        body, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


class UnsignedWebhook(ValueError):
    """There is no usable secret to sign with."""


def new_secret() -> str:
    """Return a fresh signing secret of 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def secret_key(secret: str) -> bytes:
    """Return the key in a `whsec_` secret; raises UnsignedWebhook unless it has 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise UnsignedWebhook("a webhook secret is whsec_ and base64") from None
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise UnsignedWebhook("a webhook secret is whsec_ and 24 to 64 bytes in base64")
    return key


def sign(keys: Iterable[bytes], id: str, timestamp: int, body: bytes) -> str:
    """Return a webhook's signatures, one for each key: HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{id}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


def signed_headers(message: Outgoing, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt at `timestamp` (Unix seconds)."""
    return {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Rapport-Webhooks/1.0",
        "webhook-id": message.notification_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(_keys(message.secrets), message.notification_id, timestamp, body),
    }


def _keys(secrets: Sequence[str]) -> list[bytes]:
    if not secrets:
        raise UnsignedWebhook("the receiver has no secret")
    return [secret_key(secret) for secret in secrets]
