"""Servers of others at their worst: each attempt has one outcome, and nobody waits for a bad one.

What a receiver does is never ours to repair. It is recorded, tried again as often and as late as
the schedule says, and under the same id, so that whoever did get it can tell. The peers here are
real servers on the loopback.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import httpcore2
import pytest
from joserfc.jwk import KeySet

from rapport.common import scheduler
from rapport.common.auth import Verifier
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.clock import SystemClock
from rapport.common.errors import TemporaryError
from rapport.common.events import Event, encode
from rapport.common.events.ids import random_id
from rapport.common.events.interactions import StakeholderChanged
from rapport.common.events.notifications import (
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
)
from rapport.common.events.topics import NOTIFICATIONS
from rapport.common.events.vocabulary import Language
from rapport.common.runtime import Running
from rapport.common.store.port import Change
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import Harness, harness
from rapport.notification import service
from rapport.notification.channels import (
    SCHEDULE,
    Delivered,
    Outcome,
    Outgoing,
    Reason,
    Refused,
    Retry,
)
from rapport.notification.channels import webhook as webhooks
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.destinations import (
    IN_LINE,
    LONGEST_SECONDS,
    SHARE,
    Destinations,
)
from rapport.notification.channels.email import EmailChannel, EmailConfig
from rapport.notification.channels.webhook import WebhookChannel, WebhookConfig, new_secret
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import Address, Stakeholder
from rapport.notification.service import SERVICE

from .cast import KEY, declared, linked, opened, released, stakeholder, subscribe
from .servers import Receiver, SmtpSink, content, receiver, smtp_sink

NOON: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET: Final = new_secret()
DEALER: Final = "/notification/v1/stakeholders/dealer"
PATIENCE_SECONDS: Final = 60.0
AT_ONCE: Final = 16

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(talk: Talk) -> AsyncIterator[int]:
    """Run a server that talks so to everybody; gives its port."""
    talking: set[asyncio.Task[None]] = set()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        finally:
            talking.discard(task)
            writer.close()

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(talking):
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """Tear the connection down without a farewell (RST)."""
    there: socket.socket = writer.get_extra_info("socket")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def eventually(holds: Callable[[], bool], otherwise: str) -> None:
    """Return when something holds; fails, saying what is `otherwise`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110 - what is waited for happens in servers
                await asyncio.sleep(0.01)
    assert holds(), otherwise


def message(to: str) -> Outgoing:
    return Outgoing(
        notification_id="5f0c",
        kind="statement",
        to=to,
        language="en",
        time=NOON,
        subject="First word",
        text="We are looking into it.",
        secrets=[SECRET],
    )


# Mail servers

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

USUAL: Final[dict[str, Answer]] = {
    "greeting": b"220 mail.test\r\n",
    "EHLO": b"250 mail.test\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go on\r\n",
    "end": b"250 kept\r\n",
    "RSET": b"250 ok\r\n",
    "QUIT": b"221 bye\r\n",
}


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def tear(writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def say_and_hang_up(writer: asyncio.StreamWriter) -> None:
    writer.write(b"421 4.3.2 closing\r\n")
    await writer.drain()
    writer.close()


async def babble(writer: asyncio.StreamWriter) -> None:
    """Say one line that never ends."""
    while True:
        writer.write(b"250-" + b"x" * 65_536)
        await writer.drain()


class MailServer:
    """Answers step by step as it is told, as a proper one does where it is not."""

    def __init__(self) -> None:
        self.port = 0
        self.answers = dict(USUAL)
        self.kept: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer("greeting", writer)
        while line := await reader.readline():
            verb = line[:4].decode("latin-1").upper().strip()
            await self._answer(verb, writer)
            if verb == "DATA" and self.answers["DATA"] == USUAL["DATA"]:
                self.kept.append(await reader.readuntil(b"\r\n.\r\n"))
                await self._answer("end", writer)

    async def _answer(self, step: str, writer: asyncio.StreamWriter) -> None:
        answer = self.answers[step]
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(writer)


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    server = MailServer()
    async with peer(server.talk) as server.port:
        yield server


@pytest.mark.parametrize(
    ("step", "answer", "outcome", "kept"),
    [
        ("greeting", hang, Retry(Reason.TIMEOUT), 0),
        ("greeting", hang_up, Retry(Reason.CONNECTION_REFUSED), 0),
        ("greeting", say_and_hang_up, Retry(Reason.SERVER_ERROR), 0),
        ("greeting", b"SSH-2.0-OpenSSH_9.6\r\n", Retry(Reason.SERVER_ERROR), 0),
        ("greeting", b"\x16\x03\x01\x00\xff\n", Retry(Reason.SERVER_ERROR), 0),
        ("greeting", babble, Retry(Reason.SERVER_ERROR), 0),
        ("EHLO", tear, Retry(Reason.CONNECTION_LOST), 0),
        ("EHLO", babble, Retry(Reason.SERVER_ERROR), 0),
        ("MAIL", say_and_hang_up, Retry(Reason.SERVER_ERROR), 0),
        ("RCPT", b"550 5.1.1 nobody\r\n", Refused(Reason.REJECTED_RECIPIENT), 0),
        ("RCPT", b"451 4.7.1 greylisted, come again\r\n", Retry(Reason.THROTTLED), 0),
        ("RCPT", b"421 4.7.0 too many\r\n", Retry(Reason.THROTTLED), 0),
        ("RCPT", hang, Retry(Reason.TIMEOUT), 0),
        ("DATA", b"451 4.3.0 not now\r\n", Retry(Reason.SERVER_ERROR), 0),
        ("DATA", b"hello\r\n", Retry(Reason.SERVER_ERROR), 0),
        ("end", b"250-half\r\n", Retry(Reason.TIMEOUT), 1),
        ("end", hang, Retry(Reason.TIMEOUT), 1),
        ("end", tear, Retry(Reason.CONNECTION_LOST), 1),
        ("end", hang_up, Retry(Reason.CONNECTION_LOST), 1),
        ("end", say_and_hang_up, Retry(Reason.SERVER_ERROR), 1),
        ("end", b"\xff\xfe\xfd\r\n", Retry(Reason.SERVER_ERROR), 1),
        ("end", babble, Retry(Reason.SERVER_ERROR), 1),
        ("end", b"554 5.7.1 spam\r\n", Refused(Reason.REJECTED_MESSAGE), 1),
    ],
)
async def test_a_mail_server_can_do_what_it_likes_and_the_next_message_goes_through(
    mail_server: MailServer, step: str, answer: Answer, outcome: Outcome, kept: int
) -> None:
    timeout = 0.5 if outcome == Retry(Reason.TIMEOUT) else 30.0
    config = EmailConfig(host="127.0.0.1", port=mail_server.port, security="none", timeout=timeout)
    channel = EmailChannel(config)
    mail_server.answers[step] = answer
    assert await channel.send(message("reader@example.org")) == outcome
    assert len(mail_server.kept) == kept

    mail_server.answers = dict(USUAL)
    assert await channel.send(message("reader@example.org")) == Delivered("250")
    assert len(mail_server.kept) == kept + 1
    assert len(set(mail_server.kept)) == 1, "the same message has other bytes"
    await channel.close()


@pytest.mark.parametrize(
    "answer", [b"454 4.7.0 TLS not available\r\n", b"220 go on\r\nnot TLS at all\r\n"]
)
async def test_where_tls_does_not_come_about_nothing_is_said(
    mail_server: MailServer, answer: bytes
) -> None:
    mail_server.answers["EHLO"] = b"250-mail.test\r\n250 STARTTLS\r\n"
    mail_server.answers["STAR"] = answer
    config = EmailConfig(host="127.0.0.1", port=mail_server.port, timeout=5.0)
    channel = EmailChannel(config)
    outcome = await channel.send(message("reader@example.org"))
    assert isinstance(outcome, Retry)
    assert mail_server.kept == []
    await channel.close()


async def test_a_mail_whose_answer_was_lost_is_sent_again_under_its_id_and_counted_once(
    notification: Harness, sink: SmtpSink
) -> None:
    await stakeholder(
        notification, "pia", addresses=[{"channel": "email", "to": "pia@press.example"}]
    )
    await subscribe(notification, "cases", to=["pia"], events=["case.opened"])
    sink.drop = True
    await notification.given(opened())
    sink.drop = False
    await notification.advance(seconds=4)
    assert len(sink.accepted) == 1
    await notification.advance(seconds=1)

    first, second = map(content, sink.accepted)
    assert first == second
    delivered = notification.published(NotificationDelivered).data
    assert delivered.attempts == 2
    await notification.advance(days=4)
    assert len(sink.accepted) == 2


async def test_one_refused_recipient_costs_the_others_nothing(
    notification: Harness, sink: SmtpSink
) -> None:
    for name in ("ana", "ben", "cem"):
        await stakeholder(
            notification, name, addresses=[{"channel": "email", "to": f"{name}@home.example"}]
        )
    await subscribe(notification, "cases", to=["ana", "ben", "cem"], events=["case.opened"])
    sink.refuses = "ben@home.example"
    await notification.given(opened())
    await notification.advance(days=4)

    assert sorted(mail.rcpt_tos[0] for mail in sink.accepted) == [
        "ana@home.example",
        "cem@home.example",
    ]
    failed = notification.published(NotificationFailed).data
    assert (failed.reason, failed.attempts) == ("rejected_recipient", 1)


# Webhooks


def endless(beginning: bytes, piece: bytes, pause: float = 0.0) -> Talk:
    """Answer with a beginning, then piece after piece without an end."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk


def once(answer: bytes, end: Callable[[asyncio.StreamWriter], None]) -> Talk:
    """Answer once, then end it so."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        end(writer)

    return talk


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("talk", "outcome"),
    [
        (once(b"", reset), Retry(Reason.CONNECTION_LOST)),
        (once(b"HTTP/1.1 200", reset), Retry(Reason.CONNECTION_LOST)),
        (once(b"SSH-2.0-OpenSSH_9.6\r\n", close), Retry(Reason.CONNECTION_LOST)),
        (once(b"HTTP/1.1 999999 What\r\n\r\n", close), Retry(Reason.CONNECTION_LOST)),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 999), Retry(Reason.CONNECTION_LOST)),
        (endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 9999), Retry(Reason.CONNECTION_LOST)),
        (endless(b"", b"H", pause=0.01), Retry(Reason.TIMEOUT)),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", pause=0.01), Retry(Reason.TIMEOUT)),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01), Retry(Reason.TIMEOUT)),
        (once(b"HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\n", reset), Retry(Reason.SERVER_ERROR)),
        (once(CHUNKED + b"zz\r\nnot a size\r\n", close), Delivered("200")),
        (once(CHUNKED + b"ffffffff\r\nshort", reset), Delivered("200")),
        (endless(CHUNKED, b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"), Delivered("200")),
        (endless(CHUNKED, b"1\r\nx\r\n", pause=0.01), Delivered("200")),
        (endless(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b"", 0.01), Delivered("200")),
    ],
)
async def test_a_webhooks_answer_is_read_within_bounds_and_its_status_counts(
    monkeypatch: pytest.MonkeyPatch, talk: Talk, outcome: Outcome
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_SECONDS", 0.2)
    timeout = 0.5 if outcome == Retry(Reason.TIMEOUT) else 15.0
    async with peer(talk) as port:
        config = WebhookConfig(timeout=timeout)
        channel = WebhookChannel(AddressPolicy([f"127.0.0.1:{port}"]), config)
        assert await channel.send(message(f"http://127.0.0.1:{port}/hook")) == outcome
        await channel.close()


async def say_200_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
    await asyncio.Event().wait()


async def test_a_webhooks_status_counts_though_the_time_is_up_before_its_answer_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[asyncio.Timeout] = []
    read_through = webhooks._read_through

    def limited(seconds: float) -> asyncio.Timeout:
        limits.append(asyncio.timeout(seconds))
        return limits[-1]

    async def time_is_up(answer: httpcore2.Response) -> None:
        limits[0].reschedule(0)
        await read_through(answer)

    monkeypatch.setattr(webhooks, "asyncio", SimpleNamespace(timeout=limited))
    monkeypatch.setattr(webhooks, "_read_through", time_is_up)
    async with peer(say_200_and_hang) as port:
        channel = WebhookChannel(AddressPolicy([f"127.0.0.1:{port}"]))
        assert await channel.send(message(f"http://127.0.0.1:{port}/hook")) == Delivered("200")
        await channel.close()


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


@pytest.fixture
async def dealing(hook: Receiver) -> AsyncIterator[Harness]:
    """Notification with a dealer's system, whose webhook is told of every case."""
    async with harness(SERVICE, person_key=KEY, webhook_allow=hook.authority) as running:
        await subscribe(running, "cases", to=["dealer"], events=["case.opened"])
        addresses = [{"channel": "webhook", "to": hook.url}, {"channel": "stream", "to": "dealer"}]
        await stakeholder(running, "dealer", addresses=addresses)
        yield running


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (500, (), "server_error"),
        (503, (), "server_error"),
        (429, ("retry-after: soon",), "throttled"),
        (301, ("location: http://127.0.0.1/admin",), "redirect"),
        (302, ("location: http://169.254.169.254/latest/meta-data",), "redirect"),
        (307, ("location: https://[::1]/",), "redirect"),
        (308, ("location: file:///etc/passwd",), "redirect"),
        (404, (), "rejected_message"),
    ],
)
async def test_a_webhook_that_never_takes_it_is_tried_as_the_schedule_says_then_given_up(
    dealing: Harness, hook: Receiver, status: int, headers: Sequence[str], reason: str
) -> None:
    hook.answers(status, *headers)
    await dealing.given(opened())
    for attempt, wait in enumerate(SCHEDULE[1:], 1):
        await dealing.advance(seconds=wait - 1)
        assert len(hook.requests) == attempt
        await dealing.advance(seconds=1)
    await dealing.advance(days=30)

    assert len(hook.requests) == len(SCHEDULE)
    assert {(item.headers["webhook-id"], item.body) for item in hook.requests} == {
        (hook.requests[0].headers["webhook-id"], hook.requests[0].body)
    }
    failed = dealing.published(NotificationFailed).data
    assert (failed.reason, failed.attempts) == (reason, len(SCHEDULE))
    assert dealing.published(NotificationDelivered).data.channel == "stream"


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("3600", timedelta(hours=1)),
        ("1", timedelta(seconds=5)),
        ("99999999999999999999", timedelta(days=1)),
        ("an hour", timedelta(seconds=5)),
        ("-60", timedelta(seconds=5)),
    ],
)
async def test_a_webhook_that_asks_for_time_gets_it_up_to_a_day(
    dealing: Harness, hook: Receiver, asked: str, waited: timedelta
) -> None:
    hook.answers(429, f"retry-after: {asked}")
    await dealing.given(opened())
    hook.answers(204)
    await dealing.advance(seconds=waited.total_seconds() - 1)
    assert len(hook.requests) == 1
    await dealing.advance(seconds=1)
    assert len(hook.requests) == 2
    await dealing.advance(days=4)
    assert len(hook.requests) == 2


async def test_a_webhook_may_ask_for_time_with_a_date(dealing: Harness, hook: Receiver) -> None:
    """The date is by the machine's clock, as the receiver's is."""
    moment = datetime.now(UTC) + timedelta(hours=2)
    hook.answers(503, f"retry-after: {format_datetime(moment, usegmt=True)}")
    await dealing.given(opened())
    hook.answers(204)
    await dealing.advance(minutes=100)
    assert len(hook.requests) == 1
    await dealing.advance(minutes=21)
    assert len(hook.requests) == 2


async def test_a_webhook_that_is_gone_is_used_no_more_and_that_is_told(
    dealing: Harness, hook: Receiver
) -> None:
    hook.answers(410)
    before = len(dealing.all(StakeholderChanged))
    await dealing.given(opened("c1"))
    await dealing.given(opened("c2"))

    assert len(hook.requests) == 1
    failed = dealing.published(NotificationFailed).data
    assert (failed.recipient, failed.reason, failed.attempts) == ("dealer", "gone", 1)
    assert len(dealing.all(StakeholderChanged)) == before + 1
    left = (await dealing.call("GET", DEALER)).json()["addresses"]
    assert [address["channel"] for address in left] == ["stream"]
    assert len(dealing.all(NotificationDelivered)) == 2


# Fairness


class AtWork:
    """The service as it runs: events come over a bus, and the scheduler scans by itself."""

    def __init__(self, running: Running, bus: EmbeddedBus) -> None:
        self._running = running
        self._bus = bus

    async def webhook(self, stakeholder: str, url: str) -> None:
        """Let a stakeholder have a webhook."""
        address = Address(channel="webhook", to=url, secrets=(SECRET,))
        record = Stakeholder(id=stakeholder, addresses=(address,))
        await self._running.engine.change(Stakeholder, stakeholder, lambda _: record, cause="put")

    async def ask(self, number: int, channel: str, recipient: str, to: str) -> None:
        """Ask for so many messages."""
        await self._bus.publish(
            [encode(_wish(channel, recipient, to), NOTIFICATIONS.name) for _ in range(number)]
        )

    async def all_of(self, recipient: str) -> Sequence[Notification]:
        """Return what was asked for somebody."""
        where = {"recipient": recipient}
        return (await self._running.store.find(Notification, where, limit=200)).items

    async def delivered(self, number: int, recipient: str) -> None:
        """Return when so many messages are with somebody."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self._are_delivered(number, recipient):  # noqa: ASYNC110 - over a bus
                await asyncio.sleep(0.05)

    async def _are_delivered(self, number: int, recipient: str) -> bool:
        found = await self.all_of(recipient)
        return sum(item.state == "delivered" for item in found) >= number


def _wish(channel: str, recipient: str, to: str) -> Event[NotificationRequested]:
    id = random_id()
    return Event(
        id=random_id(),
        source="/test",
        type=NotificationRequested.TYPE,
        subject=recipient,
        time=datetime.now(UTC),
        partitionkey=recipient,
        correlationid=id,
        data=NotificationRequested(
            notification_id=id,
            communication_id=id,
            recipient=recipient,
            channel=channel,
            purpose="alert",
            stakeholder=recipient,
            address=to,
            language=Language.EN,
            subject="Kettles",
            text="They break.",
        ),
    )


@asynccontextmanager
async def at_work(folder: Path, **settings: object) -> AsyncIterator[AtWork]:
    bus = EmbeddedBus(folder / "bus.db")
    await bus.start()
    verifier = Verifier(KeySet([]), "rapport", "rapport")
    loaded = SERVICE.settings.load(person_key=KEY, **settings)
    store = SqliteStore(folder / "notification.db", SERVICE.kinds)
    running = Running(SERVICE, loaded, bus, store, SystemClock(), verifier)
    await running.start()
    try:
        yield AtWork(running, bus)
    finally:
        await running.stop(drain=5)
        await bus.stop()


async def test_one_receiver_that_hangs_holds_up_nobody_and_gets_each_message_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = partial(WebhookChannel, config=WebhookConfig(timeout=PATIENCE_SECONDS))
    monkeypatch.setattr(service, "WebhookChannel", patient)
    monkeypatch.setattr(scheduler, "CONCURRENT_EFFECTS", AT_ONCE)
    async with receiver() as bad, receiver() as good, smtp_sink() as sink:
        bad.hold = asyncio.Event()
        async with at_work(
            tmp_path,
            webhook_allow=(bad.authority, good.authority),
            smtp_host="127.0.0.1",
            smtp_port=sink.port,
            smtp_security="none",
        ) as notification:
            await notification.webhook("bad", bad.url)
            await notification.webhook("good", good.url)
            await notification.ask(AT_ONCE + 8, "webhook", "bad", bad.url)
            await eventually(lambda: len(bad.requests) >= AT_ONCE, "nothing is sent")
            await notification.ask(5, "webhook", "good", good.url)
            await notification.ask(5, "email", "ana", "ana@home.example")
            await notification.delivered(5, "good")
            await notification.delivered(5, "ana")

            waiting = await notification.all_of("bad")
            assert {item.state for item in waiting} == {"leased", "queued"}
            assert Counter(item.attempts for item in waiting) == {1: AT_ONCE, 0: 8}

            bad.hold.set()
            await notification.delivered(AT_ONCE + 8, "bad")
            ids = Counter(request.headers["webhook-id"] for request in bad.requests)
            assert ids == dict.fromkeys((item.id for item in waiting), 1)
            assert {item.attempts for item in await notification.all_of("bad")} == {1}


@dataclass
class Time:
    """What destinations are told the time by, in seconds."""

    now: float = 1_000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(f"{Destinations.__module__}.monotonic", lambda: time.now)
    return time


def test_a_slow_destination_is_given_a_few_at_a_time_and_the_rest_in_turn(time: Time) -> None:
    destinations = Destinations()
    wanted = [(str(number), "slow") for number in range(500)]
    assert destinations.put_off(wanted) == {}, "nobody is slow before it was"
    with destinations.sending("slow"):
        time.now += 10
        waits = destinations.put_off([("other", "quick"), *wanted])
        assert list(waits) == [id for id, _ in wanted[SHARE - 1 :]]
        assert list(waits.values()) == sorted(waits.values())
        assert max(waits.values()) == LONGEST_SECONDS
    assert len(destinations.put_off(wanted)) == len(wanted) - SHARE
    with destinations.sending("slow"):
        time.now += 0.1
    assert destinations.put_off(wanted) == {}


def test_a_line_before_a_mail_server_is_not_taken_for_slowness(time: Time) -> None:
    destinations = Destinations({"email": 4})
    line = [destinations.sending("email") for _ in range(4 * IN_LINE)]
    assert destinations.busy == frozenset()
    for message in line:
        message.__enter__()
    assert destinations.busy == {"email"}
    more = [(str(number), "email") for number in range(100)]
    for done in range(0, len(line), 4):  # 4 at a time, 0.4 s each: the last waits for 3.2 s
        time.now += 0.4
        for message in line[done : done + 4]:
            message.__exit__(None, None, None)
        waits = destinations.put_off([*more, ("other", "webhook.example")])
        assert len(waits) == max(0, len(more) - done - 4)
        assert list(waits.values()) == sorted(waits.values())
        assert max(waits.values(), default=0) <= LONGEST_SECONDS
    assert destinations.busy == frozenset()
    assert destinations.put_off(more[: 4 * IN_LINE]) == {}


def test_turns_before_a_mail_server_come_as_it_takes_messages(time: Time) -> None:
    destinations = Destinations({"email": 4})
    with destinations.sending("email"):
        time.now += 0.4
    with ExitStack() as line:
        for _ in range(4 * IN_LINE):
            line.enter_context(destinations.sending("email"))
        first = destinations.put_off([("1", "email"), ("2", "email")])
        then = destinations.put_off([("3", "email")])
        assert {**first, **then} == pytest.approx({"1": 3.3, "2": 3.4, "3": 3.5})
        time.now += 2.5  # the first of the line was to be done after two
        assert destinations.busy == {"email"}
        assert destinations.put_off([("4", "email")]) == pytest.approx({"4": 2.625})


# A store in trouble


async def test_what_arrived_is_not_sent_again_since_the_store_was_in_trouble(
    notification: Harness, sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stakeholder(
        notification, "pia", addresses=[{"channel": "email", "to": "pia@press.example"}]
    )
    await subscribe(notification, "cases", to=["pia"], events=["case.opened"])
    store, clock = notification.running.store, notification.clock
    save_many, refused = store.save_many, 0

    async def trouble_after_sending(changes: Sequence[Change]) -> Sequence[bool]:
        nonlocal refused
        if sink.accepted and refused < 3:
            refused += 1
            raise TemporaryError("the primary steps down", delay=0.01)
        return await save_many(changes)

    monkeypatch.setattr(store, "save_many", trouble_after_sending)
    telling = asyncio.create_task(notification.given(opened()))
    while not telling.done():
        clock.move(timedelta(seconds=0.01))
        await asyncio.sleep(0)
    await telling
    await notification.advance(minutes=5)
    assert refused == 3
    assert len(sink.accepted) == 1
    assert notification.published(NotificationDelivered).data.attempts == 1


# Clocks of others


async def test_a_message_asked_for_by_a_clock_that_is_ahead_is_sent_at_once(
    notification: Harness, sink: SmtpSink
) -> None:
    """Whoever took the message in was an hour ahead, or the clock was put back since."""
    await stakeholder(
        notification, "pia", addresses=[{"channel": "email", "to": "pia@press.example"}]
    )
    await subscribe(notification, "cases", to=["pia"], events=["case.opened"])
    ahead = notification.clock.now() + timedelta(hours=1)
    await notification.given(notification.event(opened(), time=ahead))
    assert len(sink.accepted) == 1


async def test_a_statement_released_by_a_clock_that_is_ahead_is_told_at_once(
    notification: Harness, sink: SmtpSink
) -> None:
    await notification.given(declared(), linked("c1", "cora@home.example"))
    ahead = notification.clock.now() + timedelta(hours=1)
    await notification.given(notification.event(released(), time=ahead))
    assert len(sink.accepted) == 1


async def test_what_another_process_changed_shows_though_the_clock_was_put_back(
    notification: Harness,
) -> None:
    directory = notification.running.resources.directory
    assert (await directory.current()).stakeholders == {}
    notification.clock._now -= timedelta(hours=1)
    await notification.running.store.save_many([Change(Stakeholder(id="pia"))])
    assert (await directory.current()).stakeholders.keys() == {"pia"}
