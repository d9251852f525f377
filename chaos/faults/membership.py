"""Members of a group come, go, stand still and come too late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from chaos.faults import fault
from chaos.victim import QUICK
from chaos.world import DISTRIBUTED, World
from rapport.standalone.processes import Process, consumers

SHARED: Final = ("routing", "notification", "analytics")
"""The services that have most to share."""

STAY_SECONDS: Final = (0.5, 3.0)

MISSED_SECONDS: Final = QUICK.session + 3.0
"""Longer than a member may be silent."""

PULSES: Final = 8
PULSE_SECONDS: Final = (0.2, 1.0)
BETWEEN_SECONDS: Final = 0.05


@fault("rebalance storm", modes=(DISTRIBUTED,))
async def rebalance_storm(world: World) -> None:
    """A process more joins a group and leaves it again; all the while others do that do no work."""
    service = world.random.choice(SHARED)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_idlers(world, service, over))
        await world.join(service)
        await asyncio.sleep(world.random.uniform(*STAY_SECONDS))
        await world.leave(service)
        over.set()
    await world.ready()


@fault("a process blocked for longer than its session", modes=(DISTRIBUTED,))
async def block_a_process(world: World) -> None:
    """A process stands still in the midst of its work, and goes on when others have taken it."""
    async with _frozen(_one(world)):
        await asyncio.sleep(MISSED_SECONDS)
    await world.ready()


@fault("a slow consumer")
async def slow_consumer(world: World) -> None:
    """A process gets little time: most of it, it stands still."""
    process = _one(world)
    for _ in range(PULSES):
        async with _frozen(process):
            await asyncio.sleep(world.random.uniform(*PULSE_SECONDS))
        await asyncio.sleep(BETWEEN_SECONDS)
    await world.ready()


async def _idlers(world: World, service: str, over: asyncio.Event) -> None:
    """Join a service's group and leave it again, every few seconds; at least once."""
    assert world.kafka is not None
    while not over.is_set():
        idler = AIOKafkaConsumer(
            *consumers()[service],
            bootstrap_servers=world.kafka.address,
            group_id=service,
            enable_auto_commit=False,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
        )
        await idler.start()
        await asyncio.sleep(world.random.uniform(*STAY_SECONDS))
        await idler.stop()
        await asyncio.sleep(world.random.uniform(*STAY_SECONDS))


def _one(world: World) -> Process:
    return world.random.choice([item for found in world.replicas.values() for item in found])


@asynccontextmanager
async def _frozen(process: Process) -> AsyncIterator[None]:
    process.freeze()
    try:
        yield
    finally:
        process.thaw()
