"""The demo's parts: a story with its mistakes, the world outside, and how all of it is told."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from click.testing import CliRunner
from rich.console import Console
from standardwebhooks import Webhook

from rapport.common.errors import Invalid
from rapport.common.events.knowledge import Wording
from rapport.common.events.vocabulary import Language
from rapport.common.matching import Conditions
from rapport.common.text import language_of
from rapport.intake.domain.submission import read_submission
from rapport.knowledge.domain.wording import statement_hash
from rapport.notification.channels import Delivered, Outgoing
from rapport.notification.channels.email import EmailChannel, EmailConfig
from rapport.notification.channels.webhook import new_secret
from rapport.standalone.cli import rapport
from rapport.standalone.demo.chronicle import duration
from rapport.standalone.demo.counting import duplicates, hash_of
from rapport.standalone.demo.deeds import act
from rapport.standalone.demo.expectations import compare
from rapport.standalone.demo.history import before
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.receivers import Arrival, Listener, Outside, is_signed, outside
from rapport.standalone.demo.scenario import Scenario, load
from rapport.standalone.demo.steps import AnyStep, Draft, Hear, Step
from rapport.standalone.system import HOST

OURS = (
    Path(__file__).parents[1] / "src" / "rapport" / "standalone" / "demo" / "scenario.yaml"
).read_text("utf-8")


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load()


@pytest.fixture
async def around() -> AsyncIterator[Outside]:
    async with outside() as running:
        yield running


# The story


def test_our_story_speaks_three_languages_about_equally(scenario: Scenario) -> None:
    steps = [step for chapter in scenario.chapters for step in chapter.steps]
    heard = [step.feedback.text or "" for step in steps if isinstance(step, Hear)]
    said = Counter(language_of(text) for text in heard)
    assert set(said) == {"en", "zh", "fa"}
    assert max(said.values()) - min(said.values()) <= 3
    drafts = [step for step in steps if isinstance(step, Draft)]
    assert all(set(draft.wordings) == {"en", "zh", "fa"} for draft in drafts)


@pytest.mark.parametrize(
    ("written", "instead", "complaint"),
    [
        ("do: publish\n        who: max", "do: publish\n        who: moritz", "no person 'moritz'"),
        ('at: "12:00"', "at: 12:00", "write a time in quotes"),
        ('at: "08:05"\n        do: accept', 'at: "07:59"\n        do: accept', "before the step"),
        ("do: suggest\n        case: chalky kettle", "do: suggest\n        case: x", "'x' so far"),
        ("channel: hotline\n          product: W", "channel: horn\n          product: W", "Input"),
        ("do: decline", "do: sing", "'sing'"),
        ("key_message: repair-first", "key_message: later", "no key message 'later'"),
        ("finds: [", "funds: [", "Extra inputs"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(
    tmp_path: Path, written: str, instead: str, complaint: str
) -> None:
    assert OURS.count(written) == 1
    file = tmp_path / "day.yaml"
    file.write_text(OURS.replace(written, instead), "utf-8")
    place = OURS[: OURS.index(written)].count("\n") + 1
    lines = range(place - 2, place + 2)

    with pytest.raises(Invalid) as refused:
        load(file)
    told = [line for line in refused.value.reason.splitlines() if complaint in line]
    assert any(line.startswith(f"{file}:{number}:") for line in told for number in lines), told


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "day.yaml"
    file.write_bytes(b"company: \xff")
    with pytest.raises(Invalid, match="UTF-8"):
        load(file)


def test_the_command_says_what_is_wrong_with_a_story(tmp_path: Path) -> None:
    file = tmp_path / "day.yaml"
    file.write_text("company: Norvane\nstaff: many\n", "utf-8")
    answer = CliRunner().invoke(rapport, ["demo", "--scenario", str(file)])
    assert answer.exit_code == 1
    assert f"{file}:2: staff: Extra inputs are not permitted" in answer.output


def test_the_past_is_the_same_every_time_and_intake_takes_it(scenario: Scenario) -> None:
    past = before(scenario)
    assert past == before(scenario)
    assert len(past) == scenario.history.days * scenario.history.per_day
    day = scenario.moment(scenario.begins)
    taken = [read_submission(item, day) for item in past]
    assert all(item.historical and item.occurred_at and item.occurred_at < day for item in taken)
    assert {language_of(item.text or "") for item in taken} == {"en", "zh", "fa"}


# The world outside


def signed(body: bytes, secret: str, *, at: float | None = None) -> dict[str, str]:
    """Headers of a webhook as the Standard Webhooks library signs it."""
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    return {
        "webhook-id": "n1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("n1", moment, body.decode()),
    }


def hook(text: str = "我们正在调查。") -> bytes:
    data = {"language": "zh", "subject": "水壶", "text": text, "statement_hash": "abc"}
    return json.dumps({"type": "rapport.statement", "data": data}, ensure_ascii=False).encode()


async def test_a_signed_webhook_is_taken_and_a_forged_one_refused(around: Outside) -> None:
    secret, body = new_secret(), hook()
    around.webhooks.secrets["/dealer"] = secret
    async with httpx2.AsyncClient(base_url=f"http://{around.webhooks.authority}") as http:
        good = await http.post("/dealer", content=body, headers=signed(body, secret))
        others = [
            await http.post("/dealer", content=hook("Buy now"), headers=signed(body, secret)),
            await http.post("/dealer", content=body, headers=signed(body, new_secret())),
            await http.post("/nobody", content=body, headers=signed(body, secret)),
            await http.post("/dealer", content=body),
        ]
    assert good.status_code == 204
    assert [answer.status_code for answer in others] == [401] * 4
    assert around.webhooks.forged == 4
    [arrival] = around.arrived
    assert (arrival.channel, arrival.to, arrival.text) == ("webhook", "/dealer", "我们正在调查。")


def test_an_old_webhook_is_a_replay() -> None:
    secret, body = new_secret(), hook()
    headers = signed(body, secret, at=1_000_000)
    assert is_signed(secret, headers, body, 1_000_000 + 299)
    assert not is_signed(secret, headers, body, 1_000_000 + 301)


async def test_a_mail_is_read_as_it_was_written(around: Outside) -> None:
    channel = EmailChannel(EmailConfig(host=HOST, port=around.mail.port, security="none"))
    mail = Outgoing(
        notification_id="n1",
        kind="statement",
        to="maryam@post.example",
        language="fa",
        time=datetime(2026, 5, 12, tzinfo=UTC),
        subject="کتری K2 ممکن است نشتی داشته باشد؛ لطفاً از آن استفاده نکنید",
        text="نخست.\n\n.یک نقطه در آغاز خط\n",
    )
    assert await channel.send(mail) == Delivered("250")
    await channel.close()

    [arrival] = around.arrived
    assert (arrival.id, arrival.to, arrival.language) == ("n1", mail.to, "fa")
    assert (arrival.subject, arrival.text) == (mail.subject, mail.text)
    assert arrival.right_to_left


async def test_the_listener_keeps_events_and_what_is_meant_for_the_stream(around: Outside) -> None:
    lines = [
        {"type": "rapport.case.opened.v1", "data": {"case_id": "c1"}},
        {"type": "rapport.notification.delivered.v1", "data": delivered("email")},
        {"type": "rapport.notification.delivered.v1", "data": delivered("stream")},
    ]
    sent = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer token"
        return httpx2.Response(200, text=sent, headers={"content-type": "text/event-stream"})

    listener, transport = Listener(), httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rapport.test") as http:
        await listener.listen(http, "token", asyncio.Event())
    assert listener.events == lines
    assert [arrival.to for arrival in listener.arrived] == ["board"]


def delivered(channel: str) -> dict[str, Any]:
    return {
        "notification_id": "n1",
        "channel": channel,
        "recipient": "board",
        "language": "en",
        "subject": "Kettles",
        "text": "We are looking into it.",
        "statement_hash": None,
    }


# What is done, counted and compared


def test_every_kind_of_step_has_its_deed() -> None:
    union, _ = get_args(AnyStep)
    assert [kind for kind in get_args(union) if act.dispatch(kind) is act.dispatch(Step)] == []


def arrival(language: str, id: str = "n1", to: str = "a@post.example") -> Arrival:
    return Arrival(id, "email", to, language, f"about {language}", f"text {language}\n")


def test_the_hash_of_what_arrived_is_the_hash_that_was_approved() -> None:
    wordings = {
        language: Wording(subject=f"about {language}", text=f"text {language}\n")
        for language in (Language.EN, Language.ZH, Language.FA)
    }
    statement = {"wordings": {name: dict(wording) for name, wording in wordings.items()}}
    arrived = [arrival("fa"), arrival("en"), arrival("fa")]
    assert hash_of(arrived, statement) == statement_hash(wordings)

    altered = Arrival("n1", "email", "a@post.example", "en", "about en", "another text\n")
    assert hash_of([*arrived, altered], statement) != statement_hash(wordings)


def test_a_message_that_comes_again_is_counted() -> None:
    assert duplicates([arrival("en"), arrival("en", to="b@post.example")]) == 0
    assert duplicates([arrival("en"), arrival("en"), arrival("en", id="n2")]) == 1


def test_an_expectation_names_what_is_there_instead() -> None:
    shown = {"state": "open", "about": {"severity": "high"}, "clock": {"breached": False}}
    expected = Conditions(
        {
            "state": "closed",
            "about.severity": {"at_least": "normal"},
            "clock.breached": False,
            "owner": "ana",
        }
    )
    found = [(finding.is_true, finding.what) for finding in compare(expected, shown)]
    assert found == [
        (True, "severity at least normal, clock not breached"),
        (False, "state closed was expected, it is open"),
        (False, "owner ana was expected, it is not there"),
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59, "59 s"), (900, "15 min"), (4500, "1 h 15 min"), (97_200, "1 d 3 h")],
)
def test_a_duration_is_told_in_two_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


# How it is told


async def test_without_a_terminal_the_narrative_is_plain_lines() -> None:
    out = StringIO()
    narrator = Narrator(Console(file=out, width=40), 0)
    noon = datetime(2026, 5, 12, 12, 4, tzinfo=UTC)
    text = "[bold]کتری[/bold] نشتی دارد و آب روی کابینت می‌ریزد؛ لطفاً پولم را پس بدهید."
    async with narrator.telling():
        await narrator.chapter("Noon", "Kettles begin to leak.")
        await narrator.says(noon, "مریم", "complaint, email", text)
        await narrator.itself(noon, "a crisis is proposed")
        await narrator.checked(False, "state declared was expected")
        narrator.show({"messages": "3"})
        await narrator.table("The day", ("", "n"), [("messages", "3")])
        await narrator.end(7, ["state declared was expected"])

    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[1:7] == [
        "== Noon ==",
        "Kettles begin to leak.",
        "12:04 · مریم (complaint, email)",
        f"        “{text}”",
        "12:04 » a crisis is proposed",
        "      ✗ state declared was expected",
    ]
    assert "1 of 7 expectations did not come true:" in lines
    assert "\x1b" not in out.getvalue()


async def test_in_a_terminal_long_lines_stay_behind_their_margin() -> None:
    out = StringIO()
    narrator = Narrator(Console(file=out, width=40, force_terminal=True, no_color=True), 0)
    noon = datetime(2026, 5, 12, 12, 4, tzinfo=UTC)
    async with narrator.telling():
        await narrator.itself(noon, "a long line that does not fit into forty columns at all")
    first, second = out.getvalue().replace("\x1b[?25l", "").splitlines()[:2]
    assert first.startswith("12:04 » a long line")
    assert second.startswith(" " * 8 + "into forty columns")
