"""Leading the crisis that was proposed last."""

from datetime import time
from typing import Any

from rapport.standalone.demo import steps as story
from rapport.standalone.demo.deeds.stage import Stage, act


@act.register
async def _(step: story.CrisisStep, stage: Stage) -> str:
    path = stage.crisis
    what, body = _leading(step, stage)
    await stage.does(step.who, what)
    await stage.world.call(step.who, "POST", f"{path}/{step.PATH}", body)
    return path


def _leading(step: story.CrisisStep, stage: Stage) -> tuple[str, Any]:
    """Return what somebody does to the crisis, in words and as the API takes it."""
    match step:
        case story.Declare(title=title):
            return f"declares the crisis{f': {title}' if title else ''}", step.body
        case story.Decide(text=text):
            return f"puts a decision on record: {text}", step.body
        case story.Update(text=text, next_update_at=None):
            return f"updates everyone: {text}", step.body
        case story.Update(text=text, next_update_at=time() as at):
            promised = stage.world.scenario.moment(at).isoformat()
            told = f"updates everyone: {text} The next update is promised for {at:%H:%M}."
            return told, {"text": text, "next_update_at": promised}
        case story.Link(case=case):
            return f"links “{case}” to it by hand", {"case_id": stage.cases[case]}
        case story.StandDown():
            return "asks to stand the crisis down", None
        case story.Review(text=text):
            return f"puts the review on record: {text}", step.body
    raise NotImplementedError(type(step).__name__)


@act.register
async def _(step: story.Check, stage: Stage) -> str:
    return stage.crisis if step.case is None else stage.case(step.case)
