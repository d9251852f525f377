"""Two replicas of routing, one of which goes: killed without a word, or told to stop.

A crash is noticed when the member's session is over, and then the group is shared out anew: that is
what two bare clients of aiokafka take, which read a topic with the same settings and lose one of
themselves at the same moment. How long either takes is the time from the kill until what was sent
to every partition right after it has been handled.

Restarts under load are told, not sudden: replicas are stopped one after the other while messages
keep coming, each once another has been started. Nothing may be delivered twice.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import httpx2
import uvloop
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from benchmarks import real_servers
from benchmarks.bus import _messages
from benchmarks.harness import Row, print_table
from rapport.common.auth import Signer
from rapport.common.bus.kafka import KafkaBus, apply
from rapport.common.bus.kafka.reading import Timing
from rapport.common.clock import SystemClock
from rapport.common.events.codec import Message
from rapport.common.events.ids import random_id
from rapport.common.events.topics import CASES, Topic
from rapport.common.runtime import open_bus
from rapport.common.settings import Settings
from rapport.common.telemetry import configure_logs
from rapport.standalone.processes import Processes, apply_topics
from rapport.standalone.system import keys

ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
RESTARTS: Final = int(os.environ.get("RESTARTS", "6"))
PER_SECOND: Final = int(os.environ.get("PER_SECOND", "20"))
PROBES: Final = 120
"""Messages that together reach every partition."""

SLOWER: Final = 1.2
PATIENCE: Final = 180.0
TIMING: Final = Timing()
READY: Final = "ready"


class Seen:
    """Which messages have been handled, and when."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._more = asyncio.Event()

    def note(self, name: str) -> None:
        """Note that a message has been handled; the first time counts."""
        self._at.setdefault(name, perf_counter())
        self._more.set()

    async def last(self, names: set[str]) -> float:
        """Return when the last of `names` was handled, once all are."""
        async with asyncio.timeout(PATIENCE):
            while names - self._at.keys():
                self._more.clear()
                await self._more.wait()
        return max(self._at[name] for name in names)


class Ours:
    """Two replicas of routing, and what they have handled."""

    def __init__(self, up: Processes) -> None:
        self._up = up
        self._seen = Seen()

    async def watch(self) -> None:
        """See in the topic of cases what has been handled, until cancelled."""
        async for records in self._up.bus.tail([CASES.name]):
            for record in records:
                self._seen.note(dict(record.headers)["ce_correlationid"].decode())

    async def probe(self) -> float:
        """Send a message to every partition; return when all have been handled."""
        messages = _messages(PROBES)
        await self._up.bus.publish(messages)
        return await self._seen.last({_id(message) for message in messages})

    async def start(self) -> None:
        """Start one replica more."""
        await self._up.start("routing")

    async def kill(self) -> None:
        """Kill the oldest replica."""
        self._up.running.pop(0).kill()


class Bare:
    """Two bare clients, and what they have read."""

    def __init__(self, servers: str, topic: str, bus: KafkaBus) -> None:
        self._arguments = servers, topic, random_id()
        self._topic = topic
        self._bus = bus
        self._seen = Seen()
        self._running: list[asyncio.subprocess.Process] = []
        self._telling: list[asyncio.Task[None]] = []

    async def probe(self) -> float:
        """Send a message to every partition; return when all have been read."""
        messages = [item._replace(topic=self._topic) for item in _messages(PROBES)]
        await self._bus.publish(messages)
        return await self._seen.last({_id(message) for message in messages})

    async def start(self) -> None:
        """Start one client more."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __spec__.name, *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        self._running.append(process)
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().strip() == READY
        self._telling.append(asyncio.create_task(self._tell(process.stdout)))

    async def kill(self) -> None:
        """Kill the oldest client."""
        process = self._running.pop(0)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Kill all that are left."""
        while self._running:
            await self.kill()
        await asyncio.gather(*self._telling)

    async def _tell(self, written: asyncio.StreamReader) -> None:
        async for line in written:
            self._seen.note(line.decode().strip())


async def be_bare(servers: str, topic: str, group: str) -> None:
    """Be a bare client: read, commit and print the ids of what was read, until killed."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(TIMING.session * 1000),
        heartbeat_interval_ms=int(TIMING.heartbeat * 1000),
        rebalance_timeout_ms=int(TIMING.rebalance * 1000),
        partition_assignment_strategy=(StickyPartitionAssignor,),
    )
    await consumer.start()
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=100)
    print(READY, flush=True)
    while True:
        fetched = await consumer.getmany(timeout_ms=500)
        for record in (record for found in fetched.values() for record in found):
            print(dict(record.headers)["ce_id"].decode(), flush=True)
        if fetched:
            await consumer.commit({place: found[-1].offset + 1 for place, found in fetched.items()})


async def crash(system: Ours | Bare) -> float:
    """Kill one of two; return how many seconds later all partitions have moved."""
    began = perf_counter()
    await system.kill()
    return await system.probe() - began


async def recoveries(servers: str, folder: Path, uri: str) -> Row:
    """Crash both systems at the same time, again and again."""
    topic = Topic(f"bench.{random_id()}", writer="bench")
    await apply(servers, {}, {topic.name: topic}, {})
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(replicas(folder, servers, uri))
        bus = KafkaBus(servers, topics={topic.name: topic})
        await bus.start()
        stack.push_async_callback(bus.stop)
        ours, bare = Ours(up), Bare(servers, topic.name, bus)
        stack.push_async_callback(bare.stop)
        for system in (ours, bare, ours, bare):
            await system.start()
        watching = asyncio.create_task(ours.watch())
        stack.callback(watching.cancel)
        found = []
        for _ in range(ROUNDS):
            await asyncio.gather(ours.probe(), bare.probe())
            found.append(await asyncio.gather(crash(ours), crash(bare)))
            await asyncio.gather(ours.start(), bare.start())
    ratios = [theirs / own for own, theirs in found]
    own, theirs = (median(seconds) for seconds in zip(*found, strict=True))
    return Row(
        "recovery after kill -9 of one of two replicas",
        f"two bare clients, at most {SLOWER:g} x their time",
        median(ratios),
        1 / SLOWER,
        f"{own:.1f} s against {theirs:.1f} s, of which {TIMING.session:.0f} s are the session; "
        f"{ROUNDS} rounds from {min(ratios):.2f} to {max(ratios):.2f}",
        "the bare clients' time over ours until every partition moves again",
    )


async def restarts(servers: str, folder: Path, uri: str) -> Row:
    """Replace replicas under load; count what was delivered to them."""
    sent: set[str] = set()
    files = [folder / f"delivered-{number}" for number in range(RESTARTS + 2)]
    async with replicas(folder, servers, uri) as up:

        async def start(file: Path) -> None:
            await up.start("routing", python=("-m", "benchmarks.recorded", str(file)))

        async def send() -> None:
            while True:
                messages = _messages(PER_SECOND // 10)
                await up.bus.publish(messages)
                sent.update(map(_id, messages))
                await asyncio.sleep(0.1)

        await asyncio.gather(start(files[0]), start(files[1]))
        sending = asyncio.create_task(send())
        for file in files[2:]:
            await start(file)
            await up.running.pop(0).stop()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            while True:
                delivered = Counter(id for file in files for id in file.read_text().split())
                if sent <= delivered.keys():
                    break
                await asyncio.sleep(0.1)
    deliveries = sum(delivered[id] for id in sent)
    return Row(
        "graceful restart under load, records delivered once",
        "deliveries",
        len(sent) / deliveries,
        1.0,
        f"{deliveries - len(sent)} of {len(sent):,} again, {RESTARTS} restarts at {PER_SECOND}/s",
        "records sent over deliveries of them: 1 where none came twice",
    )


@asynccontextmanager
async def replicas(folder: Path, servers: str, uri: str) -> AsyncIterator[Processes]:
    """Have a system of which nothing runs yet; what is started is stopped in the end."""
    secrets = folder / "keys"
    signer = Signer.open(secrets)
    given: dict[str, Any] = {**keys(secrets), "bus": f"kafka://{servers}", "store": uri}
    given["log_level"] = "ERROR"
    common = Settings.load(**given)
    await apply_topics(common)
    bus = open_bus(common)
    await bus.start()
    async with httpx2.AsyncClient(trust_env=False) as http:
        up = Processes(signer, bus, SystemClock(), given, _tell, http, [])
        try:
            yield up
        finally:
            await asyncio.gather(*(process.stop() for process in up.running))
            await bus.stop()


def _tell(service: str, line: str) -> None:
    print(f"{service}: {line}", file=sys.stderr)


def _id(message: Message) -> str:
    return dict(message.headers)["ce_id"].decode()


async def _run(servers: str, uri: str) -> list[Row]:
    configure_logs("ERROR")
    server, _, options = uri.partition("/?")
    store = f"{server}/bench{random_id()}?{options}"
    with TemporaryDirectory() as folder:
        return [await measure(servers, Path(folder), store) for measure in (recoveries, restarts)]


def run() -> list[Row]:
    """Return the rows of the report; none where one of the servers is missing."""
    with real_servers.kafka() as servers, real_servers.mongodb() as uri:
        return uvloop.run(_run(servers, uri)) if servers and uri else []


if __name__ == "__main__":
    if sys.argv[1:]:
        uvloop.run(be_bare(*sys.argv[1:]))
    else:
        print_table(run())
