"""One run: people begin, things go wrong, all comes to rest, and promises are held against it."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from chaos import crisis, evidence
from chaos.evidence import Evidence
from chaos.faults import CATALOGUE, Fault
from chaos.invariants import sent_again, violations
from chaos.people import People
from chaos.points import POINTS
from chaos.report import Result, Tally
from chaos.world import World, world
from rapport.common.errors import TemporaryError
from tests.integration.clients import Rapport

MEASURED: Final = {"embedded": 300, "distributed": 120}
"""Messages that tell how much the system can take."""

SHARE: Final = 0.7
MOST: Final = {"embedded": 40.0, "distributed": 12.0}
"""Messages a second at most: what two cores and a small database catch up with after a fault."""

REST_WITHIN: Final = 300.0
MOST_JUMPS: Final = 12
GLANCE_SECONDS: Final = 0.5
SAY_SECONDS: Final = 15.0
PAST_EVERY_LEASE: Final = timedelta(minutes=2)
PAST_EVERY_LOOK: Final = timedelta(minutes=6)
"""Every five minutes a crisis looks for cases, and a statement for people, that came just as it was
looking."""

JUMP_AFTER: Final = 6
"""Glances at a system that rests but for leases of the dead, until the clock jumps past them."""


async def run(
    mode: str, minutes: float, seed: int, only: Sequence[str], folder: Path, log: Path
) -> Result:
    """Run a world for so many minutes and return what came of it."""
    result, began = Result(mode, seed), monotonic()
    random = Random(f"{seed}-{mode}")
    async with (
        world(mode, random, folder, log) as here,
        Rapport(lambda: here.urls, here.token) as rapport,
    ):
        people = People(rapport, Random(f"{seed}-{mode}-people"))
        numbers = count(1)

        def begin_crisis() -> None:
            people.spawn(crisis.play(people, next(numbers)))

        here.begin_crisis = begin_crisis
        webhooks = here.outside.webhooks
        await crisis.set_up(people.insistent, webhooks.authority, webhooks.secrets)
        await _measure(here, people, result)
        say(f"{mode}: {result.capacity:.0f} messages a second; faults under {result.rate:.0f}")
        async with people.at_work(result.rate):
            here.begin_crisis()
            await _go_wrong(here, _wanted(mode, only), minutes, result)
        say(f"{mode}: coming to rest")
        await people.finish()
        await rest(here)
        here.clock.move(PAST_EVERY_LOOK)
        await rest(here)
        found = await evidence.gather(here, people.promises)
        result.violations = violations(found)
        result.counts = counted(found)
        result.deaths = here.deaths
    result.seconds = monotonic() - began
    return result


async def rest(here: World) -> float:
    """Return when nothing is on its way any more, or will not come to rest; return since when.

    What a process had leased when it died is only taken up again when the lease is over, so the
    clock jumps there as soon as nothing else is left.
    """
    began = since = said = monotonic()
    quiet, same, jumps, before = 0, 0, 0, Counter[str]()
    while quiet < 2 and jumps < MOST_JUMPS and monotonic() - began < REST_WITHIN:
        left = Counter(evidence.left(await evidence.glance(here)))
        since = monotonic() if left else since
        quiet = 0 if left else quiet + 1
        same = same + 1 if left == before else 0
        if left.keys() == {"notifications under way"} and same >= JUMP_AFTER:
            here.clock.move(PAST_EVERY_LEASE)
            same, jumps = 0, jumps + 1
        if monotonic() - said > SAY_SECONDS:
            say(f"{here.mode}: {dict(left)} left")
            said = monotonic()
        before = left
        await asyncio.sleep(GLANCE_SECONDS)
    return since


async def _measure(here: World, people: People, result: Result) -> None:
    """Send a bunch as fast as it is taken, and see how long it takes to its last effect."""
    number, began = MEASURED[here.mode], monotonic()
    await people.send(number)
    result.capacity = number / (await rest(here) - began)
    result.rate = min(SHARE * result.capacity, MOST[here.mode])


def _wanted(mode: str, only: Sequence[str]) -> list[Fault]:
    return [
        item
        for item in CATALOGUE
        if mode in item.modes and (not only or any(name in item.name for name in only))
    ]


async def _go_wrong(here: World, faults: list[Fault], minutes: float, result: Result) -> None:
    """Apply faults one after another: all of them in a drawn order, then in another, and so on."""
    until = monotonic() + 60 * minutes
    while faults and monotonic() < until:
        here.random.shuffle(faults)
        for item in faults:
            if monotonic() >= until:
                break
            await _apply(here, item, result.faults.setdefault(item.name, Tally()))


async def _apply(here: World, item: Fault, tally: Tally) -> None:
    began, point = monotonic(), item.name.removeprefix("kill -9 ")
    before = here.reached[point]
    try:
        await item.act(here)
        await here.ready()
    except TemporaryError as error:
        tally.troubles.append(f"did not heal: {error.reason}")
    tally.times += 1
    took = monotonic() - began
    tally.seconds += took
    hit = here.reached[point] - before
    if point in POINTS:
        tally.reached = (tally.reached or 0) + hit
    say(f"{here.mode}: {item.name}: {took:.1f} s" + (f", {hit} hit" if point in POINTS else ""))


def counted(found: Evidence) -> dict[str, int]:
    """Return what the run amounted to, in numbers."""
    promises = found.promises
    return {
        "messages accepted": len(promises.accepted),
        "answers by staff": len(promises.replies),
        "crises": len(promises.crises),
        "events on the log": len(found.events),
        "notifications": len(found.of("notification", "notifications")),
        "of them sent again after a lease ran out": sent_again(found),
        "dead letters": len(found.letters),
        "requests without an answer": promises.answers["no answer"],
        "requests sent away for a while": promises.answers["503"],
    }


def say(line: str) -> None:
    """Tell somebody who watches."""
    print(line, file=sys.stderr, flush=True)
