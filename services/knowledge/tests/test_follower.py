"""Several processes serve the same knowledge: each hears what the others publish."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.clock import ManualClock
from rapport.common.errors import TemporaryError
from rapport.common.events import Message
from rapport.common.testing import MORNING, Harness
from rapport.knowledge.domain.approvals import Requirement
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.statements import Statement
from rapport.knowledge.repository import Repository, Said
from rapport.knowledge.search.catalogue import Catalogue
from rapport.knowledge.search.follower import PAUSE_SECONDS, Follower

from .sayings import AUTHOR, EN, RETURNS, body, draft

BASE = "/knowledge/v1"
APPROVALS = Requirement(quorum={"pr": 1}, languages=(EN,))
WARRANTY = {"title": {"en": "Warranty"}, "text": {"en": "Two years on everything."}}


class Watched(Catalogue):
    """A catalogue that tells when it was shown something."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def show(self, said: Iterable[Said]) -> None:
        shown = list(said)
        super().show(shown)
        if shown:
            self.told.set()


class Shaky(Repository):
    """A repository whose store is away when `troubles` says so."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.troubles: list[Exception] = []

    async def some(self, ids: Mapping[type[Said], Sequence[str]]) -> list[Said]:
        if self.troubles:
            raise self.troubles.pop()
        return await super().some(ids)


class Impatient(ManualClock):
    """A clock on which pauses take no time and are counted."""

    def __init__(self) -> None:
        super().__init__(MORNING)
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Replica:
    """Another process: it shares the publisher's store and hears of changes over a bus."""

    def __init__(self, publisher: Harness, bus: EmbeddedBus) -> None:
        self.publisher = publisher
        self.bus = bus
        self.catalogue = Watched()
        self.repository = Shaky(publisher.running.store)
        self.clock = Impatient()
        self.follower = Follower(self.catalogue, self.repository, bus, self.clock)

    async def hears(self, method: str, path: str, **more: Any) -> None:
        """Let the publisher do something, and what it publishes arrive here."""
        before = len(self.publisher.bus.records)
        answer = await self.publisher.call(method, f"{BASE}/{path}", **more)
        assert answer.status_code < 300, answer.text
        self.catalogue.told.clear()
        await self.bus.publish(
            [
                Message(record.topic, record.key, record.value, record.headers)
                for record in self.publisher.bus.records[before:]
            ]
        )
        await asyncio.wait_for(self.catalogue.told.wait(), 30)

    def finds(self, query: str) -> list[str]:
        """Return what is found in English."""
        hits = self.catalogue.search(query, language=EN, kind=None, limit=10)
        return [hit.entry.id for hit in hits]


@pytest.fixture
async def replica(knowledge: Harness, tmp_path: Path) -> AsyncIterator[Replica]:
    """A process that starts when one article has been published."""
    await knowledge.call("PUT", f"{BASE}/articles/returns", json=RETURNS)
    bus = EmbeddedBus(tmp_path / "bus.db")
    await bus.start()
    started = Replica(knowledge, bus)
    await started.follower.start()
    yield started
    await started.follower.stop()
    await bus.stop()


async def test_a_process_that_starts_knows_what_was_published(replica: Replica) -> None:
    assert replica.finds("money back") == ["article/returns"]


async def test_it_hears_what_others_publish_and_retire(replica: Replica) -> None:
    await replica.hears("PUT", "articles/warranty", json=WARRANTY)
    assert replica.finds("warranty") == ["article/warranty"]
    await replica.hears("DELETE", "articles/warranty")
    assert replica.finds("warranty") == []


async def test_it_hears_what_is_said_and_what_that_replaces(replica: Replica) -> None:
    for id, word in (("a", "unplug"), ("b", "avoid")):
        path = f"statements/{id}"
        await replica.publisher.call(
            "PUT", f"{BASE}/{path}", as_=AUTHOR, json=body(draft(text=f"Please {word} the kettle."))
        )
        await replica.publisher.call("POST", f"{BASE}/{path}/submission", as_=AUTHOR)
        await replica.hears("POST", f"{path}/release", json={"break_glass": "It cannot wait."})
        await replica.publisher.advance(hours=1)
    assert replica.finds("unplug") == []
    assert replica.finds("avoid") == ["statement/b"]


@pytest.mark.parametrize("trouble", [TemporaryError("the store is away"), ZeroDivisionError()])
async def test_after_trouble_it_reads_everything_again(
    replica: Replica, trouble: Exception
) -> None:
    replica.repository.troubles.append(trouble)
    await replica.hears("PUT", "articles/warranty", json=WARRANTY)
    assert replica.clock.pauses == [PAUSE_SECONDS]
    assert replica.finds("warranty") == ["article/warranty"]


async def test_what_was_read_too_late_changes_nothing(replica: Replica) -> None:
    """Between a reading and its showing, somebody here may have published the next version."""
    store = replica.publisher.running.store
    early = await store.get(Article, "returns")
    assert early is not None
    await replica.hears("PUT", "articles/returns", json=WARRANTY)
    replica.catalogue.show([early])
    assert replica.finds("money back") == []
    assert replica.finds("warranty") == ["article/returns"]


def test_a_place_holds_the_latest_statement_in_whatever_order_they_come() -> None:
    first, second = (
        Statement(id=id, draft=draft(text=f"{id} speaks"), authors=[], created_at=MORNING)
        for id in ("one", "two")
    )
    for hour, statement in enumerate((first, second)):
        statement.submit(AUTHOR, APPROVALS)
        statement.release(AUTHOR, MORNING.replace(hour=9 + hour), "It cannot wait.")
    for order in ((first, second), (second, first), (second, first, second)):
        catalogue = Catalogue()
        for statement in order:
            catalogue.show([statement])
        hits = catalogue.search("one two speaks", language=EN, kind="statement", limit=9)
        assert [hit.entry.id for hit in hits] == ["statement/two"]
