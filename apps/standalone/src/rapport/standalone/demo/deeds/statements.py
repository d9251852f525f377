"""What is known and said: key messages, and statements on their way to everybody."""

from rapport.standalone.demo import steps as story
from rapport.standalone.demo.counting import count
from rapport.standalone.demo.deeds.stage import STATEMENTS, Stage, act
from rapport.standalone.demo.world import ADMIN, Json


@act.register
async def _(step: story.Publish, stage: Stage) -> None:
    content = stage.world.scenario.key_messages[step.key_message]
    who = step.who or ADMIN
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
