"""`rapport demo`: a day at a company, played through the real system with a clock that jumps.

The system runs whole, in this process, over a temporary data directory; or, where servers are
named, as five processes over those. Around it are a mail server, webhook receivers and a listener
on the live stream. The story is data (`scenario.yaml`): people do things through the HTTP APIs with
tokens of their own; all else happens by itself.
"""

import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from rapport.common.clock import LeadingClock
from rapport.common.errors import Invalid
from rapport.common.events.topics import TOPICS
from rapport.standalone.demo.company import set_up, write_policies
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.deeds import Stage
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.player import play
from rapport.standalone.demo.receivers import outside
from rapport.standalone.demo.results import day_in_figures
from rapport.standalone.demo.scenario import Scenario, load
from rapport.standalone.demo.world import Refused, Restless, World
from rapport.standalone.processes import Processes, processes
from rapport.standalone.system import HOST, System, system

__all__ = ["Scenario", "load", "run"]


async def run(
    scenario: Scenario, console: Console, pause: float, servers: Mapping[str, str] | None = None
) -> bool:
    """Play a day; return whether everything that the story expects came true.

    `servers` are the settings `bus` and `store` of servers that hold nothing yet: then each service
    is a process of its own.
    """
    narrator = Narrator(console, pause)
    with tempfile.TemporaryDirectory(prefix="rapport-demo-") as folder:
        async with narrator.telling():
            findings = await _day(scenario, narrator, Path(folder), servers)
    false = [finding.what for finding in findings if not finding.is_true]
    await narrator.end(len(findings), false)
    return not false


@asynccontextmanager
async def _processes(
    folder: Path, clock: LeadingClock, settings: Mapping[str, Any]
) -> AsyncIterator[Processes]:
    """Run a process per service, all of which follow the clock."""
    given = {**settings, "clock_file": folder / "clock", "log_level": "ERROR"}
    async with processes(folder / "data", clock=clock, settings=given, tell=_complain) as up:
        if any((await up.bus.ends(list(TOPICS))).values()):
            raise Invalid("the demo needs a bus and a store of its own: these hold events already")
        yield up


def _complain(service: str, line: str) -> None:
    print(f"{service}: {line}", file=sys.stderr)


async def _day(
    scenario: Scenario, narrator: Narrator, folder: Path, servers: Mapping[str, str] | None
) -> list[Finding]:
    await narrator.title(scenario.company, scenario.story)
    write_policies(scenario, folder / "policies")
    begun = scenario.moment(scenario.begins)
    clock = LeadingClock(begun, folder / "clock")
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(outside())
        settings = {
            "policy_dir": folder / "policies",
            "smtp_host": HOST,
            "smtp_port": around.mail.port,
            "smtp_security": "none",
            "smtp_sender": f"care@{scenario.domain}",
            "smtp_sender_name": scenario.company,
            "webhook_allow": (around.webhooks.authority,),
        }
        up: System | Processes = await stack.enter_async_context(
            _processes(folder, clock, {**settings, **servers})
            if servers
            else system(folder / "data", port=0, clock=clock, settings=settings)
        )
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=up.urls["notification"], timeout=30.0, trust_env=False)
        )
        world = World(scenario, up, clock, http, around)
        await stack.enter_async_context(around.listening_to(http, up.token("listener", "viewer")))
        stage = Stage(world, narrator)
        try:
            await world.open()
            past = await set_up(world)
            world.news()
            await narrator.detail(
                f"{len(scenario.people)} people, {len(scenario.stakeholders)} stakeholders, "
                f"{past['accepted']} messages of the last {scenario.history.days} days"
            )
            await play(stage)
            for finding in await day_in_figures(world, narrator, stage.feedback, past, begun):
                await stage.check(finding)
        except (Refused, Restless, Invalid, httpx2.HTTPError) as error:
            reason = str(error) or type(error).__name__
            await stage.check(Finding(False, f"the story ends at {stage.now:%H:%M}: {reason}"))
        return stage.findings
