"""The servers go away without warning and come back with what they had."""

import asyncio
from typing import Final

from servers import Server

from chaos.faults import fault
from chaos.world import DISTRIBUTED, World

AWAY_SECONDS: Final = (0.0, 3.0)


@fault("Kafka killed and restarted", modes=(DISTRIBUTED,))
async def kill_kafka(world: World) -> None:
    """The broker dies, and another takes over its data."""
    await _crash(world, world.kafka)


@fault("the store killed and restarted", modes=(DISTRIBUTED,))
async def kill_the_store(world: World) -> None:
    """The database dies, and another takes over its data."""
    await _crash(world, world.store)


@fault("Kafka and the store killed and restarted", modes=(DISTRIBUTED,))
async def kill_both(world: World) -> None:
    """The machine of both servers loses its power."""
    await asyncio.gather(_crash(world, world.kafka), _crash(world, world.store))


async def _crash(world: World, server: Server | None) -> None:
    assert server is not None
    away = world.random.uniform(*AWAY_SECONDS)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(away)
    await asyncio.to_thread(server.start)
    await world.ready()
