"""Others put on the bus what they should not: poison, and what was there before."""

import asyncio
from contextlib import aclosing
from typing import Final

from chaos.faults import fault
from chaos.poison import is_poison, poison
from chaos.world import DISTRIBUTED, World
from rapport.common.events.codec import Message
from rapport.common.events.topics import DEAD_LETTERS, TOPICS

LEAST, MOST = 10, 200
PORTIONS: Final = 5
BETWEEN_SECONDS: Final = 1.0

BURST: Final = 150

REPEATED: Final = 300
"""Events that come again."""

RECENT: Final = 100
"""How far back in each partition they are looked for."""

OURS: Final = [name for name in TOPICS if name != DEAD_LETTERS.name]


@fault("poison at 1 %")
async def a_little_poison(world: World) -> None:
    """Between all that is good there is a piece of poison for each hundred events so far."""
    ends = await world.bus.ends(OURS)
    number = min(MOST, max(LEAST, sum(ends.values()) // 100))
    portions = PORTIONS if world.mode == DISTRIBUTED else 1
    for _ in range(portions):
        await world.bus.publish(poison(world.random, number // portions))
        await asyncio.sleep(BETWEEN_SECONDS)
    await world.ready()


@fault("a burst of nothing but poison")
async def much_poison(world: World) -> None:
    """Partitions have poison behind poison, in one go."""
    await world.bus.publish(poison(world.random, BURST))
    await world.ready()


@fault("events come again, in any order")
async def come_again(world: World) -> None:
    """What was published is published again, shuffled, on all topics."""
    seen = await _published(world)
    await world.bus.publish(world.random.sample(seen, min(REPEATED, len(seen))))
    await world.ready()


async def _published(world: World) -> list[Message]:
    """Return the youngest events of each partition, without poison."""
    starts, ends = await world.bus.starts(OURS), await world.bus.ends(OURS)
    after = {place: max(starts[place], end - RECENT) - 1 for place, end in ends.items()}
    until = {place: end for place, end in ends.items() if end > starts[place]}
    found: list[Message] = []
    if until:
        async with aclosing(world.bus.tail(OURS, after, until=until)) as reading:
            async for records in reading:
                found += [
                    Message(record.topic, record.key, record.value, record.headers)
                    for record in records
                    if not is_poison(record.key)
                ]
    return found
