"""E-mail against a real SMTP server on the loopback, read back by the standard library."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtplib.email import quote_address
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rapport.notification.channels import Delivered, Outgoing, Reason, Refused, Retry
from rapport.notification.channels.email import EmailChannel, EmailConfig, compose, mailbox

from .servers import SmtpSink, authority, content, password_check, smtp_sink

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOLDING = {
    "en": "We know about the batteries.\n\nNext word at 18:00 UTC.\n",
    "zh": "我们已经注意到电池的问题。\n下次通报：18:00 UTC。",
    "fa": "از مشکل باتری‌ها آگاهیم.\nاطلاع‌رسانی بعدی ساعت ۱۸ به وقت جهانی.\n",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture
async def sink() -> AsyncIterator[SmtpSink]:
    async with smtp_sink() as sink:
        yield sink


@pytest.fixture
async def channel(sink: SmtpSink) -> AsyncIterator[EmailChannel]:
    channel = EmailChannel(plain(sink))
    yield channel
    await channel.close()


def plain(sink: SmtpSink, **settings: Any) -> EmailConfig:
    """Settings for a sink without TLS, changed by `settings`."""
    usual = {"host": "127.0.0.1", "security": "none", "sender": "pr@rapport.example"}
    return EmailConfig(port=sink.port, **{**usual, **settings})


def statement(text: str = HOLDING["en"], language: str = "en") -> Outgoing:
    return Outgoing(
        notification_id="5f0c",
        kind="statement",
        to="reader@example.org",
        language=language,
        time=NOON,
        subject="About the batteries",
        text=text,
        statement_hash="ab12",
    )


def read(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, policy=policy.default)


def part(message: EmailMessage, subtype: str) -> bytes:
    found = message.get_body((subtype,))
    assert found is not None
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


class Page(HTMLParser):
    """The words of an HTML body as a reader sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root: dict[str, str | None] = {}
        self.words = ""
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.root = dict(attrs)
        self._inside |= tag == "div"
        self.words += "\n" * (tag == "br")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "div"

    def handle_data(self, data: str) -> None:
        self.words += data if self._inside else ""


@pytest.mark.parametrize("language", HOLDING)
async def test_a_statement_arrives_as_approved(
    sink: SmtpSink, channel: EmailChannel, language: str
) -> None:
    message = statement(HOLDING[language], language)
    assert await channel.send(message) == Delivered("250")
    mail = read(sink.message())
    assert part(mail, "plain") == HOLDING[language].encode()
    page = Page(part(mail, "html").decode())
    assert page.words == HOLDING[language]
    assert page.root == {"lang": language, "dir": "rtl" if language == "fa" else "ltr"}


async def test_the_envelope_and_the_headers_say_who_to_whom_and_what(
    sink: SmtpSink, channel: EmailChannel
) -> None:
    await channel.send(
        replace(
            statement(),
            in_reply_to=f"<{'a' * 120}@mail.example.org>",
            unsubscribe="https://rapport.example/leave?" + "t=" + "b" * 120,
        )
    )
    (envelope,) = sink.accepted
    assert (envelope.mail_from, envelope.rcpt_tos) == ("pr@rapport.example", ["reader@example.org"])
    mail = read(sink.message())
    assert dict(mail.items()) == {
        "From": "Rapport <pr@rapport.example>",
        "To": "reader@example.org",
        "Subject": "About the batteries",
        "Date": "Sun, 22 Nov 2026 12:00:00 +0000",
        "Message-ID": "<5f0c@rapport.example>",
        "Content-Language": "en",
        "Auto-Submitted": "auto-generated",
        "In-Reply-To": f"<{'a' * 120}@mail.example.org>",
        "References": f"<{'a' * 120}@mail.example.org>",
        "List-Unsubscribe": "<https://rapport.example/leave?" + "t=" + "b" * 120 + ">",
        "MIME-Version": "1.0",
        "Content-Type": mail["Content-Type"],
    }
    assert mail.get_content_type() == "multipart/alternative"
    assert not mail.defects


async def test_a_persons_reply_is_not_called_automatic(
    sink: SmtpSink, channel: EmailChannel
) -> None:
    await channel.send(replace(statement(), kind="reply"))
    assert "Auto-Submitted" not in read(sink.message())


@given(TEXTS)
@example(".\r\n..\r\n.")
@example("a\rb\nc\r\n\n\r")
@example("\0\x1a\x85\u2028\ufeff")
@example("x" * 5000)
@example("سلام\u200c دنیا 😀\n")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_crosses_the_wire_unchanged(
    sink: SmtpSink, channel: EmailChannel, text: str
) -> None:
    sink.accepted.clear()
    assert await channel.send(statement(text)) == Delivered("250")
    assert part(read(sink.message()), "plain") == text.encode()


@given(TEXTS)
@example("=?utf-8?q?boss?=")
@example("  two  spaces  ")
@example("بیانیه درباره باتری‌ها " * 12)
@example("关于电池的声明。" * 30)
def test_any_subject_stays_one_line_and_reads_the_same(subject: str) -> None:
    raw = compose(replace(statement(), subject=subject), "reader@example.org", EmailConfig())
    head = raw.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78
    words = str(make_header(decode_header(message_from_bytes(raw)["Subject"])))
    assert words == re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", subject)


@given(TEXTS, TEXTS, TEXTS)
@example("a\r\nBcc: all@example.org", "5f\r\nBcc: all@example.org", "<a>\r\nBcc: b@example.org")
@example("a", "5f0c>\r\n\r\nbody", "<a@b>")
def test_nothing_can_add_a_header(subject: str, id: str, in_reply_to: str) -> None:
    message = replace(
        statement(), subject=subject, notification_id=id, in_reply_to=in_reply_to, unsubscribe=id
    )
    try:
        raw = compose(message, "reader@example.org", EmailConfig(sender_name=subject))
    except ValueError:
        return
    names = [line.partition(b":")[0] for line in raw.partition(b"\r\n\r\n")[0].splitlines()]
    added = {b"In-Reply-To", b"References", b"List-Unsubscribe"}
    assert [name for name in names if name not in added and not name.startswith(b" ")] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Content-Language",
        b"Auto-Submitted", b"MIME-Version", b"Content-Type",
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["notification_id", "language", "unsubscribe"])
async def test_a_value_that_would_break_its_header_is_refused(
    sink: SmtpSink, channel: EmailChannel, field: str
) -> None:
    change: dict[str, Any] = {field: "x\r\nBcc: all@example.org"}
    assert await channel.send(replace(statement(), **change)) == Refused(Reason.MALFORMED_MESSAGE)
    assert not sink.accepted


@pytest.mark.parametrize("field", ["subject", "text"])
async def test_what_has_no_bytes_is_refused(channel: EmailChannel, field: str) -> None:
    change: dict[str, Any] = {field: "lone \ud800"}
    assert await channel.send(replace(statement(), **change)) == Refused(Reason.MALFORMED_MESSAGE)


async def test_a_second_attempt_is_the_same_bytes(sink: SmtpSink, channel: EmailChannel) -> None:
    for _ in range(2):
        await channel.send(statement())
    first, second = sink.accepted
    assert content(first) == content(second)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("reader@example.org", "reader@example.org"),
        ("first.last+tag@example.org", "first.last+tag@example.org"),
        ("root@localhost", "root@localhost"),
        ("reader@例子.测试", "reader@xn--fsqu00a.xn--0zwm56d"),
        ("读者@example.org", "读者@example.org"),
    ],
)
def test_addresses_are_taken_as_people_write_them(written: str, sent: str) -> None:
    assert mailbox(written) == sent


@pytest.mark.parametrize(
    "written",
    [
        "",
        "reader",
        "@example.org",
        "reader@",
        "reader@@example.org",
        "a@b@example.org",
        "Reader <reader@example.org>",
        "reader@example.org, other@example.org",
        "reader@example.org\r\nBcc: all@example.org",
        "reader@example.org> SIZE=1",
        "two words@example.org",
        '"two words"@example.org',
        "reader@exa..mple.org",
        "reader@" + "a" * 64 + ".org",
        "a" * 65 + "@example.org",
        "\ud800@example.org",
        "reader(comment)@example.org",
        "reader\0@example.org",
        "reader\u202e@example.org",
    ],
)
async def test_what_is_no_address_is_refused(channel: EmailChannel, written: str) -> None:
    assert await channel.send(replace(statement(), to=written)) == Refused(Reason.BAD_ADDRESS)


@example("reader@\u00b8")
@given(st.one_of(st.emails(), st.from_regex(r"[^@]{1,8}@[^@]{1,8}", fullmatch=True)))
def test_an_address_that_we_take_means_the_same_to_the_smtp_client(written: str) -> None:
    if address := mailbox(written):
        assert quote_address(address) == f"<{address}>"


async def test_a_chinese_address_is_written_to(sink: SmtpSink, channel: EmailChannel) -> None:
    assert await channel.send(replace(statement(), to="读者@example.org")) == Delivered("250")
    (envelope,) = sink.accepted
    assert envelope.rcpt_tos == ["读者@example.org"]
    assert "To: <读者@example.org>".encode() in sink.message()


async def test_a_server_that_only_knows_ascii_addresses_is_told_apart() -> None:
    async with smtp_sink(smtputf8=False) as sink:
        channel = EmailChannel(plain(sink))
        outcome = await channel.send(replace(statement(), to="读者@example.org"))
        assert outcome == Refused(Reason.NOT_SUPPORTED)
        await channel.close()


async def test_a_drill_does_not_leave(sink: SmtpSink, channel: EmailChannel) -> None:
    drill = replace(statement(), exercise="drill-1")
    assert await channel.send(drill) == Refused(Reason.EXERCISE)
    assert sink.connections == 0


@pytest.mark.parametrize(
    ("step", "answer", "outcome"),
    [
        ("mail", "550 5.7.1 not you", Refused(Reason.REJECTED_SENDER)),
        ("mail", "451 4.3.0 later", Retry(Reason.SERVER_ERROR)),
        ("rcpt", "550 5.1.1 unknown", Refused(Reason.REJECTED_RECIPIENT)),
        ("rcpt", "450 4.7.1 greylisted", Retry(Reason.THROTTLED)),
        ("rcpt", "452 4.2.2 full", Retry(Reason.SERVER_ERROR)),
        ("data", "554 5.6.0 not this", Refused(Reason.REJECTED_MESSAGE)),
        ("data", "451 4.3.0 later", Retry(Reason.SERVER_ERROR)),
        ("data", "421 4.3.2 closing", Retry(Reason.SERVER_ERROR)),
    ],
)
async def test_later_is_tried_again_and_no_is_a_no(
    sink: SmtpSink, channel: EmailChannel, step: str, answer: str, outcome: Refused | Retry
) -> None:
    usual = getattr(sink, step)
    setattr(sink, step, answer)
    assert await channel.send(statement()) == outcome
    setattr(sink, step, usual)
    assert await channel.send(statement()) == Delivered("250")


async def test_a_lost_answer_is_tried_again_under_the_same_id(
    sink: SmtpSink, channel: EmailChannel
) -> None:
    sink.drop = True
    assert await channel.send(statement()) == Retry(Reason.CONNECTION_LOST)
    sink.drop = False
    assert await channel.send(statement()) == Delivered("250")
    first, second = (read(content(envelope))["Message-ID"] for envelope in sink.accepted)
    assert first == second


async def test_a_server_that_never_answers_times_out_and_is_left(sink: SmtpSink) -> None:
    channel = EmailChannel(plain(sink, timeout=0.1))
    sink.hold = asyncio.Event()
    assert await channel.send(statement()) == Retry(Reason.TIMEOUT)
    sink.hold.set()
    sink.hold = None
    patient = EmailChannel(plain(sink))
    assert await patient.send(statement()) == Delivered("250")
    assert sink.connections == 2
    await patient.close()
    await channel.close()


async def test_nobody_listening_is_tried_again() -> None:
    async with smtp_sink() as closed:
        pass
    channel = EmailChannel(plain(closed))
    assert await channel.send(statement()) == Retry(Reason.CONNECTION_REFUSED)


async def test_connections_are_kept_and_shared(sink: SmtpSink) -> None:
    channel = EmailChannel(plain(sink, connections=3))
    messages = [replace(statement(), notification_id=f"n-{number}") for number in range(30)]
    outcomes = await asyncio.gather(*map(channel.send, messages))
    assert outcomes == [Delivered("250")] * 30
    assert sink.connections <= 3
    assert {read(content(envelope))["Message-ID"] for envelope in sink.accepted} == {
        f"<n-{number}@rapport.example>" for number in range(30)
    }
    await channel.close()


async def test_a_refusal_does_not_cost_the_connection(
    sink: SmtpSink, channel: EmailChannel
) -> None:
    sink.rcpt = "550 5.1.1 unknown"
    for _ in range(3):
        await channel.send(statement())
    assert sink.connections == 1


@pytest.mark.parametrize("limit", [{"messages_per_connection": 1}, {"idle": 0.0}])
async def test_a_connection_is_left_after_its_share(sink: SmtpSink, limit: dict[str, Any]) -> None:
    channel = EmailChannel(plain(sink, **limit))
    for _ in range(3):
        assert await channel.send(statement()) == Delivered("250")
    assert sink.connections == 3
    await channel.close()


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_trusted_server_gets_the_password_and_the_message(
    tmp_path: Path, security: str
) -> None:
    certified = authority("localhost", tmp_path)
    async with smtp_sink(
        tls=certified.server,
        starttls=security == "starttls",
        auth_require_tls=security == "starttls",
        auth_required=True,
        authenticator=password_check("pr", "word"),
    ) as sink:
        trusted = plain(
            sink, host="localhost", security=security, ca_file=certified.ca_file, user="pr"
        )
        knowing = EmailChannel(replace(trusted, password="word"))
        assert await knowing.send(statement()) == Delivered("250")
        await knowing.close()

        mistaken = EmailChannel(replace(trusted, password="guess"))
        assert await mistaken.send(statement()) == Retry(Reason.AUTH)

        careful = EmailChannel(replace(trusted, ca_file=None))
        assert await careful.send(statement()) == Retry(Reason.TLS)
        assert len(sink.accepted) == 1


async def test_without_starttls_nothing_is_sent(sink: SmtpSink) -> None:
    channel = EmailChannel(plain(sink, security="starttls"))
    assert await channel.send(statement()) == Retry(Reason.NOT_SUPPORTED)
    assert not sink.accepted


def test_a_password_never_travels_in_the_clear_nor_shows() -> None:
    with pytest.raises(ValueError, match="starttls or tls"):
        EmailConfig(security="none", user="pr", password="hunter2")
    assert "hunter2" not in repr(EmailConfig(user="pr", password="hunter2"))


@pytest.mark.parametrize(
    "sender", ["", "Rapport", "pr@rapport.example\r\nBcc: a@b", "发言@例子.测试"]
)
def test_the_sender_is_a_plain_address(sender: str) -> None:
    with pytest.raises(ValueError, match="sender"):
        EmailConfig(sender=sender)
