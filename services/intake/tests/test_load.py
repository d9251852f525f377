"""How much is taken on at once, and what a sender hears when that is too much."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from rapport.common.errors import TemporaryError
from rapport.common.testing import Harness
from rapport.intake.api.load import AT_ONCE, HELD_BYTES, REQUEST_BYTES, Load

from .sending import (
    BATCH,
    EVENTS,
    FEEDBACK,
    HOOKS,
    complaint,
    jammed_bus,
    problem,
    received,
    send,
)

PATHS = [FEEDBACK, BATCH, EVENTS, f"{HOOKS}/social_webhook"]


class Wire:
    """A request's body as it comes over the wire, in pieces."""

    def __init__(self, pieces: Sequence[bytes], *, hangs_up: bool = False) -> None:
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if hangs_up:
            self._messages.append({"type": "http.disconnect"})
        else:
            self._messages[-1]["more_body"] = False
        self.read = 0

    async def __call__(self) -> dict[str, Any]:
        self.read += 1
        return self._messages[self.read - 1]


async def test_a_body_weighs_until_its_request_is_done() -> None:
    load = Load()
    async with load.body(Wire([b"abc", b"", b"de"])) as body:
        assert body == b"abcde"
        assert load.held == REQUEST_BYTES + 5
    assert load.held == 0


async def test_a_body_that_is_too_much_is_not_read_further() -> None:
    load = Load(REQUEST_BYTES + 5)
    wire = Wire([b"abc", b"def", b"ghi"])
    with pytest.raises(TemporaryError):
        async with load.body(wire):
            raise AssertionError
    assert (wire.read, load.held) == (2, 0)


async def test_nobody_is_let_in_while_enough_are_under_way() -> None:
    load, late = Load(at_once=1), Wire([b"abc"])
    async with load.body(Wire([b"abc"])):
        with pytest.raises(TemporaryError):
            async with load.body(late):
                raise AssertionError
        assert (load.requests, late.read) == (1, 0)
    async with load.body(late) as body:
        assert body == b"abc"
    assert (load.requests, load.held) == (0, 0)


async def test_who_sends_slowly_keeps_nobody_else_waiting() -> None:
    load, more, wire = Load(at_once=1), asyncio.Event(), Wire([b"abc"])

    async def slowly() -> dict[str, Any]:
        await more.wait()
        return await wire()

    async def request() -> bytes:
        async with load.body(slowly) as body:
            return body

    slow = asyncio.create_task(request())
    await asyncio.sleep(0)
    async with load.body(Wire([b"def"])) as body:
        assert body == b"def"
    more.set()
    assert await slow == b"abc"


async def test_a_sender_who_hangs_up_weighs_no_more() -> None:
    load = Load()
    with pytest.raises(ClientDisconnect):
        async with load.body(Wire([b"abc"], hangs_up=True)):
            raise AssertionError
    assert (load.requests, load.held) == (0, 0)


async def test_what_fails_later_is_put_down_too() -> None:
    load = Load()
    with pytest.raises(ZeroDivisionError):
        async with load.body(Wire([b"abc"])):
            raise ZeroDivisionError
    assert (load.requests, load.held) == (0, 0)


@pytest.mark.parametrize("path", PATHS)
async def test_senders_are_sent_away_while_there_is_too_much(intake: Harness, path: str) -> None:
    load = intake.running.resources.load
    full = HELD_BYTES - REQUEST_BYTES
    load.hold(full)
    answer = await send(intake, path, json=[complaint()] if path == BATCH else complaint())
    refused = problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert refused["detail"] == "intake has more on its hands than it can take"
    assert not received(intake)
    load.release(full)
    assert (await send(intake, FEEDBACK, json=complaint())).status_code == 202
    assert load.held == 0


async def test_what_waits_for_the_log_weighs_on_the_load(intake: Harness) -> None:
    load = intake.running.resources.load
    waiting, written = asyncio.Event(), asyncio.Event()
    publish = intake.bus.publish

    async def slowly(messages: Any) -> None:
        waiting.set()
        await written.wait()
        await publish(messages)

    intake.bus.publish = slowly  # type: ignore[method-assign]
    request = asyncio.create_task(send(intake, FEEDBACK, settled=False, json=complaint()))
    await waiting.wait()
    assert load.held > REQUEST_BYTES
    assert not request.done()
    written.set()
    assert (await request).status_code == 202
    assert load.held == 0


async def test_those_who_come_while_the_log_is_slow_are_sent_away_at_once(intake: Harness) -> None:
    load, written = intake.running.resources.load, asyncio.Event()
    publish = intake.bus.publish

    async def slowly(messages: Any) -> None:
        await written.wait()
        await publish(messages)

    intake.bus.publish = slowly  # type: ignore[method-assign]
    senders = [
        asyncio.create_task(
            send(intake, FEEDBACK, settled=False, json=complaint(source_ref=f"T-{number}"))
        )
        for number in range(AT_ONCE)
    ]
    while True:
        if load.requests == AT_ONCE:
            break
        await asyncio.sleep(0)
    late = await send(intake, FEEDBACK, settled=False, json=complaint(source_ref="late"))
    assert problem(late, 503)["detail"] == "intake has more on its hands than it can take"
    assert late.headers["retry-after"] == "1"
    written.set()
    assert {answer.status_code for answer in await asyncio.gather(*senders)} == {202}
    assert (load.requests, load.held) == (0, 0)
    assert len(received(intake)) == AT_ONCE


async def test_a_bus_in_trouble_is_no_answer_but_a_later_one(intake: Harness) -> None:
    with jammed_bus(intake):
        for path, body in ((FEEDBACK, complaint()), (BATCH, [complaint()])):
            answer = await send(intake, path, json=body)
            assert problem(answer, 503)["detail"] == "the bus is in trouble"
            assert answer.headers["retry-after"] == "3"
    assert intake.running.resources.load.held == 0
    assert not received(intake)


async def test_trying_again_after_trouble_is_safe(intake: Harness) -> None:
    call: dict[str, Any] = {"json": complaint(source_ref=None), "headers": {"Idempotency-Key": "k"}}
    with jammed_bus(intake):
        problem(await send(intake, FEEDBACK, **call), 503)
    first, second = [await send(intake, FEEDBACK, **call) for _ in range(2)]
    assert first.status_code == 202
    assert first.json() == second.json()


async def test_what_was_not_published_is_not_known(intake: Harness) -> None:
    with jammed_bus(intake):
        problem(await send(intake, BATCH, json=[complaint()]), 503)
    answer = await send(intake, BATCH, json=[complaint()], headers={"Prefer": "known"})
    assert answer.json()["items"][0]["known"] is False
