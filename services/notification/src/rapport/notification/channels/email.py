"""E-mail over SMTP: a text and an HTML part that say the same, in the words that were approved.

The text part decodes to exactly the bytes of the message's text: it travels as base64, so neither
line ends, nor leading dots, nor long lines are touched on the way. The HTML part is that text,
escaped, in the language's direction. The message is written here rather than by `EmailMessage`,
whose folding on Python 3.11 loses spaces in long Persian subjects and mangles long message ids. The
same message is the same bytes at every attempt, so a second copy is known by its Message-ID.

Connections are kept and shared, because a statement goes to thousands. A server's "later" (4xx) is
tried again, its "no" (5xx) to a message is a no; trouble with the connection, the login or TLS is
ours, and nobody's message is dropped for it.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from email.header import Header
from email.utils import format_datetime
from pathlib import Path
from typing import Final, Literal

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from rapport.notification.channels import Delivered, Outcome, Outgoing, Reason, Refused, Retry
from rapport.notification.channels.rendering import as_html
from rapport.notification.channels.tls import is_tls_failure, tls_context

FAREWELL_TIMEOUT: Final = 2.0

_MAILBOX: Final = re.compile(r"""([^\s@<>()\[\],;:\\"]{1,64})@([^\s@]+)""")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9._-]+")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,250}>")
_VISIBLE: Final = re.compile(r"[!-;=?-~]{1,900}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9'!/&+-]+(?: [A-Za-z0-9'!/&+-]+)*")
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailConfig:
    """One SMTP server and who we are to it.

    `security`: "tls" from the first byte, "starttls" or nothing sent, or "none". `timeout` is for a
    whole attempt in seconds, the wait for a free connection included. A connection is left after
    `messages_per_connection` messages, or when it was idle for `idle` seconds. `ca_file` adds
    certificate authorities to the system's.
    """

    host: str = "localhost"
    port: int = 587
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sender: str = "rapport@localhost"
    sender_name: str = "Rapport"
    timeout: float = 30.0
    connections: int = 4
    messages_per_connection: int = 100
    idle: float = 30.0
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if self.user is not None and self.security == "none":
            raise ValueError("a mail password needs security starttls or tls")
        if not self.sender.isascii() or mailbox(self.sender) is None:
            raise ValueError("the mail sender must be a plain ASCII address")

    @property
    def domain(self) -> str:
        """The sender's domain: our message ids end in it, and we greet the server with it."""
        return self.sender.partition("@")[2]


@dataclass(slots=True)
class _Session:
    """An open connection, how many messages it has taken, and when it took the last."""

    smtp: SMTP
    messages: int = 0
    used_at: float = 0.0


class EmailChannel:
    """Sends through a handful of connections that are opened when needed and kept for a while."""

    name = "email"

    def __init__(self, config: EmailConfig) -> None:
        self._config = config
        self._tls = tls_context(config.ca_file)
        self._slots = asyncio.Semaphore(config.connections)
        self._idle: list[_Session] = []

    async def send(self, message: Outgoing) -> Outcome:
        """Hand the message to the server once."""
        if message.exercise is not None:
            return Refused(Reason.EXERCISE)
        recipient = mailbox(message.to)
        if recipient is None:
            return Refused(Reason.BAD_ADDRESS)
        try:
            content = compose(message, recipient, self._config)
        except ValueError:
            return Refused(Reason.MALFORMED_MESSAGE)
        try:
            async with asyncio.timeout(self._config.timeout), self._slots, self._session() as smtp:
                await smtp.sendmail(
                    self._config.sender,
                    [recipient],
                    content,
                    mail_options=() if recipient.isascii() else ("SMTPUTF8",),
                )
        except (OSError, SMTPException) as error:
            return outcome_of(error)
        return Delivered("250")

    async def close(self) -> None:
        """Take leave of the server on every kept connection."""
        while self._idle:
            await _leave(self._idle.pop().smtp)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[SMTP]:
        session = await self._kept() or await self._opened()
        try:
            yield session.smtp
        except asyncio.CancelledError:
            session.smtp.close()
            raise
        except SMTPException as error:
            if not _is_in_step(error):
                session.smtp.close()
            raise
        finally:
            if session.smtp.is_connected:
                session.messages += 1
                session.used_at = asyncio.get_running_loop().time()
                self._idle.append(session)

    async def _kept(self) -> _Session | None:
        while self._idle:
            session = self._idle.pop()
            if not session.smtp.is_connected:
                continue
            idle = asyncio.get_running_loop().time() - session.used_at
            if session.messages < self._config.messages_per_connection and idle < self._config.idle:
                return session
            await _leave(session.smtp)
        return None

    async def _opened(self) -> _Session:
        config = self._config
        smtp = SMTP(
            hostname=config.host,
            port=config.port,
            username=config.user,
            password=config.password,
            local_hostname=config.domain,
            timeout=config.timeout,
            use_tls=config.security == "tls",
            start_tls=config.security == "starttls",
            tls_context=self._tls,
        )
        await smtp.connect()
        return _Session(smtp)


async def _leave(smtp: SMTP) -> None:
    with suppress(OSError, SMTPException), closing(smtp):
        await smtp.quit(timeout=FAREWELL_TIMEOUT)


def _is_in_step(error: SMTPException) -> bool:
    """Tell whether the server gave a proper answer and stays, so that it can take the next message.

    After noise nobody knows which answer is to what; after 421 it closes.
    """
    answers = error.recipients if isinstance(error, SMTPRecipientsRefused) else [error]
    codes = [answer.code for answer in answers if isinstance(answer, SMTPResponseException)]
    return bool(codes) and all(200 <= code < 600 and code != 421 for code in codes)


def outcome_of(error: OSError | SMTPException) -> Outcome:
    """Return what an error of the SMTP client means for the message."""
    match error:
        case SMTPRecipientsRefused(recipients=[refused, *_]):
            return _answered(refused, Reason.REJECTED_RECIPIENT)
        case SMTPSenderRefused():
            return _answered(error, Reason.REJECTED_SENDER)
        case SMTPDataError():
            return _answered(error, Reason.REJECTED_MESSAGE)
        case SMTPAuthenticationError():
            return Retry(Reason.AUTH)
        case SMTPNotSupported():
            return Refused(Reason.NOT_SUPPORTED)
        case TimeoutError():
            return Retry(Reason.TIMEOUT)
        case SMTPResponseException():
            return Retry(Reason.SERVER_ERROR)
        case _ if is_tls_failure(error):
            return Retry(Reason.TLS)
        case SMTPConnectError():
            return Retry(Reason.CONNECTION_REFUSED)
        case OSError():
            return Retry(Reason.CONNECTION_LOST)
        case _:
            return Retry(Reason.NOT_SUPPORTED)


def _answered(answer: SMTPResponseException, refusal: Reason) -> Outcome:
    if answer.code >= 500:
        return Refused(refusal)
    policy = answer.message.startswith("4.7.")
    return Retry(Reason.THROTTLED if policy else Reason.SERVER_ERROR)


def mailbox(address: str) -> str | None:
    """Return the address as SMTP takes it, its domain in ASCII; None if it is not one."""
    match = _MAILBOX.fullmatch(address)
    if not match or not address.isprintable() or len(address) > 254:
        return None
    local, written = match.groups()
    try:
        domain = written.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return f"{local}@{domain}" if _DOMAIN.fullmatch(domain) else None


def compose(message: Outgoing, recipient: str, config: EmailConfig) -> bytes:
    """Return the whole message as it crosses the wire.

    Raises ValueError for what a mail cannot carry: a lone surrogate, or an id, language or
    unsubscribe address with characters that do not belong there.
    """
    boundary = "=_" + hashlib.sha256(message.notification_id.encode()).hexdigest()[:24]
    lines = [
        *(f"{name}: {value}" for name, value in _headers(message, recipient, config)),
        f'Content-Type: multipart/alternative; boundary="{boundary}"',
        "",
        *_part(boundary, "plain", message.text),
        *_part(boundary, "html", as_html(message.subject, message.text, message.language)),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def _headers(message: Outgoing, recipient: str, config: EmailConfig) -> Iterator[tuple[str, str]]:
    yield "From", f"{_words('From', config.sender_name)} <{config.sender}>"
    yield "To", f"<{recipient}>"
    yield "Subject", _words("Subject", message.subject)
    yield "Date", format_datetime(message.time)
    yield "Message-ID", f"<{_visible(message.notification_id)}@{config.domain}>"
    yield "Content-Language", _visible(message.language)
    if message.kind != "reply":
        yield "Auto-Submitted", "auto-generated"
    if message.in_reply_to and _MESSAGE_ID.fullmatch(message.in_reply_to):
        yield "In-Reply-To", message.in_reply_to
        yield "References", message.in_reply_to
    if message.unsubscribe:
        yield "List-Unsubscribe", f"<{_visible(message.unsubscribe)}>"
    yield "MIME-Version", "1.0"


def _part(boundary: str, subtype: str, text: str) -> Iterator[str]:
    yield f"--{boundary}"
    yield f"Content-Type: text/{subtype}; charset=utf-8"
    yield "Content-Transfer-Encoding: base64"
    yield ""
    yield from base64.encodebytes(text.encode()).decode("ascii").splitlines()


def _words(header: str, text: str) -> str:
    """Return `text` as a header's value on one line: RFC 2047 words unless short and plain."""
    line = _BREAKS.sub(" ", text)
    if len(line) <= 60 and _PLAIN.fullmatch(line):
        return line
    return Header(line, "utf-8", 75, header).encode(linesep="\r\n")


def _visible(value: str) -> str:
    if not _VISIBLE.fullmatch(value):
        raise ValueError("a header's value has characters that do not belong there")
    return value
