"""A service comes up whole or not at all, and goes down in order whatever happens."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rapport.common.auth import Signer, Verifier
from rapport.common.bus.port import Lag
from rapport.common.clock import ManualClock
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events import Message
from rapport.common.http import operations
from rapport.common.runtime import Running, Service
from rapport.common.serving import listening, main
from rapport.common.settings import Settings
from rapport.common.store.sqlite import SqliteStore
from rapport.common.testing import MORNING, RecordingBus, harness

from .shop import SHOP, ItemSold, Till


class ClosedBus(RecordingBus):
    """A bus that cannot be subscribed to."""

    async def subscribe(self, group: str, topics: Sequence[str], handler: Any, **_: Any) -> Any:
        raise TemporaryError("the bus is away")


def shop(**given: Any) -> Service:
    """Return the shop with other ways to begin and end."""
    return Service(**{**vars(SHOP), **given})


@pytest.fixture
def keys(tmp_path: Path) -> Verifier:
    Signer.open(tmp_path / "keys")
    return Verifier.from_file(tmp_path / "keys" / "verify.json", "rapport", "rapport")


def running(service: Service, keys: Verifier) -> Running:
    clock = ManualClock(MORNING)
    store = SqliteStore(None, service.kinds)
    return Running(service, Settings.load(), ClosedBus(clock), store, clock, keys)


async def test_a_start_that_fails_closes_what_it_had_opened(keys: Verifier) -> None:
    told: list[str] = []

    async def begin(_: Any) -> None:
        told.append("begun")

    async def end(_: Any) -> None:
        told.append("ended")

    half = running(shop(begin=begin, end=end), keys)
    with pytest.raises(TemporaryError, match="the bus is away"):
        await half.start()

    assert told == ["begun", "ended"]
    with pytest.raises(TemporaryError, match="closed"):
        await half.store.get(Till, "t1")
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("relay", "sweeper")]


async def test_what_did_not_begin_does_not_end(keys: Verifier) -> None:
    async def begin(_: Any) -> None:
        raise PermanentError("no till")

    async def end(_: Any) -> None:
        raise AssertionError

    with pytest.raises(PermanentError, match="no till"):
        await running(shop(begin=begin, end=end), keys).start()


async def test_an_end_that_fails_leaves_nothing_open(keys: Verifier) -> None:
    async def end(_: Any) -> None:
        raise OSError("the door is stuck")

    up = running(shop(end=end), keys)
    await up.start(consume=False)
    with pytest.raises(OSError, match="stuck"):
        await up.stop()
    with pytest.raises(TemporaryError, match="closed"):
        await up.store.get(Till, "t1")


async def test_a_damaged_store_is_not_ready(keys: Verifier) -> None:
    async def damaged(*_: Any) -> None:
        raise PermanentError("the store's file is damaged")

    async with harness(SHOP) as up:
        up.running.store.get = damaged  # type: ignore[assignment]
        assert await up.running.missing() == {"shop.store": "the store's file is damaged"}


class StoppedReading:
    """A subscription that is of no use: it stands still at one partition, and says nothing."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.failures = {("rapport.cases", 3): ValueError("leila@example.org")}

    async def lag(self) -> Lag:
        raise TemporaryError("no partitions are assigned yet")

    async def stop(self, drain: float = 20.0) -> None:
        """Nothing to stop."""


class HalfBus(RecordingBus):
    """A bus that can be subscribed to and not much more."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.asked = asyncio.Event()
        self.reading = StoppedReading()

    async def subscribe(self, group: str, topics: Sequence[str], handler: Any, **_: Any) -> Any:
        return self.reading

    async def publish(self, messages: Sequence[Message]) -> None:
        self.asked.set()
        raise TemporaryError("the broker is away")


async def test_each_thing_that_is_missing_is_named(keys: Verifier) -> None:
    clock = ManualClock(MORNING)
    store = SqliteStore(None, SHOP.kinds)
    bus = HalfBus(clock)
    up = Running(SHOP, Settings.load(), bus, store, clock, keys)
    await up.start()
    till = Till(id="t1")
    till.sell("tea", 3)
    await up.engine.change(Till, "t1", lambda _: till, cause="sold by hand")
    await bus.asked.wait()

    assert await up.missing() == {
        "shop.bus": "no partitions are assigned yet",
        "shop.relay": "the broker is away",
        "shop.partitions": "rapport.cases/3 stopped: ValueError",
    }
    told = metrics("shop")
    assert told["rapport_partitions_stopped"] == 1
    assert told["rapport_relay_behind_aggregates"] == 1
    assert told["rapport_outbox_age_seconds"] > 0
    assert told["rapport_publishes_retried_total"] > 0
    await up.stop(drain=0)


async def test_how_far_behind_it_is_can_be_seen_without_asking_first(keys: Verifier) -> None:
    clock = ManualClock(MORNING)
    bus = HalfBus(clock)
    bus.reading = Behind()
    up = Running(SHOP, Settings.load(), bus, SqliteStore(None, SHOP.kinds), clock, keys)
    await up.start()
    await bus.reading.asked.wait()
    await up.stop()
    told = metrics("shop")
    assert told["rapport_consumer_lag_records"] == 7
    assert told["rapport_consumer_lag_seconds"] == 3.5


class Behind(StoppedReading):
    """A subscription that is behind."""

    async def lag(self) -> Lag:
        self.asked.set()
        return Lag(7, 3.5)


async def test_while_nobody_can_say_how_far_behind_it_is_the_time_counts(
    keys: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("rapport.common.runtime.monotonic", lambda: now)
    clock = ManualClock(MORNING)
    bus = HalfBus(clock)
    bus.reading = reading = Unsure()
    up = Running(SHOP, Settings.load(), bus, SqliteStore(None, SHOP.kinds), clock, keys)
    await up.start()
    now += 30
    assert "shop.bus" in await up.missing()
    assert metrics("shop")["rapport_consumer_lag_seconds"] == 30

    reading.known = Lag(7, 3.5)
    await up.missing()
    assert metrics("shop")["rapport_consumer_lag_seconds"] == 3.5

    reading.known = None
    now += 60
    assert "shop.bus" in await up.missing()
    assert metrics("shop")["rapport_consumer_lag_seconds"] == 63.5
    await up.stop()


class Unsure(StoppedReading):
    """A subscription that does not always know how far behind it is."""

    known: Lag | None = None

    async def lag(self) -> Lag:
        return self.known or await super().lag()


async def test_how_late_due_items_are_can_be_seen_and_passes() -> None:
    async with harness(SHOP) as up:
        await up.given(ItemSold(till="t1", item="tea"))
        late = up.clock.now() + timedelta(hours=8, seconds=30)
        assert await up.running.scheduler.fire(late) == 1
        assert metrics("shop")["rapport_due_items_late_seconds"] == 30
        assert await up.running.scheduler.fire(late) == 0
        assert metrics("shop")["rapport_due_items_late_seconds"] == 0


async def test_a_store_that_does_not_answer_is_named_in_time(
    keys: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("rapport.common.runtime.ANSWER_SECONDS", 0.01)
    async with harness(SHOP) as up:
        up.running.store.get = never  # type: ignore[assignment]
        assert await up.running.missing() == {"shop.store": "no answer within 0.01 s"}


def metrics(service: str) -> dict[str, float]:
    """Return what a scrape shows of a service, for metrics that have no other label."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(generate_latest().decode())
        for sample in family.samples
        if sample.labels == {"service": service}
    }


@pytest.fixture
async def address() -> AsyncIterator[int]:
    async def nothing_missing() -> dict[str, str]:
        return {}

    async with listening(operations(nothing_missing), "127.0.0.1", 0) as port:
        yield port


async def test_a_port_that_is_taken_is_an_error_like_others(address: int) -> None:
    with pytest.raises(OSError, match="in use"):
        async with listening(operations(_nothing), "127.0.0.1", address):
            pass


async def test_it_answers_from_the_moment_it_listens(address: int) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{address}/livez")
    assert answer.text == "ok"


async def test_it_can_stop_before_it_has_begun() -> None:
    async with listening(operations(_nothing), "127.0.0.1", 0) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


async def _nothing() -> dict[str, str]:
    return {}


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the environment say where a process of its own keeps things."""
    Signer.open(tmp_path / "keys")
    for name, value in {
        "BUS": f"embedded:{tmp_path / 'bus.db'}",
        "STORE": f"sqlite:{tmp_path}",
        "AUTH_KEYS": str(tmp_path / "keys" / "verify.json"),
        "HTTP_PORT": "0",
        "PERSON_KEY": "p" * 32,
    }.items():
        monkeypatch.setenv(f"RAPPORT_{name}", value)
    monkeypatch.setattr("rapport.common.serving.configure_logs", lambda *_: None)
    return tmp_path


def test_a_service_runs_until_it_is_told_to_stop(process: Path) -> None:
    ended: list[str] = []

    async def begin(_: Any) -> None:
        asyncio.get_running_loop().call_later(0, os.kill, os.getpid(), signal.SIGTERM)

    async def end(_: Any) -> None:
        ended.append("ended")

    main(shop(begin=begin, end=end))
    assert ended == ["ended"]


def test_a_port_that_is_taken_ends_the_process_with_a_line(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("RAPPORT_HTTP_PORT", str(taken.getsockname()[1]))
        with pytest.raises(SystemExit, match="cannot listen: Address already in use"):
            main(SHOP)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"keys": []}', '{"keys": [1]}', "\xff"])
def test_keys_that_are_none_end_the_process_with_a_line(process: Path, text: str) -> None:
    (process / "keys" / "verify.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit, match=r"verify\.json holds no JSON Web Key Set"):
        main(SHOP)


@pytest.mark.parametrize("secret", ["", "p" * 31])
def test_a_secret_that_is_missing_or_short_ends_the_process_with_a_line(
    process: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("RAPPORT_PERSON_KEY", secret)
    with pytest.raises(SystemExit, match=r"RAPPORT_PERSON_KEY: expected.*32 bytes.*openssl"):
        main(SHOP)


def test_an_identity_provider_that_is_away_ends_the_process_with_a_line(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("RAPPORT_AUTH_JWKS_URL", f"http://127.0.0.1:{port}/keys")
    with pytest.raises(SystemExit, match=r"RAPPORT_AUTH_JWKS_URL: .*cannot be reached"):
        main(SHOP)


def test_keys_that_are_missing_end_the_process_with_a_line(process: Path) -> None:
    (process / "keys" / "verify.json").unlink()
    with pytest.raises(SystemExit, match=r"verify\.json cannot be read"):
        main(SHOP)
