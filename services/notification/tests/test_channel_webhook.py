"""Webhooks against real receivers on the loopback, verified by the reference implementation."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from rapport.notification.channels import (
    Delivered,
    Outcome,
    Outgoing,
    Reason,
    Refused,
    Retry,
)
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.webhook import (
    LONGEST_ANSWER,
    UnsignedWebhook,
    WebhookChannel,
    WebhookConfig,
    new_secret,
    outcome_of,
    payload,
    secret_key,
    sign,
)

from .servers import Receiver, authority, receiver

SECRET = new_secret()
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def told() -> AsyncIterator[Receiver]:
    async with receiver() as told:
        yield told


@pytest.fixture
async def channel(told: Receiver) -> AsyncIterator[WebhookChannel]:
    channel = WebhookChannel(AddressPolicy([told.authority]))
    yield channel
    await channel.close()


def statement(to: str, text: str = "We are looking into it.") -> Outgoing:
    return Outgoing(
        notification_id="5f0c",
        kind="statement",
        to=to,
        language="en",
        time=NOON,
        subject="First word",
        text=text,
        data={"crisis_id": "c-1", "count": 12},
        statement_hash="ab12",
        secrets=[SECRET],
    )


@pytest.mark.parametrize(
    "text", ["We are looking into it.\n", "我们正在调查。", "در حال بررسی هستیم.\r\n\u200c😀"]
)
async def test_a_receiver_can_verify_and_read_what_was_approved(
    told: Receiver, channel: WebhookChannel, text: str
) -> None:
    assert await channel.send(statement(told.url, text)) == Delivered("204")
    (request,) = told.requests
    assert request.line == "POST /hook HTTP/1.1"
    assert request.headers["webhook-id"] == "5f0c"
    assert request.headers["host"] == told.authority
    assert Webhook(SECRET).verify(request.body, request.headers) == {
        "type": "rapport.statement",
        "timestamp": "2026-11-22T12:00:00Z",
        "data": {
            "id": "5f0c",
            "language": "en",
            "subject": "First word",
            "text": text,
            "statement_hash": "ab12",
            "details": {"crisis_id": "c-1", "count": 12},
        },
    }


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(categories=["L", "N"]), min_size=1),
    st.integers(0, 2**32),
)
def test_signatures_are_those_of_the_reference_implementation(
    body: str, id: str, timestamp: int
) -> None:
    moment = datetime.fromtimestamp(timestamp, UTC)
    ours = sign([secret_key(SECRET)], id, timestamp, body.encode())
    assert ours == Webhook(SECRET).sign(id, moment, body)


async def test_while_a_secret_rotates_both_the_old_and_the_new_one_verify(
    told: Receiver, channel: WebhookChannel
) -> None:
    rotated = new_secret()
    await channel.send(replace(statement(told.url), secrets=[rotated, SECRET]))
    (request,) = told.requests
    for secret in (rotated, SECRET):
        Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(request.body, request.headers)


@pytest.mark.parametrize(
    "secrets",
    [
        [],
        [""],
        ["whsec_"],
        ["whsec_c2hvcnQ="],
        ["whsec_not base64!"],
        [SECRET.removeprefix("whsec_")],
    ],
)
async def test_nothing_leaves_unsigned(
    told: Receiver, channel: WebhookChannel, secrets: Sequence[str]
) -> None:
    unsigned = replace(statement(told.url), secrets=secrets)
    assert await channel.send(unsigned) == Refused(Reason.UNSIGNED)
    assert not told.requests


def test_a_bad_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(UnsignedWebhook) as error:
        secret_key("whsec_hunter2!")
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


async def test_a_second_attempt_is_the_same_bytes_under_the_same_id(
    told: Receiver, channel: WebhookChannel
) -> None:
    told.answers(500)
    for _ in range(2):
        assert await channel.send(statement(told.url)) == Retry(Reason.SERVER_ERROR)
    first, second = told.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_the_body_does_not_depend_on_the_order_of_its_data() -> None:
    message = statement("https://example.com/")
    turned = replace(message, data=dict(reversed(list(message.data.items()))))
    assert payload(message) == payload(turned)


async def test_connections_are_kept(told: Receiver, channel: WebhookChannel) -> None:
    for _ in range(3):
        await channel.send(statement(told.url))
    assert (len(told.requests), told.connections) == (3, 1)


async def test_a_drill_does_not_leave(told: Receiver, channel: WebhookChannel) -> None:
    drill = replace(statement(told.url), exercise="drill-1")
    assert await channel.send(drill) == Refused(Reason.EXERCISE)
    assert told.connections == 0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered("200")),
        (202, Delivered("202")),
        (301, Retry(Reason.REDIRECT)),
        (400, Retry(Reason.REJECTED_MESSAGE)),
        (401, Retry(Reason.AUTH)),
        (404, Retry(Reason.REJECTED_MESSAGE)),
        (410, Refused(Reason.GONE, disable=True)),
        (500, Retry(Reason.SERVER_ERROR)),
        (502, Retry(Reason.SERVER_ERROR)),
    ],
)
async def test_every_answer_has_its_meaning(
    told: Receiver, channel: WebhookChannel, status: int, outcome: Outcome
) -> None:
    told.answers(status, body=b"whatever")
    assert await channel.send(statement(told.url)) == outcome


@pytest.mark.parametrize(
    ("status", "reason"), [(429, Reason.THROTTLED), (503, Reason.SERVER_ERROR)]
)
async def test_retry_after_is_passed_on(
    told: Receiver, channel: WebhookChannel, status: int, reason: Reason
) -> None:
    told.answers(status, "Retry-After: 120")
    assert await channel.send(statement(told.url)) == Retry(reason, after=120.0)


@pytest.mark.parametrize(
    ("header", "after"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("٥", None),
        ("0", 0.0),
        ("Sun, 22 Nov 2026 12:01:30 GMT", 90.0),
        ("Sun, 22 Nov 2026 12:01:30 -0000", 90.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Sun, 22 Nov 2026 12:01:30 -99999999999999", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, after: float | None) -> None:
    assert outcome_of(429, header, NOON.timestamp()) == Retry(Reason.THROTTLED, after)


async def test_a_redirect_is_not_followed(told: Receiver, channel: WebhookChannel) -> None:
    async with receiver() as inside:
        told.answers(307, f"Location: {inside.url}")
        assert await channel.send(statement(told.url)) == Retry(Reason.REDIRECT)
        assert inside.connections == 0


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://localhost/"]
)
async def test_our_own_network_is_out_of_reach(channel: WebhookChannel, url: str) -> None:
    assert await channel.send(statement(url)) == Refused(Reason.ADDRESS_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/", Reason.ADDRESS_NOT_ALLOWED),
        ("https://user:word@example.com/", Reason.BAD_ADDRESS),
        ("https://" + "a" * 70 + ".test/", Reason.BAD_ADDRESS),
    ],
)
async def test_a_url_that_is_not_allowed_is_refused(
    channel: WebhookChannel, url: str, reason: Reason
) -> None:
    assert await channel.send(statement(url)) == Refused(reason)


async def test_a_name_that_does_not_resolve_may_resolve_later() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        return []

    channel = WebhookChannel(AddressPolicy(resolve=nowhere))
    assert await channel.send(statement("https://nowhere.test/")) == Retry(Reason.UNRESOLVED)
    await channel.close()


async def test_proxies_of_the_environment_are_not_used(
    told: Receiver, channel: WebhookChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert await channel.send(statement(told.url)) == Delivered("204")
        assert proxy.connections == 0


async def test_ipv6_receivers_are_reached() -> None:
    async with receiver("::1") as told:
        channel = WebhookChannel(AddressPolicy([told.authority]))
        assert await channel.send(statement(told.url)) == Delivered("204")
        assert told.requests[0].headers["host"] == told.authority
        await channel.close()


async def test_tls_is_spoken_with_the_name_although_the_address_was_checked(
    tmp_path: Path,
) -> None:
    certified = authority("receiver.test", tmp_path)
    async with receiver(tls=certified.server) as told:
        policy = AddressPolicy([f"receiver.test:{told.port}"], _loopback)
        url = f"https://receiver.test:{told.port}/hook"

        trusting = WebhookChannel(policy, WebhookConfig(ca_file=certified.ca_file))
        assert await trusting.send(statement(url)) == Delivered("204")
        assert told.requests[0].headers["host"] == f"receiver.test:{told.port}"
        await trusting.close()

        careful = WebhookChannel(policy)
        assert await careful.send(statement(url)) == Retry(Reason.TLS)
        await careful.close()


async def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    certified = authority("other.test", tmp_path)
    async with receiver(tls=certified.server) as told:
        policy = AddressPolicy([f"receiver.test:{told.port}"], _loopback)
        channel = WebhookChannel(policy, WebhookConfig(ca_file=certified.ca_file))
        url = f"https://receiver.test:{told.port}/hook"
        assert await channel.send(statement(url)) == Retry(Reason.TLS)
        assert not told.requests
        await channel.close()


async def _loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_nobody_listening_is_tried_again() -> None:
    async with receiver() as closed:
        pass
    channel = WebhookChannel(AddressPolicy([closed.authority]))
    assert await channel.send(statement(closed.url)) == Retry(Reason.CONNECTION_REFUSED)
    await channel.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length", b"220 hello\r\n"])
async def test_a_broken_answer_is_tried_again(
    told: Receiver, channel: WebhookChannel, answer: bytes
) -> None:
    told.answer = answer
    told.hang_up = True
    assert await channel.send(statement(told.url)) == Retry(Reason.CONNECTION_LOST)


async def test_a_receiver_that_never_answers_times_out(told: Receiver) -> None:
    told.hold = asyncio.Event()
    channel = WebhookChannel(AddressPolicy([told.authority]), WebhookConfig(timeout=0.05))
    assert await channel.send(statement(told.url)) == Retry(Reason.TIMEOUT)
    assert len(told.requests) == 1
    told.hold.set()
    await channel.close()


async def test_a_long_answer_is_left_unread(told: Receiver, channel: WebhookChannel) -> None:
    told.answers(200, body=b" " * 100 * LONGEST_ANSWER)
    assert await channel.send(statement(told.url)) == Delivered("200")


async def test_what_has_no_bytes_is_refused(told: Receiver, channel: WebhookChannel) -> None:
    broken = statement(told.url, "\ud800")
    assert await channel.send(broken) == Refused(Reason.MALFORMED_MESSAGE)


def test_the_body_keeps_every_language_readable() -> None:
    body = payload(statement("https://example.com/", "调查 بررسی"))
    assert "调查 بررسی" in body.decode()
    assert json.loads(body)["data"]["text"] == "调查 بررسی"
