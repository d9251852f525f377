"""Dead letters and events on the command line, on the real system with a real log."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx2
import pytest
from click.testing import CliRunner, Result
from prometheus_client import REGISTRY

from rapport.common.bus.history import history
from rapport.common.errors import TemporaryError
from rapport.common.events import CATALOGUE, Message, Record
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.topics import FEEDBACK
from rapport.standalone.operations import events as operations_events
from rapport.standalone.operations import reach
from rapport.standalone.operations.dlq import dlq
from rapport.standalone.operations.events import events
from rapport.standalone.system import System, system

PATIENCE: Final = 60.0
SECRET: Final = "cora@home.example"
COMPLAINT: Final = {
    "kind": "complaint",
    "channel": "web",
    "source_ref": "1",
    "text": "My kettle, ordered by Cora Home, broke.",
    "contact": {"email": SECRET},
}
GROUPS: Final = ("intake", "knowledge", "routing")
"""Those who read feedback."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def rapport(data: Path) -> AsyncIterator[System]:
    async with system(data, port=0) as running:
        yield running


class Line:
    """The command line, with the data directory of a test."""

    def __init__(self, data: Path) -> None:
        self._data = data

    async def __call__(self, group: click.Group, *arguments: str) -> Result:
        given = [*arguments, "--data-dir", str(self._data)]
        return await asyncio.to_thread(CliRunner().invoke, group, given)

    async def told(self, group: click.Group, *arguments: str) -> str:
        """Run a command that is to succeed; return what it prints."""
        result = await self(group, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def letters(self, *arguments: str) -> list[dict[str, Any]]:
        """List dead letters."""
        told = await self.told(dlq, "list", "--json", *arguments)
        return [json.loads(line) for line in told.splitlines()]


@pytest.fixture
def line(data: Path) -> Line:
    return Line(data)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        if await holds():
            return
        assert time.monotonic() < give_up, "it never came to that"
        await asyncio.sleep(0.01)


async def call(rapport: System, role: str, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {rapport.token('somebody', role)}"}
    async with httpx2.AsyncClient(base_url=rapport.url, headers=headers) as client:
        return await client.request(method, path, json=body)


async def cases(rapport: System) -> list[Any]:
    answer = await call(rapport, "agent", "GET", "/routing/v1/cases")
    found: list[Any] = answer.json()["items"]
    return found


def handled(group: str) -> float:
    """Return how many messages that were received a group has handled in this process."""
    labels = {"service": group, "event_type": FeedbackReceived.TYPE}
    return REGISTRY.get_sample_value("rapport_events_handled_total", labels) or 0.0


@asynccontextmanager
async def older_code() -> AsyncIterator[None]:
    """Let this process be of a time when nobody knew that a message can be received."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(CATALOGUE, FeedbackReceived.TYPE)
        yield


@pytest.fixture
async def failed(rapport: System, line: Line) -> System:
    """A system of which no service could read a message."""
    async with older_code():
        answer = await call(rapport, "publisher", "POST", "/intake/v1/feedback", COMPLAINT)
        assert answer.status_code == 202

        async def all_gave_up() -> bool:
            return len(await line.letters()) == len(GROUPS) and await rapport.quiet()

        await until(all_gave_up)
    return rapport


# Looking


async def test_the_list_tells_who_gave_up_what_and_why(failed: System, line: Line) -> None:
    letters = await line.letters()
    assert sorted(letter["group"] for letter in letters) == list(GROUPS)
    assert {letter["reason"] for letter in letters} == {"the event type is not known here"}
    assert {letter["type"] for letter in letters} == {FeedbackReceived.TYPE}

    table = await line.told(dlq, "list", "--group", "routing")
    assert "1 dead letter\n" in table
    assert "Undecodable" in table
    assert "2 are shown" in await line.told(dlq, "list", "--limit", "2")
    assert await line.told(dlq, "list", "--type", "other") == "0 dead letters\n"


async def test_a_letter_is_shown_without_personal_data(failed: System, line: Line) -> None:
    [letter] = await line.letters("--group", "routing")
    hidden = await line.told(dlq, "show", letter["place"])
    assert json.loads(hidden)["event"]["data"]["channel"] == "web"
    assert not any(secret in hidden for secret in (SECRET, "Cora"))
    assert SECRET in await line.told(dlq, "show", letter["place"], "--personal")


async def test_what_is_not_there_is_told_in_one_line(failed: System, line: Line) -> None:
    for arguments in (("show", "0/77"), ("redrive", "0/77", "--url", failed.url)):
        result = await line(dlq, *arguments)
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert "there is no dead letter 0/77" in result.output


async def test_a_stranger_cannot_steer_the_terminal(rapport: System, line: Line) -> None:
    headers = (("ce_type", FeedbackReceived.TYPE.encode()), ("ce_id", b"\x1b[2J[red]"))
    foreign = (("ce_type", b"\x1b[31m[red]x"), *headers)
    await rapport.bus.publish([Message(FEEDBACK.name, "x", b"", headers)])
    await rapport.bus.publish(
        [Message("rapport.dlq", "x", b"", (*foreign, ("kafka_dlt-exception-message", b"\x1b[2J")))]
    )

    async def came() -> bool:
        return len(await line.letters()) == len(GROUPS) + 1

    await until(came)
    assert "\x1b" not in await line.told(dlq, "list")
    assert "[red]x" in (await line.told(dlq, "list")).replace("\n", "")


# Sending back


async def test_a_redrive_reaches_only_the_group_and_a_repeat_changes_nothing(
    failed: System, line: Line
) -> None:
    before = {group: handled(group) for group in GROUPS}
    [letter] = await line.letters("--group", "routing")
    for _ in range(3):
        told = await line.told(dlq, "redrive", letter["place"], "--url", failed.url)
        assert told == "1 sent back\n  1 to routing on rapport.feedback\n"
    await until(failed.quiet)

    [case] = await cases(failed)
    assert case["message_count"] == 1
    assert [group for group in GROUPS if handled(group) != before[group]] == ["routing"]
    assert len(await line.letters()) == len(GROUPS)


async def test_all_of_them_go_back_through_the_process_that_has_the_log(
    failed: System, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "URL", failed.url)
    before = {group: handled(group) for group in GROUPS}
    told = await line.told(dlq, "redrive", "--all")
    assert told.startswith("3 sent back\n  1 to intake on rapport.feedback\n")
    await until(failed.quiet)
    once = [json.loads(item) for item in (await line.told(events, "export")).splitlines()]

    assert "3 sent back" in await line.told(dlq, "redrive", "--all")
    await until(failed.quiet)
    assert {group: handled(group) - before[group] for group in GROUPS} == dict.fromkeys(GROUPS, 2)
    assert [case["message_count"] for case in await cases(failed)] == [1]
    twice = [json.loads(item) for item in (await line.told(events, "export")).splitlines()]
    assert {item["id"] for item in twice} == {item["id"] for item in once}
    assert len(twice) == len(once) + 3


async def test_where_nobody_has_the_log_it_is_opened_and_read_at_the_next_start(
    data: Path, line: Line
) -> None:
    async with system(data, port=0) as running, older_code():
        await call(running, "publisher", "POST", "/intake/v1/feedback", COMPLAINT)

        async def given_up() -> bool:
            return len(await line.letters()) == len(GROUPS)

        await until(given_up)

    told = await line.told(dlq, "redrive", "--all", "--group", "routing")
    assert told == "1 sent back\n  1 to routing on rapport.feedback\n"
    async with system(data, port=0) as running:
        await until(running.quiet)
        assert [case["message_count"] for case in await cases(running)] == [1]


@pytest.mark.parametrize("role", ["viewer", "agent", "lead", "pr", "approver", "publisher"])
async def test_only_an_admin_sends_back(rapport: System, role: str) -> None:
    path = "/operations/v1/dead-letters/redrive"
    assert (await call(rapport, role, "POST", path, {"all": True})).status_code == 403
    answer = await call(rapport, "admin", "POST", path, {"all": True})
    assert (answer.status_code, answer.json()) == (200, {"items": [], "left": 0})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"places": []},
        {"places": ["0/1"], "all": True},
        {"places": ["0/1"], "group": "routing"},
        {"places": ["x"]},
        {"places": ["0/1"] * 1_001},
        {"all": True, "gruop": "routing"},
    ],
)
async def test_a_redrive_says_which_letters(rapport: System, body: Any) -> None:
    path = "/operations/v1/dead-letters/redrive"
    assert (await call(rapport, "admin", "POST", path, body)).status_code == 422


async def test_a_command_that_makes_no_sense_is_refused(line: Line) -> None:
    too_many = ["0/1"] * 1_001
    for arguments in ((), ("0/1", "--all"), ("0/1", "--group", "routing"), ("x",), too_many):
        assert (await line(dlq, "redrive", *arguments)).exit_code == 2
    result = await line(dlq, "redrive", "--all")
    assert (result.exit_code, "there is no log" in result.output) == (1, True)


async def test_a_token_that_is_not_good_is_told_in_one_line(rapport: System, line: Line) -> None:
    viewer = rapport.token("vic", "viewer")
    result = await line(dlq, "redrive", "--all", "--url", rapport.url, "--token", viewer)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "dead_letter.redrive needs one of the roles: admin" in result.output


# Events


async def test_an_export_holds_everything_that_was_published(
    failed: System, line: Line, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    result = await line(events, "export", "--output", str(file), "--topic", FEEDBACK.name)
    assert "1 events exported" in result.stderr
    [event] = map(json.loads, file.read_text("utf-8").splitlines())
    assert (event["specversion"], event["type"]) == ("1.0", FeedbackReceived.TYPE)
    assert not any(secret in file.read_text("utf-8") for secret in (SECRET, "Cora"))
    assert SECRET in await line.told(events, "export", "--personal")


async def test_an_export_that_is_broken_off_leaves_the_one_before(
    failed: System, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken_off(*_: object) -> AsyncIterator[Sequence[Record]]:
        yield (await anext(history(failed.bus, [FEEDBACK.name])))[:1]
        raise TemporaryError("the brokers are gone")

    monkeypatch.setattr(operations_events, "history", broken_off)
    file = tmp_path / "events.jsonl"
    file.write_text("before")
    assert (await line(events, "export", "--output", str(file))).exit_code == 1
    assert file.read_text() == "before"
    assert {*os.listdir(tmp_path)} == {"data", file.name}


async def test_an_export_is_of_some_types_and_of_some_time(failed: System, line: Line) -> None:
    one_type = ("export", "--type", FeedbackReceived.TYPE)
    assert len((await line.told(events, *one_type, "--topic", FEEDBACK.name)).splitlines()) == 1
    assert await line.told(events, "export", "--type", "other") == ""
    assert await line.told(events, *one_type, "--until", "2020-01-01") == ""
    assert await line.told(events, *one_type, "--since", "2020-01-01T00:00:00+03:30") != ""
    assert (await line(events, *one_type, "--since", "yesterday")).exit_code == 2


async def test_what_is_no_event_is_told_by_its_place(rapport: System, line: Line) -> None:
    await rapport.bus.publish([Message(FEEDBACK.name, None, SECRET.encode(), ())])
    told = await line.told(events, "export", "--topic", FEEDBACK.name)
    unreadable = json.loads(told)["unreadable"]
    assert (unreadable["topic"], unreadable["offset"], unreadable["bytes"]) == (
        FEEDBACK.name,
        0,
        17,
    )
    assert SECRET not in told


async def test_a_tail_follows_until_it_is_told_to_end(rapport: System, data: Path) -> None:
    source = "from rapport.standalone.operations.events import events; events()"
    options = ("--from-start", "--topic", FEEDBACK.name, "--data-dir", str(data))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source, "tail", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    for reference in ("1", "2"):
        complaint = COMPLAINT | {"source_ref": reference}
        await call(rapport, "publisher", "POST", "/intake/v1/feedback", complaint)
        async with asyncio.timeout(PATIENCE):
            event = json.loads(await process.stdout.readline())
        assert (event["type"], event["data"]["source_ref"]) == (FeedbackReceived.TYPE, reference)
        assert SECRET not in json.dumps(event)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")
