"""The player: goes through the story step by step, and tells what comes of it.

For each step time passes to its moment, somebody calls an API, the system comes to rest, what
happened by itself is told, and what the step expects is compared with what the APIs show.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rapport.standalone.demo.chronicle import deliveries, happenings
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.deeds import Stage, act
from rapport.standalone.demo.expectations import compare
from rapport.standalone.demo.steps import Check, Step
from rapport.standalone.demo.world import Refused

BREATH: Final = timedelta(seconds=2)
"""Story time after a step in which what follows from it happens, before anybody looks."""


async def play(stage: Stage) -> None:
    """Play all chapters; raises Refused where an API refuses what the story did not expect."""
    scenario = stage.world.scenario
    for chapter in scenario.chapters:
        await stage.narrator.chapter(chapter.title, chapter.story)
        for step in chapter.steps:
            await _until(scenario.moment(step.at), stage)
            await _take(step, stage)
    await _until(scenario.moment(scenario.ends), stage)


async def _until(moment: datetime, stage: Stage) -> None:
    async for _ in stage.world.until(moment):
        await _tell_news(stage)


async def _take(step: Step, stage: Stage) -> None:
    concerned = None
    try:
        concerned = await act(step, stage)
    except Refused as refused:
        if refused.status != step.refused:
            raise
        await stage.check(Finding(True, f"refused with {refused.status}: {refused.detail}"))
    else:
        if step.refused is not None:
            await stage.check(Finding(False, f"a refusal with {step.refused} was expected"))
    await _until(stage.now + BREATH, stage)
    if concerned is not None and step.expect.root:
        for finding in compare(step.expect, await stage.world.see(concerned)):
            await stage.check(replace(finding, what=_about(step) + finding.what))


def _about(step: Step) -> str:
    """Return what a finding is about where nobody has just done anything to it."""
    if not isinstance(step, Check):
        return ""
    return "the crisis: " if step.case is None else f"“{step.case}”: "


async def _tell_news(stage: Stage) -> None:
    """Tell what happened by itself, and what arrived outside."""
    events, arrived = stage.world.news()
    for happening in happenings(events, stage.world):
        await stage.narrator.itself(happening.at, happening.what)
        for line in happening.more:
            await stage.narrator.detail(line)
    for line in deliveries(arrived, stage.world):
        await stage.narrator.outside(stage.now, line)
    stage.narrator.show(_status(stage))


def _status(stage: Stage) -> dict[str, str]:
    return {
        stage.world.scenario.company: f"{stage.now:%H:%M}",
        "messages": str(len(stage.feedback)),
        "cases": str(len(set(stage.cases.values()))),
        "delivered": str(len(stage.world.outside.arrived)),
    }
