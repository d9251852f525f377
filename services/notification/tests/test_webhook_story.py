"""A dealer's system gets alerts by webhook: signed, with a secret shown once, until it says 410."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from rapport.common.events.notifications import NotificationDelivered, NotificationFailed
from rapport.common.testing import Harness, harness
from rapport.notification.service import SERVICE

from .cast import KEY, opened, stakeholder, subscribe
from .servers import Receiver, Request, receiver

DEALER = "/notification/v1/stakeholders/dealer"


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


@pytest.fixture
async def notification(hook: Receiver) -> AsyncIterator[Harness]:
    async with harness(SERVICE, person_key=KEY, webhook_allow=hook.authority) as running:
        await subscribe(running, "cases", to=["dealer"], events=["case.opened"])
        yield running


async def put_dealer(notification: Harness, hook: Receiver) -> str | None:
    body = {"addresses": [{"channel": "webhook", "to": hook.url}]}
    answer = await notification.call("PUT", DEALER, json=body)
    secret: str | None = answer.json()["addresses"][0]["secret"]
    return secret


def verify(secret: str | None, request: Request) -> Any:
    return Webhook(secret or "").verify(request.body, request.headers)


async def test_an_alert_arrives_signed_with_the_secret_that_was_shown_once(
    notification: Harness, hook: Receiver
) -> None:
    secret = await put_dealer(notification, hook)
    assert await put_dealer(notification, hook) is None
    shown = await notification.call("GET", DEALER)
    assert shown.json()["addresses"] == [{"channel": "webhook", "to": hook.url, "secret": None}]
    assert secret is not None
    listed = await notification.call("GET", "/notification/v1/stakeholders")
    assert secret not in shown.text + listed.text

    await notification.given(opened())
    told = verify(secret, hook.requests[0])
    delivered = notification.published(NotificationDelivered).data
    assert told["data"]["id"] == delivered.notification_id
    assert hook.requests[0].headers["webhook-id"] == delivered.notification_id
    assert told["data"]["details"]["product"] == "kettle"


async def test_of_two_who_make_the_same_webhook_at_once_each_is_shown_only_what_signs(
    notification: Harness, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, both = notification.running.store.get_many, asyncio.Barrier(2)

    async def read_together(*what: Any) -> Any:
        found = await read(*what)
        if not found:
            await both.wait()
        return found

    monkeypatch.setattr(notification.running.store, "get_many", read_together)
    shown = await asyncio.gather(*(put_dealer(notification, hook) for _ in range(2)))
    monkeypatch.undo()
    await notification.given(opened())

    [secret] = filter(None, shown)
    assert verify(secret, hook.requests[0])


async def test_a_new_secret_signs_beside_the_one_before_it(
    notification: Harness, hook: Receiver
) -> None:
    secrets = [await put_dealer(notification, hook)]
    for _ in range(2):
        answer = await notification.call("POST", f"{DEALER}/secrets", json={"to": hook.url})
        assert answer.status_code == 201
        secrets.append(answer.json()["addresses"][0]["secret"])
    await notification.given(opened())

    oldest, before, newest = secrets
    assert verify(newest, hook.requests[0]) == verify(before, hook.requests[0])
    with pytest.raises(WebhookVerificationError):
        verify(oldest, hook.requests[0])


async def test_a_secret_is_only_for_a_webhook_that_is_there(
    notification: Harness, hook: Receiver
) -> None:
    body = {"to": hook.url}
    assert (await notification.call("POST", f"{DEALER}/secrets", json=body)).status_code == 404
    await put_dealer(notification, hook)
    body = {"to": "https://elsewhere.example/hook"}
    assert (await notification.call("POST", f"{DEALER}/secrets", json=body)).status_code == 404


async def test_the_same_request_again_shows_no_secret_and_changes_none(
    notification: Harness, hook: Receiver
) -> None:
    await put_dealer(notification, hook)
    request: dict[str, Any] = {"json": {"to": hook.url}, "headers": {"Idempotency-Key": "k"}}
    first = await notification.call("POST", f"{DEALER}/secrets", **request)
    again = await notification.call("POST", f"{DEALER}/secrets", **request)
    assert again.json()["addresses"][0]["secret"] is None

    await notification.given(opened())
    assert verify(first.json()["addresses"][0]["secret"], hook.requests[0])


async def test_a_receiver_that_is_gone_is_forgotten(notification: Harness, hook: Receiver) -> None:
    await put_dealer(notification, hook)
    hook.answers(410)
    await notification.given(opened("c1"))
    assert notification.published(NotificationFailed).data.reason == "gone"
    await notification.given(opened("c2"))

    assert len(hook.requests) == 1
    assert (await notification.call("GET", DEALER)).json()["addresses"] == []


async def test_who_leaves_hears_nothing_more(notification: Harness, hook: Receiver) -> None:
    await put_dealer(notification, hook)
    assert (await notification.call("DELETE", DEALER)).status_code == 204
    await notification.given(opened())
    assert hook.requests == []
    assert (await notification.call("GET", DEALER)).json()["active"] is False
    await stakeholder(notification, "dealer", addresses=[{"channel": "stream", "to": "board"}])
    await notification.given(opened("c2"))
    assert notification.published(NotificationDelivered).data.channel == "stream"
