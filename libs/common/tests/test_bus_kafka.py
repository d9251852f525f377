"""The Kafka bus keeps the port's promises on a real broker; its own are a group's many members.

The broker is the one that RAPPORT_TEST_KAFKA names; every test has topics of its own there.
"""

import asyncio
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import pytest
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.record.util import calc_crc32c
from servers import Server, ServersError, fetch_kafka, kafka

from rapport.common.bus.kafka import KafkaBus, Timing, apply, check
from rapport.common.bus.kafka.brokers import Brokers, missing_requests
from rapport.common.bus.kafka.fetching import PARTITION_BYTES
from rapport.common.bus.kafka.publishing import partition_of
from rapport.common.bus.kafka.reading import GroupReader
from rapport.common.bus.kafka.topics import NEEDED, _describe
from rapport.common.bus.port import Bus, Expired, Handler, Lag, Subscription
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.codec import Message
from rapport.common.events.ids import random_id

from .contract.bus import (
    PATIENCE,
    SCOUTS,
    BusContract,
    Busy,
    Forget,
    Opener,
    Raising,
    Reader,
    Topics,
    all_of,
    by_partition,
    message,
    numbered,
    scout,
    soon,
    texts,
    topics_of,
)

SERVERS: Final = os.environ.get("RAPPORT_TEST_KAFKA", "")
QUICK: Final = Timing(session=3.0, heartbeat=0.5, rebalance=30.0, stall=5.0)
"""So that a member that was killed is missed soon."""

T = TypeVar("T")

needs_kafka = pytest.mark.skipif(not SERVERS, reason="no Kafka: `make test` starts one")


class Applying(KafkaBus):
    """The bus of a service whose topics are applied before it first reads."""

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> GroupReader:
        await apply(SERVERS, {}, self._topics, {group: topics})
        return await super().subscribe(group, topics, handler, max_batch=max_batch)


@needs_kafka
class TestTheContract(BusContract):
    @pytest.fixture
    async def applied(self, topics: Topics) -> AsyncIterator[None]:
        await apply(SERVERS, {}, topics, {})
        yield
        await delete(topics)

    @pytest.fixture
    def opener(self, applied: None, topics: Topics) -> Opener:
        return lambda: Applying(SERVERS, topics=topics, timing=QUICK)

    @pytest.fixture
    def source(self) -> str:
        return (
            "from rapport.common.bus.kafka import KafkaBus, Timing\n"
            f"bus = KafkaBus({SERVERS!r}, topics=topics, timing={QUICK!r})"
        )

    @pytest.fixture
    def forget(self) -> Forget:
        return forget


@asynccontextmanager
async def admin() -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await client.start()
    yield client
    await client.close()


async def delete(topics: Topics) -> None:
    async with admin() as client:
        await client.delete_topics(list(topics))


async def configure(topic: str, settings: Mapping[str, str]) -> None:
    """Give a topic settings of its own, these and no others."""
    async with admin() as client:
        await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, dict(settings))]
        )

    async def known() -> bool:
        found = await _describe(Brokers(SERVERS, {}), [topic])
        return found[topic].own == settings

    await until(known)


async def forget(bus: Bus, topic: str) -> None:
    ends = await bus.ends([topic])
    async with admin() as client:
        await client.delete_records(
            {TopicPartition(*place): RecordsToDelete(end) for place, end in ends.items()}
        )


async def committed(group: str, topic: str) -> Mapping[int, int]:
    async with admin() as client:
        offsets = await client.list_consumer_group_offsets(group)
    return {place.partition: at.offset for place, at in offsets.items() if place.topic == topic}


async def foreign(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    *,
    broken: bool = False,
) -> None:
    """Publish a record that we would not; `broken`, the name of its header is no text."""
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS)
    await producer.start()
    batch = producer.create_batch()
    batch.append(key=key, value=value, timestamp=None, headers=headers)
    if broken:
        built = bytearray(batch._build())
        name = headers[0][0].encode()
        at = built.index(name)
        built[at : at + len(name)] = b"\xff" * len(name)
        built[17:21] = struct.pack(">I", calc_crc32c(bytes(built[21:])))
        batch._build = lambda: bytes(built)
    await (await producer.send_batch(batch, topic, partition=0))
    await producer.stop()


async def until(happened: Callable[[], Awaitable[object]]) -> None:
    """Ask again and again, as an operator would."""
    async with asyncio.timeout(PATIENCE):
        while not await happened():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def when_passed(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until it is no trouble any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await attempt()
            except TemporaryError:
                await asyncio.sleep(0.01)


async def lag_of(subscription: Subscription) -> Lag:
    """Return the lag, once the member has its partitions and has read where it is behind."""
    return await when_passed(subscription.lag)


async def revoked(subscription: GroupReader) -> None:
    """Return once its partitions are being taken away."""

    async def closing() -> bool:
        return all(lane.closing for lane in (subscription._lanes or {}).values())

    await until(closing)


@asynccontextmanager
async def opened(run: str, timing: Timing) -> AsyncIterator[KafkaBus]:
    await apply(SERVERS, {}, topics_of(run), {})
    bus = KafkaBus(SERVERS, topics=topics_of(run), timing=timing)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()
        await delete(topics_of(run))


@pytest.fixture
def run() -> str:
    return random_id()


@pytest.fixture
async def bus(run: str) -> AsyncIterator[KafkaBus]:
    async with opened(run, QUICK) as bus:
        yield bus


# Topics


@needs_kafka
async def test_a_bus_refuses_to_start_on_topics_that_are_not_as_declared(run: str) -> None:
    topics = topics_of(run)
    orders, letters = topics
    with pytest.raises(PermanentError, match=f"{orders} is missing.*rapport topics apply"):
        await KafkaBus(SERVERS, topics=topics).start()
    await apply(SERVERS, {}, topics, {})
    assert await check(SERVERS, {}, topics) == ([], [])
    more = {**topics, orders: replace(topics[orders], partitions=6)}
    with pytest.raises(PermanentError, match=f"{orders} has 4 partitions, not 6"):
        await KafkaBus(SERVERS, topics=more).start()
    await configure(letters, NEEDED | {"cleanup.policy": "compact"})
    with pytest.raises(PermanentError, match=f"{letters} has cleanup.policy compact, not delete"):
        await KafkaBus(SERVERS, topics=topics).start()
    await delete(topics)


@needs_kafka
async def test_how_long_a_topic_keeps_its_records_is_for_operators_to_say(run: str) -> None:
    topics = topics_of(run)
    _, letters = topics
    await apply(SERVERS, {}, topics, {})
    await configure(letters, NEEDED | {"retention.ms": "3600000"})

    shorter = f"{letters} has retention.ms 3600000, not 2592000000"
    assert await check(SERVERS, {}, topics) == ([], [shorter])
    assert await apply(SERVERS, {}, topics, {}) == [f"{shorter}, and keeps it"]
    with structlog.testing.capture_logs() as logs:
        bus = KafkaBus(SERVERS, topics=topics)
        await bus.start()
        await bus.stop()
    assert logs == [{"event": "topics.other_retentions", "found": [shorter], "log_level": "info"}]
    await delete(topics)


@needs_kafka
async def test_topics_are_created_and_corrected_and_that_can_be_repeated(run: str) -> None:
    topics = topics_of(run)
    orders, letters = topics
    groups = {f"group.{run}": [orders]}
    missing = [f"{orders} is missing", f"{letters} is missing"]
    assert await check(SERVERS, {}, topics, groups) == (missing, [])
    assert await apply(SERVERS, {}, topics, groups) == [
        f"{orders} was created with 4 partitions",
        f"{letters} was created with 1 partitions",
        f"group.{run} begins {orders}",
    ]
    assert await apply(SERVERS, {}, topics, groups) == []
    await configure(letters, {"compression.type": "zstd"})
    assert await apply(SERVERS, {}, topics, groups) == [
        f"{letters} has message.timestamp.type LogAppendTime now",
        f"{letters} has retention.ms 2592000000 now",
    ]
    assert await check(SERVERS, {}, topics, groups) == ([], [])
    more = {**topics, letters: replace(topics[letters], partitions=2)}
    with pytest.raises(PermanentError, match=f"{letters} has 1 partitions, not 2"):
        await apply(SERVERS, {}, more, groups)
    found = await check(SERVERS, {}, topics, {f"other.{run}": [orders]})
    assert found.wrong == [f"other.{run} has no offset on {orders}"]
    await delete(topics)


@needs_kafka
async def test_topics_can_be_applied_beside_a_group_at_work(bus: KafkaBus, run: str) -> None:
    orders, letters = topics_of(run)
    group, reader = f"group.{run}", Reader()
    subscription = await bus.subscribe(group, [letters], reader)
    await bus.publish(numbered(letters, "a", 3))
    await reader.until(3)
    done = await apply(SERVERS, {}, topics_of(run), {group: [letters, orders]})
    assert done == [f"{group} is at work and begins {orders} by itself"]
    await subscription.stop()
    assert await apply(SERVERS, {}, topics_of(run), {group: [letters]}) == []
    again = Reader()
    await bus.publish(numbered(letters, "a", 1, first=3))
    await bus.subscribe(group, [letters], again)
    assert texts(await again.until(1)) == ["a-3"]


@needs_kafka
async def test_a_group_that_would_have_to_guess_is_refused(bus: KafkaBus, run: str) -> None:
    _, letters = topics_of(run)
    await bus.publish(numbered(letters, "a", 3))
    await forget(bus, letters)
    with pytest.raises(PermanentError, match=rf"^{run} has no offset on {letters}.*topics apply"):
        await bus.subscribe(run, [letters], Reader())


# Foreign records


@needs_kafka
async def test_whatever_a_foreign_record_holds_those_behind_it_come(
    bus: KafkaBus, run: str
) -> None:
    """A key that is no text, a header without value, the name of one that is no text."""
    orders, letters = topics_of(run)
    await foreign(letters, b"\xff\xfe", None, [("empty", None)])
    await bus.publish(numbered(letters, "a", 2))
    await foreign(letters, b"key", b"unreadable", [("name", b"1")], broken=True)
    await foreign(letters, b"key", b"unreadable", [("name", b"1")], broken=True)
    await bus.publish([*numbered(letters, "a", 2, first=2), *numbered(orders, "b", 20)])

    reader = Reader()
    await bus.subscribe(f"group.{run}", [letters, orders], reader)
    await reader.until(27)
    await bus.publish(numbered(letters, "a", 1, first=4))
    records = [record for record in await reader.until(28) if record.topic == letters]
    assert [record.offset for record in records] == list(range(8))
    assert (records[0].key, records[0].value, records[0].headers) == ("��", None, (("empty", b""),))
    assert [records[at][4:] for at in (3, 4)] == [(None, None, ())] * 2
    assert texts(records) == ["", "a-0", "a-1", "", "", "a-2", "a-3", "a-4"]
    others = Counter(record.offset for record in reader.records if record.topic == orders)
    assert set(others.values()) == {1}
    assert texts(await all_of(bus, letters)) == texts(records)


def test_keys_have_the_partitions_that_every_client_gives_them() -> None:
    """As Kafka's own Utils.murmur2 has it."""
    assert partition_of("21", 1 << 31) == -973932308 & 0x7FFFFFFF
    assert partition_of("foobar", 1 << 31) == -790332482 & 0x7FFFFFFF
    assert {partition_of(None, 4) for _ in range(1000)} == {0, 1, 2, 3}


# Several members


@needs_kafka
async def test_members_share_the_partitions_and_take_over_those_of_one_that_leaves(
    bus: KafkaBus, run: str
) -> None:
    orders, _ = topics_of(run)
    readers = [Reader(), Reader()]
    keys = [f"case-{number}" for number in range(20)]
    first, second = [
        await bus.subscribe(f"group.{run}", [orders], reader, max_batch=5) for reader in readers
    ]
    for round in range(50):
        await bus.publish([message(orders, key, f"{key}:{round}") for key in keys])
        if round == 10:
            async with asyncio.timeout(PATIENCE):
                while not all(reader.records for reader in readers):
                    await bus.publish([message(orders, key, "more") for key in keys])
        if round == 30:
            await first.stop()
    count = sum((await bus.ends([orders])).values())
    async with asyncio.timeout(PATIENCE):
        while sum(len(reader.records) for reader in readers) < count:
            await bus.ends([orders])
    done = Counter((one.partition, one.offset) for reader in readers for one in reader.records)
    assert len(done) == count
    assert set(done.values()) == {1}
    for reader in readers:
        for records in by_partition(reader.records).values():
            offsets = [record.offset for record in records]
            assert offsets == sorted(offsets)
    await second.stop()


@needs_kafka
async def test_a_revoked_partition_lets_its_handler_finish(bus: KafkaBus, run: str) -> None:
    _, letters = topics_of(run)
    await bus.publish(numbered(letters, "a", 4))
    busy, other = Busy("a-0"), Reader()
    group = f"group.{run}"
    first = await bus.subscribe(group, [letters], busy, max_batch=2)
    await soon(busy.started.wait())
    second = await bus.subscribe(group, [letters], other)
    await revoked(first)
    busy.go_on.set()
    async with asyncio.timeout(PATIENCE):
        while len(busy.records) + len(other.records) < 4:
            await bus.publish([])
            await bus.ends([letters])
    assert texts(busy.records)[:2] == ["a-0", "a-1"]
    assert texts([*busy.records, *other.records]) == [f"a-{number}" for number in range(4)]
    await first.stop()
    await second.stop()


@needs_kafka
async def test_a_handler_that_does_not_finish_is_abandoned_with_its_partition(run: str) -> None:
    timing = replace(QUICK, drain=0.2)
    async with opened(run, timing) as bus:
        _, letters = topics_of(run)
        await bus.publish(numbered(letters, "a", 4))
        busy, other = Busy("a-2"), Reader()
        first = await bus.subscribe(f"group.{run}", [letters], busy, max_batch=2)
        await soon(busy.started.wait())
        second = await bus.subscribe(f"group.{run}", [letters], other)
        await revoked(first)
        await first.stop(drain=0)
        assert texts(await other.until(2)) == ["a-2", "a-3"]
        assert texts(busy.records) == ["a-0", "a-1"]
        await second.stop()


@needs_kafka
async def test_the_committed_offset_is_never_beyond_what_is_unfinished(
    bus: KafkaBus, run: str
) -> None:
    orders, _ = topics_of(run)
    stuck, other = await scout(bus, orders)
    group, reader = f"group.{run}", Busy("stuck")
    subscription = await bus.subscribe(group, [orders], reader, max_batch=1)
    await reader.until(SCOUTS)
    await bus.publish([message(orders, stuck, "stuck"), *numbered(orders, other, 50)])
    records = await reader.until(SCOUTS + 50)
    done = {one.partition: one.offset + 1 for one in records}
    async with asyncio.timeout(PATIENCE):
        while await committed(group, orders) != done:
            await bus.publish([])
    ends = await bus.ends([orders])
    assert sum(ends.values()) - sum(done.values()) == 1
    assert (await subscription.lag()).records == 1
    reader.go_on.set()
    await reader.until(SCOUTS + 51)
    await subscription.stop()
    assert await committed(group, orders) == {number: end for (_, number), end in ends.items()}


# Trouble


@needs_kafka
async def test_what_retention_took_before_it_was_read_stops_its_partition_loudly(
    bus: KafkaBus, run: str
) -> None:
    orders, letters = topics_of(run)
    group = f"group.{run}"
    await apply(SERVERS, {}, topics_of(run), {group: [orders, letters]})
    await bus.publish([*numbered(letters, "a", 3), *numbered(orders, "b", 3)])
    await forget(bus, letters)
    reader = Reader()
    with structlog.testing.capture_logs() as lines:
        subscription = await bus.subscribe(group, [orders, letters], reader)
        assert texts(await reader.until(3)) == ["b-0", "b-1", "b-2"]
        async with asyncio.timeout(PATIENCE):
            while not subscription.failures:
                await bus.ends([letters])
    ((place, failure),) = subscription.failures.items()
    assert place == (letters, 0)
    assert isinstance(failure, Expired)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "bus.partition_stopped"
    ]
    await bus.publish([*numbered(letters, "a", 1, first=3), *numbered(orders, "b", 1, first=3)])
    assert texts(await reader.until(4)) == ["b-0", "b-1", "b-2", "b-3"]
    assert (await subscription.lag()).records == 4
    await subscription.stop()


@needs_kafka
async def test_a_stopped_partition_stays_stopped_when_others_join(bus: KafkaBus, run: str) -> None:
    orders, letters = topics_of(run)
    group, reader = f"group.{run}", Raising("a-1")
    await bus.publish(numbered(letters, "a", 3))
    first = await bus.subscribe(group, [letters, orders], reader, max_batch=1)
    async with asyncio.timeout(PATIENCE):
        while not first.failures:
            await bus.ends([letters])
    second = await bus.subscribe(group, [orders], Reader())
    await bus.publish([sent for key in "abcdefgh" for sent in numbered(orders, key, 5)])
    async with asyncio.timeout(PATIENCE):
        while (await lag_of(second)).records or (await lag_of(first)).records != 2:
            await bus.ends([letters])
    assert list(first.failures) == [(letters, 0)]
    assert "a-1" not in texts(reader.records)
    await first.stop()
    await second.stop()


@needs_kafka
async def test_what_waits_for_a_slow_handler_waits_at_the_broker(bus: KafkaBus, run: str) -> None:
    _, letters = topics_of(run)
    reader, large = Busy("first"), 100_000
    await bus.publish([message(letters, "a", "first")])
    subscription = await bus.subscribe(f"group.{run}", [letters], reader)
    await soon(reader.started.wait())
    for _ in range(20):
        await bus.publish([Message(letters, "a", bytes(large), ())] * 20)
    (lane,) = (subscription._lanes or {}).values()
    async with asyncio.timeout(PATIENCE):
        while not lane.is_full:
            await bus.ends([letters])
    await bus.publish([Message(letters, "a", bytes(large), ())] * 20)
    assert len(await all_of(bus, letters)) == 421
    assert lane.size < 2 * PARTITION_BYTES + large
    reader.go_on.set()
    assert len(await reader.until(421)) == 421
    await subscription.stop()


@needs_kafka
async def test_lag_is_known_with_the_partitions(bus: KafkaBus, run: str) -> None:
    orders, letters = topics_of(run)
    subscription = await bus.subscribe(f"group.{run}", [orders, letters], Reader())
    with pytest.raises(TemporaryError, match=rf"group\.{run} waits for its partitions"):
        await subscription.lag()
    assert await lag_of(subscription) == Lag(0, 0.0)
    await bus.publish(numbered(letters, "a", 5))
    assert (await lag_of(subscription)).records <= 5
    for first in range(5, 50, 5):
        await bus.publish(numbered(letters, "a", 5, first=first))
        before = await subscription.lag()
        assert before.records <= 5
    await subscription.stop()
    with pytest.raises(TemporaryError):
        await subscription.lag()


@needs_kafka
async def test_a_consumer_that_stands_still_is_replaced(run: str) -> None:
    """As one does at times after a broker's restart; here it is paused behind the reader's back."""
    async with opened(run, replace(QUICK, stall=1.0)) as bus:
        _, letters = topics_of(run)
        reader = Reader()
        subscription = await bus.subscribe(f"group.{run}", [letters], reader)
        await bus.publish(numbered(letters, "a", 3))
        await reader.until(3)
        stuck = subscription._consumer
        assert stuck is not None
        (lane,) = (subscription._lanes or {}).values()

        async def idle() -> bool:
            return lane.is_idle

        await until(idle)
        stuck.pause(TopicPartition(letters, 0))
        await bus.publish(numbered(letters, "a", 3, first=3))
        assert (await subscription.lag()).records == 3
        assert texts(await reader.until(6)) == [f"a-{number}" for number in range(6)]
        assert subscription._consumer is not stuck
        await subscription.stop()


async def test_a_bus_without_brokers_is_trouble_that_passes() -> None:
    bus = KafkaBus("127.0.0.1:9", topics=topics_of("none"))
    with pytest.raises(TemporaryError, match=r"the brokers at 127\.0\.0\.1:9 cannot be used"):
        await bus.start()
    with pytest.raises(TemporaryError):
        await bus.publish([message("tests.none.letters", "a", "text")])
    with pytest.raises(TemporaryError):
        await apply("127.0.0.1:9", {}, topics_of("none"), {})
    await bus.stop()


def test_brokers_that_are_too_old_lack_what_is_needed() -> None:
    """As Kafka 2.3 answers, and 2.4."""
    old = {0: (0, 7), 1: (0, 11), 11: (0, 5), 22: (0, 1)}
    assert missing_requests(old) == ["Produce"]
    assert missing_requests(old | {0: (0, 8)}) == []
    assert missing_requests({}) == ["Produce", "Fetch", "JoinGroup", "InitProducerId"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    """A broker of one's own, to be killed."""
    if not SERVERS:
        pytest.skip("no Kafka: `make test` starts one")
    try:
        server = kafka(tmp_path / "kafka", fetch_kafka())
    except ServersError as missing:
        pytest.skip(str(missing))
    server.start()
    yield server
    server.kill()


async def test_everything_comes_back_by_itself_when_the_broker_does(
    broker: Server, run: str
) -> None:
    topics = topics_of(run)
    orders, letters = topics
    await apply(broker.address, {}, topics, {run: [orders, letters]})
    bus = KafkaBus(broker.address, topics=topics, timing=replace(QUICK, publish=2.0))
    await bus.start()
    reader, followed = Reader(), Reader()
    subscription = await bus.subscribe(run, [orders, letters], reader)

    async def follow() -> None:
        async for records in bus.tail([letters], {(letters, 0): -1}):
            await followed(records)

    following = asyncio.create_task(follow())
    await bus.publish(numbered(letters, "a", 10))
    await reader.until(10)
    await followed.until(10)

    await asyncio.to_thread(broker.kill)
    for _ in range(2):
        with pytest.raises(TemporaryError):
            await bus.publish(numbered(letters, "lost", 1))
    with pytest.raises(TemporaryError):
        await subscription.lag()
    await asyncio.to_thread(broker.start)

    again = numbered(letters, "a", 10, first=10)
    await when_passed(lambda: bus.publish(again))
    wanted = {f"a-{number}" for number in range(20)}

    async def all_there() -> bool:
        return all(wanted <= set(texts(one.records)) for one in (reader, followed))

    await until(all_there)
    assert subscription.failures == {}

    async def caught_up() -> bool:
        return (await lag_of(subscription)).records == 0

    await until(caught_up)
    await bus.stop()
    await soon(following)
