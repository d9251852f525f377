"""The outside world of the demo: a mail server, webhook receivers, a listener on the live stream.

They are real servers and a real client on the loopback, and know nothing of Rapport but its
interfaces: SMTP, Standard Webhooks 1.0 and server-sent events. A webhook whose signature does not
verify is refused and remembered as forged.
"""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from hashlib import sha256
from typing import Any, Final

import httpx2
from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rapport.common.serving import listening
from rapport.standalone.system import HOST

TOLERANCE_SECONDS: Final = 300
"""How old a webhook's timestamp may be: Standard Webhooks' advice against replays."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as somebody outside got it; `id` is the notification's, which tells a repeat."""

    id: str
    channel: str
    to: str
    language: str
    subject: str
    text: str
    statement_hash: str | None = None
    right_to_left: bool = False


@dataclass
class MailServer:
    """An SMTP server that accepts everything."""

    port: int = 0
    arrived: list[Arrival] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep a message (aiosmtpd calls this)."""
        content = envelope.original_content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.arrived += [mail_as_read(message, to) for to in envelope.rcpt_tos]
        return "250 2.0.0 kept"


def mail_as_read(message: EmailMessage, to: str) -> Arrival:
    """Return an e-mail as its reader sees it."""
    text, html = (_part(message, subtype) for subtype in ("plain", "html"))
    return Arrival(
        id=str(message["Message-ID"]).strip("<>").partition("@")[0],
        channel="email",
        to=to,
        language=str(message["Content-Language"]),
        subject=str(message["Subject"]),
        text=text,
        right_to_left='dir="rtl"' in html,
    )


def _part(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    content = part.get_payload(decode=True) if part is not None else b""
    return content.decode() if isinstance(content, bytes) else ""


@dataclass
class WebhookReceiver:
    """Receivers of signed webhooks, one per path; `secrets` are theirs, by path."""

    authority: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    arrived: list[Arrival] = field(default_factory=list)
    forged: int = 0

    async def receive(self, request: Request) -> Response:
        """Answer 204 to a message whose signature verifies, 401 to any other."""
        body = await request.body()
        path = request.url.path
        if not is_signed(self.secrets.get(path, ""), request.headers, body, time.time()):
            self.forged += 1
            return Response(status_code=401)
        data = json.loads(body)["data"]
        self.arrived.append(
            Arrival(
                id=request.headers["webhook-id"],
                channel="webhook",
                to=path,
                language=data["language"],
                subject=data["subject"],
                text=data["text"],
                statement_hash=data.get("statement_hash"),
            )
        )
        return Response(status_code=204)


def is_signed(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Verify as Standard Webhooks 1.0 says: HMAC-SHA256 over `id.timestamp.body`, and its age.

    `secret` is `whsec_` and the key in base64, `now` in Unix seconds.
    """
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not secret or not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, sha256)
    signatures = headers.get("webhook-signature", "").split()
    return any(
        hmac.compare_digest(f"v1,{base64.b64encode(expected).decode()}", signature)
        for signature in signatures
    )


@dataclass
class Listener:
    """Somebody who listens to the live stream: every event, and what is addressed to the stream."""

    events: list[dict[str, Any]] = field(default_factory=list)
    arrived: list[Arrival] = field(default_factory=list)

    async def listen(self, http: httpx2.AsyncClient, token: str, connected: asyncio.Event) -> None:
        """Take in everything that the stream says, until cancelled."""
        headers = {"Authorization": f"Bearer {token}"}
        async with http.sse("/notification/v1/stream", headers=headers, timeout=None) as stream:
            connected.set()
            async for item in stream:
                self.hear(json.loads(item.data))

    def hear(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        self.events.append(event)
        data = event["data"]
        if event["type"] == "rapport.notification.delivered.v1" and data["channel"] == "stream":
            self.arrived.append(
                Arrival(
                    id=data["notification_id"],
                    channel="stream",
                    to=data["recipient"],
                    language=data["language"],
                    subject=data["subject"],
                    text=data["text"],
                    statement_hash=data["statement_hash"],
                )
            )


@dataclass
class Outside:
    """Everybody outside."""

    mail: MailServer
    webhooks: WebhookReceiver
    stream: Listener

    @property
    def arrived(self) -> list[Arrival]:
        """Everything that anybody got, channel by channel."""
        return [*self.mail.arrived, *self.webhooks.arrived, *self.stream.arrived]

    @asynccontextmanager
    async def listening_to(self, http: httpx2.AsyncClient, token: str) -> AsyncIterator[None]:
        """Listen to the live stream while the block runs."""
        connected = asyncio.Event()
        listening = asyncio.create_task(self.stream.listen(http, token, connected))
        waiting = asyncio.create_task(connected.wait())
        try:
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
            yield
        finally:
            waiting.cancel()
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    """Run the mail server and the webhook receivers while the block runs, each on a free port."""
    mail, webhooks = MailServer(), WebhookReceiver()
    app = Starlette(routes=[Route("/{path:path}", webhooks.receive, methods=["POST"])])
    async with AsyncExitStack() as stack:
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(mail, hostname="mail.example", enable_SMTPUTF8=True), HOST, 0
        )
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        mail.port = server.sockets[0].getsockname()[1]
        port = await stack.enter_async_context(listening(app, HOST, 0))
        webhooks.authority = f"{HOST}:{port}"
        yield Outside(mail, webhooks, Listener())
