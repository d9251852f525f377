"""What cannot be handled is put aside with everything to try it again, and the line goes on."""

import asyncio
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from rapport.common.events.codec import Message
from rapport.common.events.topics import FEEDBACK
from rapport.standalone.processes import Processes, environment

from .clients import Json
from .conftest import Installation

POISON: Final = "poisoned-message"
HEADERS: Final = {
    "ce_specversion": "1.0",
    "ce_id": POISON,
    "ce_source": "/rapport/intake",
    "ce_type": "rapport.feedback.received.v1",
    "ce_subject": POISON,
    "content-type": "application/json",
}


def message(key: str, value: bytes, **changed: str) -> Message:
    """Return a message with the headers of a feedback that was received."""
    headers = HEADERS | {"ce_time": datetime.now(UTC).isoformat()} | changed
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(FEEDBACK.name, key, value, packed)


async def test_poison_is_dead_lettered_and_what_comes_behind_it_is_handled(
    installation: Installation,
) -> None:
    rapport = installation.client
    first = {"kind": "question", "channel": "chat", "text": "When do you open?", "thread_ref": "t"}
    case = await rapport.case_of(await rapport.send({**first, "source_ref": "1"}))
    before = await rapport.metric("rapport_events_dead_lettered_total", service="routing")

    poison = {"feedback_id": POISON, "case_id": case["id"], "kind": "poem"}
    await installation.publish(message(case["id"], json.dumps(poison).encode()))
    await installation.publish(message(case["id"], b"\xff\x00 not JSON", ce_id="other"))
    await installation.publish(message(case["id"], b"{}", ce_specversion="7"))
    await rapport.send({**first, "source_ref": "2"})

    path = f"/routing/v1/cases/{case['id']}"
    await rapport.until(
        lambda: rapport.get(path), lambda case: case["message_count"] == 2, "the line has stopped"
    )
    await rapport.settled()
    after = await rapport.metric("rapport_events_dead_lettered_total", service="routing")
    assert after == before + 3
    status = await rapport.get(f"/intake/v1/feedback/{POISON}")
    assert (status["state"], status["case_id"]) == ("failed", case["id"])


async def dlq(installation: Installation, data: Path, *arguments: str) -> str:
    """Run `rapport dlq` beside the system, as an operator does; return what it says."""
    up, options = installation.up, ("--data-dir", str(data))
    settings = environment(up.settings) if isinstance(up, Processes) else {}
    reach = () if settings or arguments[0] != "redrive" else ("--url", up.urls["intake"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rapport.standalone", "dlq", *arguments, *options, *reach),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    return said.decode()


async def test_a_dead_letter_goes_back_to_the_group_that_gave_it_up_and_to_no_other(
    installation: Installation, tmp_path: Path
) -> None:
    rapport = installation.client

    async def letters() -> list[Json]:
        listed = await dlq(installation, tmp_path / "data", "list", "--json")
        return [json.loads(line) for line in listed.splitlines()]

    def has(count: int, letters: list[Json]) -> bool:
        return len(letters) == count

    def groups(letters: list[Json]) -> Counter[str]:
        return Counter(letter["group"] for letter in letters)

    poison = {"feedback_id": POISON, "case_id": POISON, "kind": "poem"}
    await installation.publish(message(POISON, json.dumps(poison).encode()))
    first = await rapport.until(letters, partial(has, 3), "not given up by all")
    assert groups(first) == {"intake": 1, "routing": 1, "knowledge": 1}

    for again in (4, 5):
        await dlq(installation, tmp_path / "data", "redrive", "--all", "--group", "routing")
        await rapport.until(letters, partial(has, again), "it does not come back")
        await rapport.settled()
        found = await letters()
        assert groups(found) == {"intake": 1, "routing": again - 2, "knowledge": 1}
        assert {letter["id"] for letter in found} == {POISON}
