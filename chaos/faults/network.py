"""Lines go bad: they are slow, silent, cut, or connections are forgotten without a word."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from chaos.faults import fault
from chaos.proxy import Proxy
from chaos.world import DISTRIBUTED, World

BAD_SECONDS: Final = (2.0, 9.0)
"""Up to more than what a member of a group may be silent for."""

SLOW_SECONDS: Final = (0.02, 0.2)
"""What each way takes longer."""


@fault("Kafka and the store slow", modes=(DISTRIBUTED,))
async def slow_lines(world: World) -> None:
    """Everything takes its time, each way."""
    delay = world.random.uniform(*SLOW_SECONDS)
    await _bad(world, world.links.values(), lambda line: line.slow(delay))


@fault("connections half open", modes=(DISTRIBUTED,))
async def lose_connections(world: World) -> None:
    """The connections of one service are forgotten on their way; those who use them hear nothing.

    Nobody closes them either, so it is for the service to give them up.
    """
    service = world.random.choice(sorted({name for name, _ in world.links}))
    for server in ("kafka", "store"):
        world.links[service, server].lose()
    await world.ready()


@fault("both servers silent", modes=(DISTRIBUTED,))
async def silence(world: World) -> None:
    """Connections are taken and kept, and nothing comes through."""
    await _bad(world, world.links.values(), Proxy.hang)


@fault("all connections reset", modes=(DISTRIBUTED,))
async def reset_connections(world: World) -> None:
    """Everybody's connections are cut, again and again."""
    for _ in range(world.random.randint(1, 4)):
        for line in world.links.values():
            line.reset()
        await asyncio.sleep(world.random.uniform(0.1, 1.0))
    await world.ready()


@fault("a service cut off from Kafka", modes=(DISTRIBUTED,))
async def cut_off_from_kafka(world: World) -> None:
    """One service cannot reach the broker, all others can."""
    await _cut_off(world, "kafka")


@fault("a service cut off from the store", modes=(DISTRIBUTED,))
async def cut_off_from_the_store(world: World) -> None:
    """One service cannot reach the database, all others can."""
    await _cut_off(world, "store")


async def _cut_off(world: World, server: str) -> None:
    line = world.random.choice([line for (_, end), line in world.links.items() if end == server])
    await _bad(world, [line], world.random.choice([Proxy.hang, Proxy.refuse]))


async def _bad(world: World, lines: Iterable[Proxy], turn: Callable[[Proxy], None]) -> None:
    """Let lines go bad for a while."""
    lines = list(lines)
    for line in lines:
        turn(line)
    await asyncio.sleep(world.random.uniform(*BAD_SECONDS))
    for line in lines:
        line.open()
    await world.ready()
