"""Death without warning: kill -9, at any time and at the points where it should hurt most."""

import asyncio
from contextlib import suppress
from typing import Final

from chaos.faults import fault
from chaos.points import POINTS, Point
from chaos.world import World

LIFE_SECONDS: Final = 2.0
"""Until somebody is killed at random, at most."""

REACHED_WITHIN: Final = 45.0
CRISIS_WITHIN: Final = 150.0
"""Seconds that a point is waited for, and one that only a crisis comes to."""


@fault("kill -9 of each service")
async def kill_each_service(world: World) -> None:
    """A process of each service dies, one after the other, each at any time and started again."""
    services = list(world.replicas.values())
    world.random.shuffle(services)
    for replicas in services:
        await asyncio.sleep(world.random.uniform(0, LIFE_SECONDS))
        victim = world.random.choice(replicas)
        await world.kill(victim)
        await victim.start()
    await world.ready()


@fault("kill -9 while it starts")
async def kill_while_starting(world: World) -> None:
    """A process dies, and again before it has come up."""
    victim = world.random.choice([item for found in world.replicas.values() for item in found])
    await world.kill(victim)
    await victim.start()
    await asyncio.sleep(world.random.uniform(0, LIFE_SECONDS))
    await world.kill(victim)
    await world.ready()


@fault("kill -9 of everything")
async def kill_everything(world: World) -> None:
    """The power goes: every process dies at the same time."""
    await asyncio.sleep(world.random.uniform(0, LIFE_SECONDS))
    everybody = [item for found in world.replicas.values() for item in found]
    await world.kill(*everybody)
    await world.ready()


def _declare(name: str, point: Point) -> None:
    @fault(f"kill -9 {name}")
    async def kill_at_a_point(world: World) -> None:
        service = world.random.choice(point.services)
        times = world.random.randint(1, point.most)
        victim = await world.doom(service, name, times)
        if point.needs_crisis:
            world.begin_crisis()
        with suppress(TimeoutError):
            async with asyncio.timeout(CRISIS_WITHIN if point.needs_crisis else REACHED_WITHIN):
                await victim.ended()
        await world.replace(service)


for _name, _point in POINTS.items():
    _declare(_name, _point)
