"""Killed at every operation, one after the other: nothing is lost, nothing is done twice.

Before and after each save, each insertion of facts, each publication and each clearing of an outbox
the process is killed; the next one finds what was stored and goes on from what was committed.
"""

from itertools import count
from typing import Any, Final

from rapport.common.testing_crashes import Survivor, happening

from .shop import SHOP, ItemSold, Sale, Till, TillClosed, TillCounted

SOLD: Final = [(till, item) for till in ("t1", "t2") for item in ("tea", "rice", "salt")]


async def a_day(moment: int) -> tuple[dict[str, Any], Survivor]:
    """Two tills sell three things each and close in the evening; return what it came to.

    The process is killed at a moment of it, 0 for never.
    """
    shop = Survivor(SHOP)
    await shop.start()
    try:
        await shop.tell(
            *(happening(ItemSold(till=till, item=item), f"{till} {item}") for till, item in SOLD)
        )
        shop.die_at(moment)
        while waiting := [name for name in shop.partitions() if shop.unread(name)]:
            await shop.read(waiting[0], 2)
        shop.clock.move_to((await shop.every(Till))[0].closes_at or shop.clock.now())
        await shop.scan()
        await shop.finish()
        shop.check_sequences()
        told = [event.data for event in shop.published()]
        counted = [(event.till, event.total) for event in told if isinstance(event, TillCounted)]
        return {
            "state": await shop.state(Till, Sale),
            "counted": sorted(counted),
            "closed": sorted(event.till for event in told if isinstance(event, TillClosed)),
        }, shop
    finally:
        await shop.stop()


async def test_without_a_death_the_day_adds_up() -> None:
    day, shop = await a_day(0)
    assert day["counted"] == [(till, total) for till in ("t1", "t2") for total in (1, 2, 3)]
    assert day["closed"] == ["t1", "t2"]
    assert shop.lives == 1


async def test_killed_at_any_moment_the_day_adds_up_all_the_same() -> None:
    expected, _ = await a_day(0)
    for moment in count(1):
        day, shop = await a_day(moment)
        assert day == expected, moment
        if shop.lives == 1:
            break
    assert moment > 24, "the day is not so short"
