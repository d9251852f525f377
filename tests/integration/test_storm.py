"""A storm of complaints about one matter: people hear of it, and are not drowned in it (A10).

`RAPPORT_STORM` is how many come, as fast as they are taken in: 10000 is a storm of a minute.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2
import pytest

from rapport.common.clock import JumpingClock
from rapport.standalone.demo.receivers import Arrival, MailServer
from rapport.standalone.system import system

from . import clients
from .clients import Json, Rapport
from .conftest import Installation

SIZE: Final = int(os.environ.get("RAPPORT_STORM", "240"))
SENDERS: Final = 300
"""More at once than intake takes on, where the storm is as large as that."""

CRITICAL_EVERY: Final = 20
MOST: Final = 10
"""What the built-in policy lets through in an hour, to one recipient through one channel."""

MORE: Final = {
    "en": "Held back: {} more",
    "zh": "另有 {} 条提醒未发送",
    "fa": "{} هشدار دیگر فرستاده نشد",
}
"""The subject of the message that says how many were held back."""


class Storm(NamedTuple):
    """A running system, and the clock that it goes by."""

    rapport: Rapport
    clock: JumpingClock


@pytest.fixture
async def storm(
    tmp_path: Path, outside_settings: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Storm]:
    """A system of one's own; whoever waits for a large storm to pass has more patience."""
    monkeypatch.setattr(clients, "PATIENCE", clients.PATIENCE + SIZE / 5)
    clock = JumpingClock(datetime.now(UTC))
    installation = Installation(
        lambda: system(tmp_path / "data", port=0, clock=clock, settings=outside_settings)
    )
    await installation.start()
    yield Storm(installation.client, clock)
    await installation.stop()


def complaint(number: int) -> Json:
    """Return one of many complaints about the kettle; now and then somebody was hurt."""
    hurt = number % CRITICAL_EVERY == 0
    return {
        "kind": "complaint",
        "channel": "web",
        "source": "form",
        "source_ref": f"message-{number}",
        "text": "The kettle caught fire and burned my hand." if hurt else "The kettle leaks.",
        "product": "kettle AK-300",
        "contact": {"email": f"robin{number}@example.org"},
    }


async def break_loose(rapport: Rapport) -> Counter[int]:
    """Send everything, each again until it is taken in; return how that was answered."""
    answers: Counter[int] = Counter()
    numbers = iter(range(SIZE))

    async def send_some() -> None:
        for number in numbers:
            while (status := await send(number)) != 202:
                answers[status] += 1
            answers[status] += 1

    async def send(number: int) -> int:
        """Return the answer's status, 0 where the connection ended before there was one."""
        try:
            answer = await rapport.call(
                "POST", "/intake/v1/feedback", as_="web-shop", json=complaint(number)
            )
        except (httpx2.NetworkError, httpx2.RemoteProtocolError):
            return 0
        if answer.status_code == 503:
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        return answer.status_code

    await asyncio.gather(*(send_some() for _ in range(SENDERS)))
    return answers


async def enlist(rapport: Rapport, language: str) -> str:
    """Let somebody hear of new cases by e-mail and on the live stream; return their id."""
    addresses = [
        {"channel": "email", "to": f"{language}@norvane.example"},
        {"channel": "stream", "to": language},
    ]
    person = {"groups": ["duty"], "language": language, "addresses": addresses}
    put = await rapport.put(f"/notification/v1/stakeholders/{language}", person, as_="anna")
    return str(put["recipient"])


def mailed_to(mail: MailServer, language: str) -> list[Arrival]:
    """Return what somebody has got by e-mail."""
    return [item for item in mail.arrived if item.to == f"{language}@norvane.example"]


async def test_a_storm_drowns_nobody_and_hides_nothing_critical(
    storm: Storm, mail: MailServer
) -> None:
    rapport, clock = storm
    people = {language: await enlist(rapport, language) for language in MORE}
    await rapport.put(
        "/notification/v1/subscriptions/duty",
        {"to": ["group:duty"], "events": ["case.opened"]},
        as_="anna",
    )

    answers = await break_loose(rapport)
    assert answers.keys() <= {202, 503, 0}
    assert answers[202] == SIZE
    await rapport.settled()

    cases = await rapport.all("/routing/v1/cases")
    assert len(cases) == SIZE
    critical = {case["id"] for case in cases if case["about"]["severity"] == "critical"}
    assert len(critical) == len(range(0, SIZE, CRITICAL_EVERY))
    others = SIZE - len(critical)

    for language, recipient in people.items():
        wishes = await rapport.all("/notification/v1/notifications", recipient=recipient)
        for channel in ("email", "stream"):
            of_channel = [wish for wish in wishes if wish["channel"] == channel]
            assert _in_state(of_channel, "delivered") >= critical
            states = Counter(wish["state"] for wish in of_channel)
            assert states == {
                "delivered": len(critical) + min(MOST, others),
                "suppressed": max(0, others - MOST),
            }
        assert {item.id for item in mailed_to(mail, language)} == {
            wish["id"]
            for wish in wishes
            if wish["channel"] == "email" and wish["state"] == "delivered"
        }
        assert await _allowances(rapport, recipient) == {
            channel: (MOST, others - MOST, {"case.opened": others - MOST})
            for channel in ("email", "stream")
        }

    clock.move(timedelta(hours=1))
    await rapport.until(
        lambda: _untold(rapport), lambda waiting: waiting == 0, "nobody is told of the others"
    )
    await rapport.settled()
    for language, recipient in people.items():
        arrived = mailed_to(mail, language)
        assert len(arrived) == len(critical) + MOST + 1
        told = arrived[-1]
        assert told.subject == MORE[language].format(others - MOST)
        assert (told.language, told.right_to_left) == (language, language == "fa")
        assert await _allowances(rapport, recipient) == {
            channel: (MOST, others - MOST, {}) for channel in ("email", "stream")
        }


def _in_state(wishes: Sequence[Json], state: str) -> set[str]:
    """Return the cases whose messages are in a state."""
    return {wish["case_id"] for wish in wishes if wish["state"] == state}


async def _allowances(rapport: Rapport, recipient: str) -> dict[str, tuple[int, int, Json]]:
    found = await rapport.all("/notification/v1/allowances", recipient=recipient)
    return {
        item["channel"]: (item["admitted"], item["held_back"], item["untold"]) for item in found
    }


async def _untold(rapport: Rapport) -> int:
    found = await rapport.all("/notification/v1/allowances")
    return sum(sum(item["untold"].values()) for item in found)
