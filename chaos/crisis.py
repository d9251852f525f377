"""A crisis, from its declaration to the stand-down, played by people who insist.

Some customers complain of one product; a crisis is declared for it and they are linked; everybody
linked, and the dealers, hear a holding statement. One more customer comes late. A stand-down that
comes too early is refused; after the closing statement it is granted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from chaos.people import PAUSE, Insistent, People
from tests.integration.clients import Json

T = TypeVar("T")

DEALERS: Final = 120
"""More than one page of a fan-out."""

CUSTOMERS: Final = 6
SETTING_UP: Final = 8
UNKNOWN_CRISIS: Final = 422
"""What a statement is answered until knowledge, too, has heard of its crisis."""

OWNERS: Final = ("jun", "kim", "navid", "ana", "ben", "mei", "sara", "dana")
WORDS: Final = {
    "en": ("About our kettle", "Please stop using it. We will write again tomorrow."),
    "zh": ("关于我们的水壶", "请先不要使用这款水壶。我们明天会再写信给您。"),
    "fa": ("درباره کتری ما", "لطفاً از این کتری استفاده نکنید. فردا دوباره می‌نویسیم."),
}


async def set_up(insistent: Insistent, webhook: str, secrets: dict[str, str]) -> None:
    """Let owners be told of new cases by e-mail, a desk by webhook; make the dealers known."""
    records: dict[str, Json] = {
        owner: {"side": "internal", "addresses": [_email(f"{owner}@example.com")]}
        for owner in OWNERS
    }
    records |= {
        f"dealer-{number}": {
            "groups": ["dealers"],
            "addresses": [_email(f"dealer{number}@example.net")],
        }
        for number in range(DEALERS)
    }
    records["desk"] = {
        "side": "internal",
        "addresses": [{"channel": "webhook", "to": f"http://{webhook}/desk"}],
    }
    few = asyncio.Semaphore(SETTING_UP)

    async def put(id: str, record: Json) -> None:
        async with few:
            path = f"/notification/v1/stakeholders/{id}"
            told = await insistent.told("PUT", path, record, as_="anna")
        for address in told["addresses"]:
            if address.get("secret"):
                secrets["/desk"] = address["secret"]

    await asyncio.gather(*(put(id, record) for id, record in records.items()))
    wish = {"to": ["owner", "desk"], "events": ["case.opened"]}
    await insistent.told("PUT", "/notification/v1/subscriptions/new-cases", wish, as_="anna")


def _email(to: str) -> Json:
    return {"channel": "email", "to": to}


async def play(people: People, number: int) -> None:
    """Play the crisis of this number."""
    told = people.insistent.told
    product = f"kettle K-{number}"
    receipts = [
        await people.post_one(_complaint(product, number, customer))
        for customer in range(CUSTOMERS)
    ]
    for receipt in receipts:
        await people.case_of(receipt)
    matter = {"title": product, "criteria": {"product": product}}
    key = f"crisis-{number}"
    crisis = (await told("POST", "/routing/v1/crises", matter, as_="lin", key=key))["id"]
    people.promises.crises.append(crisis)
    path = f"/routing/v1/crises/{crisis}"
    await told("POST", f"{path}/declaration", {}, as_="lin", key=f"{key}-declared")
    await _until(lambda: told("GET", path), lambda seen: seen["cases"] >= CUSTOMERS)
    await _release(people.insistent, crisis, "holding")
    late = await people.post_one(_complaint(product, number, CUSTOMERS))
    await people.case_of(late)
    await _until(lambda: told("GET", path), lambda seen: seen["cases"] > CUSTOMERS)
    await _release(people.insistent, crisis, "closing")
    for attempt in range(1_000):
        await told("POST", f"{path}/stand-down", as_="lin", key=f"{key}-end-{attempt}")
        seen = await _until(
            lambda: told("GET", path), lambda seen: seen["state"] != "standing_down"
        )
        if seen["state"] == "stood_down":
            return
        await asyncio.sleep(PAUSE)


async def _release(insistent: Insistent, crisis: str, purpose: str) -> None:
    """Write a statement in three languages, have it approved, and say it."""
    path = f"/knowledge/v1/statements/{crisis}-{purpose}"
    words: dict[str, dict[str, Any]] = {
        language: {"subject": f"{subject} ({purpose})", "text": text}
        for language, (subject, text) in WORDS.items()
    }
    draft = {
        "purpose": purpose,
        "crisis_id": crisis,
        "groups": ["dealers"],
        "source_language": "en",
        "wordings": {"en": words["en"]},
    }
    await _until(
        lambda: insistent.call("PUT", path, draft, as_="anna"),
        lambda answer: answer.status_code != UNKNOWN_CRISIS,
    )
    source = (await insistent.told("PUT", path, draft, as_="anna"))["wordings"]["en"]["hash"]
    for language in ("zh", "fa"):
        words[language]["translates"] = source
    await insistent.told("PUT", path, draft | {"wordings": words}, as_="anna")
    submitted = await insistent.told("POST", f"{path}/submission", as_="anna", key="submit")
    for approver, group in (("paula", "pr"), ("louis", "legal")):
        agreed = {"hash": submitted["hash"], "group": group}
        await insistent.told("POST", f"{path}/approvals", agreed, as_=approver, key=group)
    await insistent.told("POST", f"{path}/release", as_="anna", key="release")


async def _until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    while not holds(answer := await ask()):  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(PAUSE)
    return answer


def _complaint(product: str, number: int, customer: int) -> Json:
    name = f"crisis-{number}-{customer}"
    return {
        "kind": "complaint",
        "channel": "web",
        "source": "chaos",
        "source_ref": name,
        "text": "The handle came off and the hot water burned my hand.",
        "product": product,
        "contact": {"email": f"{name}@example.org"},
    }
