"""Deeds: what each kind of step does at the APIs, and how it is told.

`act` takes a step to its deed and returns the path of what it concerned, to be looked at after it.
A deed that an API refuses raises `Refused`, whatever the story expects of it.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import singledispatch
from typing import Any, Final

from rapport.common.errors import Invalid
from rapport.common.events.vocabulary import Channel, Language
from rapport.standalone.demo import scenario as story
from rapport.standalone.demo.chronicle import latest_proposal
from rapport.standalone.demo.counting import Finding, count
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.world import Json, World

CASES: Final = "/routing/v1/cases"
CRISES: Final = "/routing/v1/crises"
STATEMENTS: Final = "/knowledge/v1/statements"

TERMS: Final = 2
"""How many of the words that decided are told for each judgement."""

JUDGEMENTS: Final = {
    "complaint_type": "complaint ",
    "need": "need ",
    "sentiment": "",
    "trust_cause": "trust cause ",
    "severity": "severity ",
}
"""What is told of an assessment, and how it is called."""

FOLLOWS: Final = ("kind: ", "complaint type: ", "nothing said")
"""How reasons begin that are no words of the message."""

SHOWN: Final = 3
"""How many suggestions are shown."""


@dataclass
class Stage:
    """Where the story is played: the world, who tells, and what the story's names stand for."""

    world: World
    narrator: Narrator
    cases: dict[str, str] = field(default_factory=dict)
    statements: dict[str, str] = field(default_factory=dict)
    first: dict[str, story.Hear] = field(default_factory=dict)
    feedback: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time in the story."""
        return self.world.clock.now()

    async def check(self, finding: Finding) -> None:
        """Show whether something is as it must be, and keep it."""
        self.findings.append(finding)
        await self.narrator.checked(finding.is_true, finding.what)

    async def does(self, who: str, what: str) -> None:
        """Tell what somebody inside does."""
        await self.narrator.does(self.now, self.world.person(who), what)

    def case(self, name: str) -> str:
        """Return the path of a case."""
        return f"{CASES}/{self.cases[name]}"

    def statement(self, name: str) -> str:
        """Return the path of a statement."""
        return f"{STATEMENTS}/{self.statements[name]}"

    @property
    def crisis(self) -> str:
        """The path of the crisis that was proposed last; raises Invalid where none was."""
        id = latest_proposal(self.world.outside.stream.events)
        if id is None:
            raise Invalid("no crisis has been proposed so far")
        return f"{CRISES}/{id}"

    async def owner(self, name: str) -> str:
        """Return who owns a case; raises Invalid where nobody does."""
        owner = (await self.world.see(self.case(name)))["owner"]
        if owner is None:
            raise Invalid(f"nobody owns “{name}”")
        return str(owner)


@singledispatch
async def act(step: story.Step, stage: Stage) -> str | None:
    """Do what a step says; return the path of what it concerned, None where that is nothing."""
    raise NotImplementedError(type(step).__name__)


# Conversations


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
    stage.world.names[case] = f"“{step.case}”"
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
    what = f"{step.to} got {found} by {step.channel} that mention “{step.mentions}”"
    await stage.check(Finding(found > 0 if step.times is None else found == step.times, what))


# What is known and said


@act.register
async def _(step: story.Publish, stage: Stage) -> None:
    content = stage.world.scenario.key_messages[step.key_message]
    who = step.who or "admin"
    await stage.does(who, f"publishes the key message “{step.key_message}”")
    await stage.narrator.quotes(list(content.text.values()))
    path = f"/knowledge/v1/key-messages/{step.key_message}"
    await stage.world.call(who, "PUT", path, content.model_dump(mode="json"))


@act.register
async def _(step: story.Draft, stage: Stage) -> str:
    languages = [str(language) for language in step.wordings]
    await stage.does(step.who, f"writes a {step.purpose} statement in {', '.join(languages)}")
    for wording in step.wordings.values():
        await stage.narrator.quotes([wording.subject, wording.text.partition("\n")[0]])
    source = step.source_language
    words = {str(name): dict(wording) for name, wording in step.wordings.items()}
    draft: Json = {
        "purpose": step.purpose,
        "crisis_id": stage.crisis.rpartition("/")[2],
        "groups": step.groups,
        "source_language": source,
        "wordings": {source: words[source]},
    }
    written = await stage.world.call(step.who, "POST", STATEMENTS, draft)
    stage.statements[step.statement] = written["id"]
    hash = written["wordings"][source]["hash"]
    draft["wordings"] |= {
        language: {**wording, "translates": hash}
        for language, wording in words.items()
        if language != source
    }
    path = stage.statement(step.statement)
    await stage.world.call(step.who, "PUT", path, draft)
    await stage.narrator.detail(
        f"the translations name the wording that they translate: {hash[:16]}…"
    )
    return path


@act.register
async def _(step: story.Submit, stage: Stage) -> str:
    path = stage.statement(step.statement)
    await stage.does(step.who, f"asks for approval of the {step.statement} statement")
    submitted = await stage.world.call(step.who, "POST", f"{path}/submission")
    quorum = ", ".join(f"{number} of {group}" for group, number in submitted["quorum"].items())
    await stage.narrator.detail(
        f"needed: {quorum} · the words are fixed: {submitted['hash'][:16]}…"
    )
    return path


@act.register
async def _(step: story.Approve, stage: Stage) -> str:
    path = stage.statement(step.statement)
    verb = "wants to approve" if step.refused else "approves"
    await stage.does(step.who, f"{verb} the {step.statement} statement for {step.group}")
    hash = (await stage.world.see(path))["hash"]
    body = {"hash": hash, "group": step.group}
    await stage.world.call(step.who, "POST", f"{path}/approvals", body)
    return path


@act.register
async def _(step: story.Release, stage: Stage) -> str:
    path = stage.statement(step.statement)
    await stage.does(step.who, f"releases the {step.statement} statement")
    await stage.world.call(step.who, "POST", f"{path}/release")
    return path


@act.register
async def _(step: story.Count, stage: Stage) -> str:
    path = stage.statement(step.statement)
    await stage.narrator.itself(stage.now, f"who has the {step.statement} statement is counted")
    for finding in await count(await stage.world.see(path), stage.world):
        await stage.check(finding)
    return path


# The crisis


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
            told = f"links “{case}”, which came before the signal, by hand"
            return told, {"case_id": stage.cases[case]}
        case story.StandDown():
            return "asks to stand the crisis down", None
        case story.Review(text=text):
            return f"puts the review on record: {text}", step.body
    raise NotImplementedError(type(step).__name__)


@act.register
async def _(step: story.Check, stage: Stage) -> str:
    return stage.crisis if step.case is None else stage.case(step.case)
