"""A crisis, in three languages, from its declaration to its end."""

from collections import Counter
from typing import Any, Final

from rapport.standalone.demo.receivers import MailServer

from .clients import Json, Rapport

CRISIS: Final = "/routing/v1/crises"
STATEMENTS: Final = "/knowledge/v1/statements"

SAID: Final = {
    "holding": {
        "en": ("About our kettle", "Please stop using the kettle. We will write again tomorrow."),
        "zh": ("关于我们的水壶", "请先不要使用这款水壶。我们明天会再写信给您。"),
        "fa": ("درباره کتری ما", "لطفاً از این کتری استفاده نکنید. فردا دوباره برایتان می‌نویسیم."),
    },
    "closing": {
        "en": ("Your new kettle", "The handle is repaired. A new kettle is on its way to you."),
        "zh": ("您的新水壶", "手柄的问题已经解决。新的水壶正在寄给您。"),
        "fa": ("کتری تازه شما", "دسته کتری درست شده است. کتری تازه‌ای برای شما در راه است."),
    },
}
COMPLAINTS: Final = {
    "en": "The handle came off and the hot water burned my hand.",
    "zh": "手柄突然掉了，热水烫伤了我的手，我要投诉。",
    "fa": "دسته کتری جدا شد و آب داغ دستم را سوزاند. شکایت دارم.",
}


def complaint(language: str, name: str) -> Json:
    """Return a complaint about the kettle."""
    return {
        "kind": "complaint",
        "channel": "web",
        "source": "form",
        "source_ref": name,
        "text": COMPLAINTS[language],
        "product": "kettle AK-300",
        "contact": {"email": f"{name}@example.org"},
    }


async def release(rapport: Rapport, crisis: str, purpose: str) -> Json:
    """Write a statement in three languages, have it approved by both groups and say it."""
    path = f"{STATEMENTS}/{crisis}-{purpose}"
    words: dict[str, dict[str, Any]] = {
        language: {"subject": subject, "text": text}
        for language, (subject, text) in SAID[purpose].items()
    }
    draft = {
        "purpose": purpose,
        "crisis_id": crisis,
        "groups": ["dealers"],
        "source_language": "en",
        "wordings": {"en": words["en"]},
    }
    await rapport.until(
        lambda: rapport.call("PUT", path, as_="anna", json=draft),
        lambda answer: answer.status_code != 422,
        "knowledge does not hear of the crisis",
    )
    source = (await rapport.put(path, draft, as_="anna"))["wordings"]["en"]["hash"]
    for language in ("zh", "fa"):
        words[language]["translates"] = source
    await rapport.put(path, draft | {"wordings": words}, as_="anna")
    submitted = await rapport.post(f"{path}/submission", as_="anna")

    early = await rapport.call("POST", f"{path}/release", as_="anna")
    assert early.status_code == 409, early.text
    for approver, group in (("paula", "pr"), ("louis", "legal")):
        agreed = {"hash": submitted["hash"], "group": group}
        await rapport.post(f"{path}/approvals", agreed, as_=approver)
    released: Json = await rapport.post(f"{path}/release", as_="anna")
    assert released["hash"] == submitted["hash"]
    return released


async def test_everyone_linked_hears_each_statement_once_and_nobody_is_left_behind(
    rapport: Rapport, mail: MailServer
) -> None:
    dealer = {"groups": ["dealers"], "addresses": [{"channel": "email", "to": "d@example.net"}]}
    await rapport.put("/notification/v1/stakeholders/dealer", dealer, as_="anna")
    people = [(language, f"{language}-{number}") for language in COMPLAINTS for number in range(4)]
    for language, name in people:
        await rapport.case_of(await rapport.send(complaint(language, name)))

    matter = {"title": "Kettle handles", "criteria": {"product": "kettle AK-300"}}
    crisis = (await rapport.post(CRISIS, matter, as_="lin"))["id"]
    path = f"{CRISIS}/{crisis}"
    await rapport.post(f"{path}/declaration", {}, as_="lin")
    await rapport.until(
        lambda: rapport.get(path), lambda told: told["cases"] == len(people), "cases do not link"
    )

    holding = await release(rapport, crisis, "holding")
    await rapport.until(
        lambda: _delivered(rapport, crisis), lambda done: done == len(people) + 1, "not all know"
    )
    people.append(("fa", "late"))
    await rapport.send(complaint(*people[-1]))
    await rapport.until(
        lambda: _delivered(rapport, crisis), lambda done: done == len(people) + 1, "one is late"
    )

    await rapport.post(f"{path}/stand-down", as_="lin")
    refused = await rapport.until(
        lambda: rapport.get(path), lambda told: told["coverage"], "no answer to the stand-down"
    )
    assert refused["state"] == "declared"
    assert refused["coverage"]["without_closing"] == len(people)

    closing = await release(rapport, crisis, "closing")
    await rapport.settled()
    await rapport.post(f"{path}/stand-down", as_="lin")
    ended = await rapport.until(
        lambda: rapport.get(path), lambda told: told["state"] == "stood_down", "it does not end"
    )
    assert ended["coverage"]["linked"] == ended["coverage"]["delivered"] == len(people)
    assert ended["coverage"]["without_closing"] == ended["coverage"]["missing"] == 0
    assert [clock["state"] for clock in ended["clocks"]] == ["met"]

    await rapport.settled()
    told = [(language, f"{name}@example.org") for language, name in people]
    heard = Counter((item.to, item.subject) for item in mail.arrived)
    assert heard == Counter(
        (address, said[language][0])
        for said in SAID.values()
        for language, address in (*told, ("en", "d@example.net"))
    )
    texts = {subject: text for said in SAID.values() for subject, text in said.values()}
    assert all(texts[item.subject] in item.text for item in mail.arrived)
    assert {item.right_to_left for item in mail.arrived if item.language == "fa"} == {True}
    hashes = {
        (item["statement_purpose"], item["statement_hash"])
        for item in await rapport.all("/notification/v1/notifications", crisis_id=crisis)
    }
    assert hashes == {("holding", holding["hash"]), ("closing", closing["hash"])}


async def _delivered(rapport: Rapport, crisis: str) -> int:
    found = await rapport.all("/notification/v1/notifications", crisis_id=crisis)
    return sum(item["state"] == "delivered" for item in found)
