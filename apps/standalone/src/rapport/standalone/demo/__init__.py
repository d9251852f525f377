"""`rapport demo`: a day at a company, played through the real system with a clock that jumps.

The system runs whole, in this process, over a temporary data directory. Around it are a mail
server, webhook receivers and a listener on the live stream. The story is data (`scenario.yaml`):
people do things through the HTTP APIs with tokens of their own; all else happens by itself.
"""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
from rich.console import Console

from rapport.common.clock import JumpingClock
from rapport.common.errors import Invalid
from rapport.standalone.demo.company import set_up, write_policies
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.deeds import Stage
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.player import play
from rapport.standalone.demo.receivers import HOST, outside
from rapport.standalone.demo.results import day_in_figures
from rapport.standalone.demo.scenario import Scenario, load
from rapport.standalone.demo.world import Refused, Restless, World
from rapport.standalone.system import system

__all__ = ["Scenario", "load", "run"]


async def run(scenario: Scenario, console: Console, pause: float) -> bool:
    """Play a day; return whether everything that the story expects came true."""
    narrator = Narrator(console, pause)
    with tempfile.TemporaryDirectory(prefix="rapport-demo-") as folder:
        async with narrator.telling():
            findings = await _day(scenario, narrator, Path(folder))
    false = [finding.what for finding in findings if not finding.is_true]
    await narrator.end(len(findings), false)
    return not false


async def _day(scenario: Scenario, narrator: Narrator, folder: Path) -> list[Finding]:
    await narrator.title(scenario.company, scenario.story)
    write_policies(scenario, folder / "policies")
    begun = scenario.moment(scenario.begins)
    clock = JumpingClock(begun)
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
        up = await stack.enter_async_context(
            system(folder / "data", host=HOST, port=0, clock=clock, settings=settings)
        )
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=up.url, timeout=30.0, trust_env=False)
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
