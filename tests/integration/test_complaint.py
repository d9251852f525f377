"""A complaint, from the moment it is sent until it has been answered in time."""

import asyncio
from typing import Any

import pytest

from rapport.standalone.demo.receivers import MailServer

from .clients import Rapport
from .conftest import Installation

STATES = ("pending", "received", "routed")


def complaint(number: int = 1, **changed: Any) -> dict[str, Any]:
    """Return a complaint by e-mail about a kettle."""
    return {
        "kind": "complaint",
        "channel": "email",
        "source": "inbox",
        "source_ref": f"message-{number}",
        "subject": "Broken kettle",
        "text": "The kettle broke after two days. I want my money back.",
        "product": "kettle AK-300",
        "contact": {"name": "Robin", "email": f"robin{number}@example.org"},
        **changed,
    }


async def test_a_complaint_gets_an_owner_and_a_clock_and_a_delivered_reply_meets_it(
    rapport: Rapport, mail: MailServer
) -> None:
    receipt = await rapport.send(complaint(thread_ref="thread-1"))
    states: list[str] = []

    async def state() -> str:
        states.append((await rapport.status(receipt))["state"])
        return states[-1]

    await rapport.until(state, lambda told: told == "routed", "it is never routed")
    assert states == sorted(states, key=STATES.index), "a status never goes back"

    case = await rapport.case_of(receipt)
    assert case["state"] == "open"
    assert case["team"] == "quality"
    assert case["owner"]
    assert case["clock"]["state"] == "running"

    path = f"/routing/v1/cases/{case['id']}"
    text = "We are sorry. Your money is on its way back to you."
    await rapport.post(f"{path}/replies", {"text": text}, as_="lin")
    met = await rapport.until(
        lambda: rapport.get(path), lambda case: case["clock"]["state"] == "met", "no answer counts"
    )
    assert met["replies"][0]["state"] == "delivered"
    assert not met["clock"]["breached"]

    [arrived] = mail.arrived
    assert arrived.to == "robin1@example.org"
    assert text in arrived.text
    assert arrived.subject == "Re: Broken kettle"

    await rapport.send(complaint(2, text="Thank you, it has arrived.", thread_ref="thread-1"))
    await rapport.until(
        lambda: rapport.get(path), lambda case: case["message_count"] == 2, "no second message"
    )
    await rapport.settled()
    happened = [entry["type"] for entry in await rapport.all(f"{path}/history")]
    story = ("case.opened", "clock.started", "case.reply_requested", "clock.met")
    places = [happened.index(f"rapport.{name}.v1") for name in story]
    assert places == sorted(places)
    assert await rapport.figure("first_response_on_time") == 1.0
    assert len(mail.arrived) == 1


async def test_two_deliveries_of_the_same_three_hundred_make_three_hundred_cases(
    rapport: Rapport,
) -> None:
    batch = [complaint(number) for number in range(300)]
    answers = await asyncio.gather(
        *(rapport.post("/intake/v1/feedback/batch", batch, as_="web-shop") for _ in range(2))
    )
    assert [(answer["accepted"], answer["rejected"]) for answer in answers] == [(300, 0)] * 2
    first, second = ([item["id"] for item in answer["items"]] for answer in answers)
    assert first == second
    assert len(set(first)) == 300

    await rapport.settled()
    cases = await rapport.all("/routing/v1/cases")
    assert len(cases) == 300
    assert {case["message_count"] for case in cases} == {1}
    assert await rapport.figure("feedback") == 300
    assert await rapport.figure("cases_opened") == 300


@pytest.mark.parametrize("redelivered", [False, True], ids=["only restarted", "and sent again"])
async def test_after_a_restart_everything_is_there_and_nothing_is_said_again(
    installation: Installation, mail: MailServer, redelivered: bool
) -> None:
    async def everything(rapport: Rapport) -> dict[str, Any]:
        await rapport.settled()
        return {
            "case": await rapport.get(f"/routing/v1/cases/{id}"),
            "history": await rapport.all(f"/routing/v1/cases/{id}/history"),
            "status": await rapport.status(receipt),
            "notifications": await rapport.all("/notification/v1/notifications"),
            "interactions": await rapport.all("/notification/v1/interactions", as_="lin"),
            "article": await rapport.get("/knowledge/v1/articles/refunds"),
            "found": await rapport.get("/knowledge/v1/search", q="refund", language="en"),
            "opened": await rapport.figure("cases_opened"),
            "mail": [arrival.id for arrival in mail.arrived],
        }

    rapport = installation.client
    article = {"title": {"en": "Refunds"}, "text": {"en": "A refund takes three days."}}
    await rapport.put("/knowledge/v1/articles/refunds", article, as_="kim")
    receipt = await rapport.send(complaint())
    id = (await rapport.case_of(receipt))["id"]
    await rapport.post(f"/routing/v1/cases/{id}/replies", {"text": "We are sorry."}, as_="lin")
    before = await everything(rapport)
    assert len(before["mail"]) == 1

    rapport = await installation.restart()
    if redelivered:
        assert (await rapport.send(complaint()))["id"] == receipt["id"]
    assert await everything(rapport) == before
