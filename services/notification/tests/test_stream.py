"""The live stream over a real connection, on a real log: live, without personal data, resumable."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rapport.common.auth import Signer, Verifier
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.clock import JumpingClock
from rapport.common.events import Event, encode
from rapport.common.events.cases import CaseReplyRequested
from rapport.common.events.envelope import EventData
from rapport.common.events.feedback import Contact
from rapport.common.events.ids import random_id
from rapport.common.events.vocabulary import Language
from rapport.common.runtime import Running
from rapport.common.serving import listening
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING
from rapport.notification.resources import Listeners
from rapport.notification.service import SERVICE

from .cast import opened, released

STREAM = "/notification/v1/stream"


@dataclass
class Live:
    """A service at work, and a client of it."""

    running: Running
    bus: EmbeddedBus
    clock: JumpingClock
    http: httpx2.AsyncClient

    async def publish(self, data: EventData, *, redrive: str | None = None) -> None:
        """Let another service say something."""
        key = getattr(data, data.KEY or "")
        assert data.TOPIC is not None
        event = Event(
            id=random_id(),
            source="/test",
            type=data.TYPE,
            subject=key,
            time=self.clock.now(),
            data=data,
            partitionkey=key,
            correlationid=random_id(),
            redrive=redrive,
        )
        await self.bus.publish([encode(event, data.TOPIC.name)])

    @asynccontextmanager
    async def listen(self, after: str | None = None) -> AsyncIterator[AsyncIterator[Any]]:
        """Listen, from now or after an event."""
        headers = {"Last-Event-ID": after} if after else {}
        async with self.http.sse(STREAM, headers=headers, timeout=30) as stream:
            yield aiter(stream)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    clock = JumpingClock(MORNING)
    bus = EmbeddedBus(tmp_path / "bus.db", clock=clock)
    signer = Signer.open(tmp_path / "keys")
    verifier = Verifier.from_file(tmp_path / "keys" / "verify.json", "rapport", "rapport")
    store = SqliteStore(tmp_path / "notification.db", SERVICE.kinds)
    running = Running(SERVICE, SERVICE.settings.load(), bus, store, clock, verifier)
    await bus.start()
    await running.start()
    headers = {"Authorization": f"Bearer {signer.mint('vic', ['viewer', 'pr'])}"}
    async with listening(running.app, "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, headers=headers) as http:
            yield Live(running, bus, clock, http)
    await running.stop(drain=5)
    await bus.stop()


def reply() -> CaseReplyRequested:
    return CaseReplyRequested(
        case_id="c1",
        reply_id="r1",
        by="ana",
        via="elsewhere",
        contact=Contact(person="p", name="Cora Home", email="cora@home.example"),
        language=Language.EN,
        subject="Your kettle, Cora",
        text="We are sorry, Cora.",
    )


async def of_type(stream: AsyncIterator[Any], type: str) -> dict[str, Any]:
    """Wait for an event of one type."""
    async for item in stream:
        told: dict[str, Any] = json.loads(item.data)
        if told.get("type") == type:
            return told
    raise AssertionError(type)


async def test_what_happens_is_shown_without_personal_data(live: Live) -> None:
    seen: list[str] = []
    async with live.listen() as stream:
        await live.publish(reply())
        async for item in stream:
            seen.append(item.data)
            if json.loads(item.data)["type"] == "rapport.notification.delivered.v1":
                break
    assert "rapport.case.reply_requested.v1" in seen[0]
    assert json.loads(seen[0])["data"]["contact"] == {"person": "p", "kind": "customer"}
    assert not any(secret in text for text in seen for secret in ("Cora", "home.example", "sorry"))


async def test_what_is_addressed_to_the_stream_arrives_with_its_words(live: Live) -> None:
    address = {"channel": "stream", "to": "board"}
    board = {"groups": ["staff"], "language": "fa", "addresses": [address]}
    answer = await live.http.put("/notification/v1/stakeholders/board", json=board)
    assert answer.status_code == 200
    async with live.listen() as stream:
        statement = released(groups=("staff",))
        await live.publish(statement)
        told = (await of_type(stream, "rapport.notification.delivered.v1"))["data"]
    assert told["text"] == statement.wordings[Language.FA].text
    assert told["statement_hash"] == statement.hash


async def test_what_goes_back_to_one_group_is_not_told_again(live: Live) -> None:
    async with live.listen() as stream:
        await live.publish(opened("c1"), redrive="routing")
        await live.publish(opened("c1"))
        told = json.loads((await anext(stream)).data)
    assert (told["data"]["case_id"], "redrive" in told) == ("c1", False)


async def test_whoever_comes_back_misses_nothing(live: Live) -> None:
    """Not even from partitions that were empty when they left."""
    async with live.listen() as stream:
        await live.publish(opened("first"))
        last = (await anext(stream)).id
    missed = {f"c{number}" for number in range(30)}
    for case in sorted(missed):
        await live.publish(opened(case))
    async with live.listen(last) as stream:
        seen = [json.loads((await anext(stream)).data)["data"]["case_id"] for _ in missed]
    assert set(seen) == missed


async def test_what_has_left_the_log_is_a_reset_and_the_stream_goes_on(live: Live) -> None:
    async with live.listen() as stream:
        await live.publish(opened("old"))
        last = (await anext(stream)).id
    first = last.replace(":0", ":-1")
    while not await live.running.quiet():  # noqa: ASYNC110
        await asyncio.sleep(0)
    live.clock.move(timedelta(days=40))
    await live.bus.trim()
    async with live.listen(first) as stream:
        reset = await anext(stream)
        assert reset.event == "reset"
        await live.publish(opened("new"))
        assert json.loads((await anext(stream)).data)["data"]["case_id"] == "new"
    async with live.listen(reset.id) as stream:
        assert json.loads((await anext(stream)).data)["data"]["case_id"] == "new"


@pytest.mark.parametrize("after", ["0:0:99", "1:0:5,1:1:5"])
async def test_places_of_another_log_are_a_reset(live: Live, after: str) -> None:
    async with live.listen(after) as stream:
        assert (await anext(stream)).event == "reset"


@pytest.mark.parametrize("after", ["yesterday", "0:0", "99:0:1"])
async def test_what_is_no_place_is_refused(live: Live, after: str) -> None:
    answer = await live.http.get(STREAM, headers={"Last-Event-ID": after})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == "/header/last-event-id"


@pytest.mark.parametrize("limit", [{"most": 2}, {"most_each": 2}])
async def test_only_so_many_listen_and_whoever_leaves_makes_room(
    live: Live, limit: dict[str, int]
) -> None:
    listeners = Listeners(**limit)
    live.running.app.state.resources = replace(live.running.resources, listeners=listeners)
    async with live.listen(), live.listen():
        refused = await live.http.get(STREAM)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert refused.headers["content-type"] == "application/problem+json"
    while len(listeners):  # noqa: ASYNC110
        await asyncio.sleep(0)
    async with live.listen() as stream:
        await live.publish(opened("new"))
        assert json.loads((await anext(stream)).data)["data"]["case_id"] == "new"
