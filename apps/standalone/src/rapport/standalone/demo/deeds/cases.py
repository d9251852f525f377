"""What people say, and what is done about it: conversations, cases, and what arrives of them."""

from collections import Counter
from datetime import datetime
from typing import Final

from rapport.common.events.vocabulary import Channel, Language
from rapport.standalone.demo import steps as story
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.deeds.stage import CASES, Stage, act
from rapport.standalone.demo.world import Json

TERMS: Final = 2
"""How many of the words that decided are told for each judgement."""

JUDGEMENTS: Final = {
    "complaint_type": "complaint about ",
    "need": "needs ",
    "sentiment": "feeling ",
    "trust_cause": "trust at stake: ",
    "severity": "severity ",
}
"""What is told of an assessment, where it is not `none`, and how it begins."""

FOLLOWS: Final = ("kind: ", "complaint type: ", "nothing said")
"""How reasons begin that are no words of the message."""

SHOWN: Final = 3
"""How many suggestions are shown."""


@act.register
async def _(step: story.Hear, stage: Stage) -> str:
    first = stage.first.setdefault(step.case, step)
    contact = first.feedback.contact
    feedback = _message(step, first, number=len(stage.feedback) + 1)
    who = contact.name or next(iter(contact.handles.values()), "somebody")
    await stage.narrator.says(stage.now, who, _where(step), step.feedback.text or "")
    client = f"{first.feedback.channel}-desk"
    receipt = await stage.world.call(client, "POST", "/intake/v1/feedback", feedback)
    stage.feedback.append(receipt["id"])
    await stage.world.rest()
    status = await stage.world.see(f"/intake/v1/feedback/{receipt['id']}")
    case = status["case_id"]
    stage.cases[step.case] = case
    stage.world.names[case] = step.case
    await _tell_assessment(stage, case)
    await _tell_place(stage, await stage.world.see(stage.case(step.case)))
    return stage.case(step.case)


def _message(step: story.Hear, first: story.Hear, number: int) -> Json:
    """Return a message as intake takes it: with its place in its conversation."""
    feedback = step.feedback.model_dump(mode="json", exclude_unset=True)
    contact = first.feedback.contact.model_dump(mode="json", exclude_unset=True)
    is_mail = first.feedback.channel is Channel.EMAIL
    reference = f"<{number}@post.example>" if is_mail else f"message-{number}"
    placed = {"source": "demo", "source_ref": reference, "thread_ref": step.case}
    return placed | {"contact": contact} | feedback


def _where(step: story.Hear) -> str:
    feedback = step.feedback
    reach = feedback.reach
    parts = [feedback.kind.replace("_", " "), feedback.channel.replace("_", " ")]
    if feedback.outlet:
        parts.append(feedback.outlet)
    if reach.followers or reach.reposts:
        parts.append(f"{reach.followers} followers, {reach.reposts} reposts")
    if feedback.rating:
        parts.append(f"{feedback.rating.value:.0f} of {feedback.rating.maximum:.0f} stars")
    return ", ".join(parts)


async def _tell_assessment(stage: Stage, case: str) -> None:
    """Show the latest judgement of a case, with the words that decided."""
    history = [item async for item in stage.world.list(f"{CASES}/{case}/history")]
    judged = [item["data"] for item in history if item["type"].endswith("feedback.classified.v1")]
    about, because = judged[-1]["about"], judged[-1]["because"]
    told = [
        f"{name}{about[field].replace('_', ' ')} {_why(because[field])}"
        for field, name in JUDGEMENTS.items()
        if about[field] != "none"
    ]
    await stage.narrator.detail(" · ".join(told))


def _why(because: Json) -> str:
    """Return how sure a judgement is, and the words that decided; what follows is left out."""
    terms = [term for term in because["terms"] if not term.startswith(FOLLOWS)][:TERMS]
    return f"{because['confidence']:.0%}" + (f" ({', '.join(terms)})" if terms else "")


async def _tell_place(stage: Stage, case: Json) -> None:
    """Show what became of a message: whose it is and until when, or that it is noted."""
    if case["owner"] is None:
        await stage.narrator.detail("noted; nobody has to act")
        return
    parts = [f"owner {stage.world.person(case['owner'])}, team {case['team']} ({case['rule']})"]
    clock = case["clock"]
    if case["message_count"] > 1:
        parts.insert(0, f"message {case['message_count']} of its case")
    elif clock is not None:
        parts.append(f"first answer due {_moment(clock['due_at'], stage)}")
    if case["crisis_id"] is not None:
        parts.append("belongs to the crisis")
    await stage.narrator.detail(" · ".join(parts))


def _moment(text: str, stage: Stage) -> str:
    moment = datetime.fromisoformat(text)
    same_day = moment.date() == stage.world.scenario.day
    return f"{moment:%H:%M}" if same_day else f"{moment:%d %B %H:%M}"


@act.register
async def _(step: story.CaseStep, stage: Stage) -> str:
    path = stage.case(step.case)
    who = step.who or await stage.owner(step.case)
    await stage.does(who, _in_words(step, stage))
    if isinstance(step, story.Reply):
        await stage.narrator.quotes([step.text])
    await stage.world.call(who, "POST", f"{path}/{step.PATH}", step.body)
    return path


def _in_words(step: story.CaseStep, stage: Stage) -> str:
    case = f"“{step.case}”"
    match step:
        case story.Accept():
            return f"accepts {case}"
        case story.Reply(via="email"):
            return f"answers {case} by e-mail"
        case story.Reply():
            return f"answers {case} in the same conversation"
        case story.Refer(to=to, reason=reason):
            return f"refers {case} to {stage.world.person(to)} and stays its owner: {reason}"
        case story.Return(outcome=outcome):
            return f"has {case} back: {outcome}"
        case story.Offer(to=to, reason=reason):
            return f"offers {case} to {stage.world.person(to)}: {reason}"
        case story.Decline(reason=reason):
            return f"declines {case}: {reason}"
        case story.Resolve(resolution=resolution):
            return f"resolves {case}: {resolution}"
    raise NotImplementedError(type(step).__name__)


@act.register
async def _(step: story.Suggest, stage: Stage) -> str:
    who = step.who or await stage.owner(step.case)
    await stage.does(who, f"looks for suggestions for “{step.case}”")
    query = {"case_id": stage.cases[step.case]}
    found = await stage.world.call(who, "GET", "/knowledge/v1/suggestions", **query)
    for item in found["items"][:SHOWN]:
        kind = item["kind"].replace("_", " ")
        words = item["text"] if item["kind"] == "key_message" else item["title"]
        await stage.narrator.detail(f"{kind} ({item['language']}, {item['score']:.0%}): {words}")
    missing = set(step.finds) - {item["id"] for item in found["items"]}
    what = f"suggested: {', '.join(step.finds)}"
    await stage.check(
        Finding(not missing, what if not missing else f"{what}; missing: {', '.join(missing)}")
    )
    return stage.case(step.case)


@act.register
async def _(step: story.ClearDesks, stage: Stage) -> None:
    if step.text:
        await _answer_all(step, stage)
    if step.resolution:
        await _resolve_all(step.resolution, stage)


async def _answer_all(step: story.ClearDesks, stage: Stage) -> None:
    answered = Counter[str]()
    for case in await _in_work(stage):
        if case["clock"] is None or case["clock"]["state"] == "met":
            continue
        owner, path = case["owner"], f"{CASES}/{case['id']}"
        detail = await stage.world.call(owner, "POST", f"{path}/acceptance")
        text = step.text.get(Language(case["about"]["language"]), next(iter(step.text.values())))
        via = "email" if detail["contact"]["email"] else "elsewhere"
        await stage.world.call(owner, "POST", f"{path}/replies", {"text": text, "via": via})
        answered[owner] += 1
    await _tell_desks(stage, "accepts and answers what waits", answered)


async def _resolve_all(resolution: str, stage: Stage) -> None:
    resolved = Counter[str]()
    for case in await _in_work(stage):
        path = f"{CASES}/{case['id']}/resolution"
        await stage.world.call(case["owner"], "POST", path, {"resolution": resolution})
        resolved[case["owner"]] += 1
    await _tell_desks(stage, f"resolves what is in work ({resolution})", resolved)


async def _in_work(stage: Stage) -> list[Json]:
    states = ("open", "accepted")
    return [item for state in states async for item in stage.world.list(CASES, state=state)]


async def _tell_desks(stage: Stage, what: str, done: Counter[str]) -> None:
    await stage.narrator.does(stage.now, "Every owner", f"{what}: {done.total()} cases")
    by_owner = [f"{stage.world.person(owner)} {times}" for owner, times in done.most_common()]
    await stage.narrator.detail(", ".join(by_owner))


@act.register
async def _(step: story.Received, stage: Stage) -> None:
    names = {step.to, f"/{step.to}"}
    found = sum(
        item.channel == step.channel
        and not names.isdisjoint({item.to, stage.world.name(item.to)})
        and step.mentions in f"{item.subject}\n{item.text}"
        for item in stage.world.outside.arrived
    )
    what = f"{step.to} got {found} x {step.channel} with “{step.mentions}”"
    await stage.check(Finding(found > 0 if step.times is None else found == step.times, what))
