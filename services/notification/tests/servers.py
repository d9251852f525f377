"""Real servers on the loopback for the channels' tests: an SMTP sink and an HTTP receiver.

They misbehave on request. What is slow waits for an event, never for time to pass.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class SmtpSink:
    """Keeps what it accepts; each answer can be replaced, `drop` hangs up on the message's end.

    It knows nobody at the address that it `refuses`.
    """

    port: int = 0
    accepted: list[Envelope] = field(default_factory=list)
    connections: int = 0
    mail: str | None = None
    rcpt: str | None = None
    refuses: str | None = None
    data: str = "250 2.0.0 queued"
    drop: bool = False
    hold: asyncio.Event | None = None

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.mail is None:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return self.mail or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == self.refuses:
            return "550 5.1.1 unknown"
        if self.rcpt is None:
            envelope.rcpt_tos.append(address)
        return self.rcpt or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hold:
            await self.hold.wait()
        if self.data.startswith("2"):
            self.accepted.append(envelope)
        if self.drop and server.transport:
            server.transport.close()
        return self.data

    def message(self) -> bytes:
        """The only accepted message, as it came over the wire."""
        (envelope,) = self.accepted
        return content(envelope)


def content(envelope: Envelope) -> bytes:
    assert isinstance(envelope.original_content, bytes)
    return envelope.original_content


@asynccontextmanager
async def smtp_sink(
    *, tls: ssl.SSLContext | None = None, starttls: bool = False, **options: Any
) -> AsyncIterator[SmtpSink]:
    """Run a sink: plain, with TLS from the first byte, or offering STARTTLS."""
    sink = SmtpSink()

    def accept() -> SMTP:
        sink.connections += 1
        return SMTP(
            sink,
            hostname="sink.test",
            enable_SMTPUTF8=options.pop("smtputf8", True),
            tls_context=tls if starttls else None,
            require_starttls=starttls,
            **options,
        )

    server = await asyncio.get_running_loop().create_server(
        accept, "127.0.0.1", 0, ssl=None if starttls else tls
    )
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        await server.wait_closed()


def password_check(user: str, password: str) -> Callable[..., AuthResult]:
    """Return an authenticator that knows one user."""

    def check(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        known = LoginPassword(user.encode(), password.encode())
        return AuthResult(success=data == known, handled=False)

    return check


@dataclass
class Request:
    """One HTTP request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Keeps what arrives and answers with `answer`, then hangs up if told; `hold` delays it."""

    host: str = "127.0.0.1"
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    hang_up: bool = False
    hold: asyncio.Event | None = None

    @property
    def authority(self) -> str:
        """host:port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens, in plain HTTP."""
        return f"http://{self.authority}/hook"

    def answers(self, status: int, *headers: str, body: bytes = b"") -> None:
        """Answer from now on with this."""
        lines = [f"HTTP/1.1 {status} Told", f"content-length: {len(body)}", *headers, "", ""]
        self.answer = "\r\n".join(lines).encode() + body

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await _request(reader))
                if self.hold:
                    await self.hold.wait()
                writer.write(self.answer)
                await writer.drain()
                if self.hang_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
    return Request(line, headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def receiver(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver, with TLS when a server context is given."""
    told = Receiver(host)
    server = await asyncio.start_server(told.talk, host, 0, ssl=tls)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        await server.wait_closed()


@dataclass(frozen=True)
class Authority:
    """A server's TLS context for one name, and the file a client must trust to believe it."""

    server: ssl.SSLContext
    ca_file: Path


def authority(name: str, folder: Path) -> Authority:
    """Make a self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(ca_file, key_file)
    return Authority(server, ca_file)
