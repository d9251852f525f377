"""Installations that have been running for a while.

The real line takes a few complaints in, in three languages. What each service has stored of them is
then stored again, so many times, with times and ids of its own. The ids are stored in order, which
is quicker; those of new events fall anywhere among them, as ever.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import httpx2
import uvloop

from benchmarks.texts import LANGUAGES, Writer
from rapport.analytics.domain.burst.bins import bin_of
from rapport.common.aggregate import Aggregate, Fact
from rapport.common.events.ids import base32
from rapport.common.store import Change
from rapport.common.store.sqlite import SqliteStore
from rapport.common.telemetry import configure_logs
from rapport.standalone.system import SERVICES, System, system

SAMPLE: Final = 20
"""Complaints that the real line has taken in."""

PRODUCTS: Final = 10
SEED: Final = 20_261_122
BATCH: Final = 2_000
PAUSE: Final = 0.05

EVERY_CASE_IS_TOLD: Final = "alerts: {most: 1000, minutes: 1, always: {events: [case.opened]}}"
"""What people would not want, and what can be counted: see the limits of notification."""


def fill(installations: dict[Path, int]) -> None:
    """Make installations in folders, each with so many cases and all that comes with them."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_begin, installations))
        jobs = [
            pool.submit(_repeat, folder, name, cases)
            for folder, cases in installations.items()
            for name in ("notification", "routing", "analytics", "intake", "knowledge")
        ]
        for job in jobs:
            job.result()


def complaints(source: str) -> Iterator[dict[str, Any]]:
    """Write complaints without end, each a conversation of its own in `source`."""
    writers = [Writer(language, SEED) for language in LANGUAGES]
    number = 0
    while True:
        for writer in writers:
            yield {
                "kind": "complaint",
                "channel": "email",
                "source": source,
                "source_ref": f"message-{number}",
                "text": writer.case(),
                "product": f"product {number % PRODUCTS}",
                "region": f"region {number % PRODUCTS}",
                "contact": {"email": f"person{number}@example.org"},
            }
            number += 1


def request(token: str, complaint: dict[str, Any]) -> bytes:
    """Return a complaint as the HTTP request that brings it to intake."""
    body = json.dumps(complaint).encode()
    head = (
        f"POST /intake/v1/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def installation(folder: Path) -> AsyncIterator[System]:
    """Run the system in `folder`; every new case is told, however many there are."""
    limits = folder / "policy" / "notification" / "limits.yaml"
    limits.parent.mkdir(parents=True, exist_ok=True)
    limits.write_text(EVERY_CASE_IS_TOLD, "utf-8")
    async with system(folder, port=0, settings={"policy_dir": folder / "policy"}) as up:
        yield up


async def set_up(up: System, http: httpx2.AsyncClient) -> None:
    """Let every owner be told of a new case on the live stream."""
    headers = authorization(up)
    teams = SERVICES["routing"]
    policies = up.services[teams.name].resources.policies
    people = [person for team in policies.teams.teams.values() for person in team.members]
    for person in people:
        record = {"addresses": [{"channel": "stream", "to": person}]}
        path = f"/notification/v1/stakeholders/{person}"
        (await http.put(path, json=record, headers=headers)).raise_for_status()
    wish = {"to": ["owner"], "events": ["case.opened"]}
    path = "/notification/v1/subscriptions/new-cases"
    (await http.put(path, json=wish, headers=headers)).raise_for_status()


def authorization(up: System) -> dict[str, str]:
    """Return the header of somebody who may do everything that is done here."""
    return {"Authorization": f"Bearer {up.token('lin', 'lead', 'publisher')}"}


def _begin(folder: Path) -> None:
    uvloop.run(_begun(folder))


async def _begun(folder: Path) -> None:
    configure_logs("ERROR")
    async with installation(folder) as up, httpx2.AsyncClient(base_url=up.url) as http:
        await set_up(up, http)
        headers = authorization(up)
        for complaint in islice(complaints("sample"), SAMPLE):
            answer = await http.post("/intake/v1/feedback", json=complaint, headers=headers)
            answer.raise_for_status()
        await _quiet(up)


async def _quiet(up: System) -> None:
    while True:
        if await up.quiet():
            return
        await asyncio.sleep(PAUSE)


def _repeat(folder: Path, name: str, cases: int) -> None:
    uvloop.run(_repeated(folder, name, cases))


async def _repeated(folder: Path, name: str, cases: int) -> None:
    store = SqliteStore(folder / f"{name}.db", SERVICES[name].kinds)
    await store.start()
    for kind in SERVICES[name].kinds:
        sample = (await store.find(kind, limit=20 * SAMPLE)).items
        if len(sample) >= SAMPLE:
            await _store(store, kind, sample, cases * len(sample) // SAMPLE)
    await store.stop()


async def _store(store: SqliteStore, kind: type[Any], sample: Sequence[Any], number: int) -> None:
    save = store.insert_facts if issubclass(kind, Fact) else partial(_save, store)
    others = again(sample, number)
    while some := list(islice(others, BATCH)):
        await save(some)


async def _save(store: SqliteStore, aggregates: Sequence[Aggregate]) -> None:
    assert all(await store.save_many([Change(aggregate) for aggregate in aggregates]))


def again(sample: Sequence[Any], number: int) -> Iterator[Any]:
    """Repeat a sample until there are so many, a second apart up to now, each with its own id."""
    kind = type(sample[0])
    began = datetime.now(UTC) - timedelta(seconds=number)
    for place, id in enumerate(ids(number)):
        changed: dict[str, Any] = {"id": id, "version": 0}
        if isinstance(getattr(sample[0], kind.ORDER), datetime):
            changed[kind.ORDER] = began + timedelta(seconds=place)
        if "bin" in kind.model_fields:
            changed["bin"] = bin_of(changed[kind.ORDER])
        if "case_id" in kind.model_fields:
            changed["case_id"] = id
        yield sample[place % len(sample)].model_copy(update=changed)


def ids(number: int) -> list[str]:
    """Return so many ids, spread evenly, in the order in which they are stored."""
    return sorted(base32(((place << 128) // number).to_bytes(16)) for place in range(number))
