"""kill -9 at any moment and a restart: nothing that was answered 202 is lost, nothing is doubled.

The victim is a real process that runs `rapport up`. Clients send, batch and answer complaints
without a pause, as clients do: what they got no answer for they send again. A process dies when
something has happened so many times: when it opens its data, when it acknowledges, when a mail is
in the mail server's hands and the server has not said so yet. At the end the system is asked, over
HTTP, what it made of it all.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import httpx2
from aiosmtpd.smtp import SMTP, Envelope, Session

from rapport.common.auth import Signer
from rapport.common.bus.port import Bus
from rapport.common.clock import JumpingClock
from rapport.common.events.topics import DEAD_LETTERS
from rapport.standalone.system import SERVICES, system

from .clients import PAUSE, Json, Rapport, eventually

SEED: Final = 20_261_122
DEATHS: Final = {"opening": 2, "acknowledgement": 8, "mail": 8, "reply": 3}
"""How many processes die when this happens."""

MOST: Final = {"opening": 1, "acknowledgement": 40, "mail": 8, "reply": 6}
"""How many times it happens before, at most."""

SENDERS: Final = 6
BATCH: Final = 10
PER_CONVERSATION: Final = 3
OWNERS: Final = ("jun", "kim", "navid")
"""Who in the built-in teams gets complaints about broken products, in English."""

EVERY_CASE_IS_TOLD: Final = "alerts: {most: 1000, minutes: 1, always: {events: [case.opened]}}"

PAST_EVERY_LEASE: Final = timedelta(minutes=2)

NURSERY: Final = """
import os, signal, sys
from rapport.standalone.cli import rapport

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if pid := os.fork():
        print(pid, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out, *arguments = line.rstrip().split("\\t")
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    rapport(arguments)
os.killpg(0, signal.SIGKILL)
"""
"""Bears a process for each line: where its output goes, and what `rapport` is told. It has loaded
the code once, which takes longer than a start, and leaves nobody behind."""


class Moment(NamedTuple):
    """When a process dies: as something happens for the `times`th time in its life."""

    what: str
    times: int


def moments() -> list[Moment]:
    """Return the seeded moments of death, in order."""
    random = Random(SEED)
    drawn = [
        Moment(what, random.randint(1, MOST[what]))
        for what, deaths in DEATHS.items()
        for _ in range(deaths)
    ]
    random.shuffle(drawn)
    return drawn


class Fate:
    """What decides when the process that lives now dies; nothing does until it is `bound`."""

    def __init__(self) -> None:
        self._moment: Moment | None = None
        self._seen = 0
        self._strike: Callable[[], None] = lambda: None

    def bind(self, moment: Moment, strike: Callable[[], None]) -> None:
        """Strike at this moment."""
        self._moment, self._seen, self._strike = moment, 0, strike

    def tell(self, what: str) -> None:
        """Note that something has happened once more."""
        if self._moment is not None and what == self._moment.what:
            self._seen += 1
            if self._seen == self._moment.times:
                self._moment = None
                self._strike()

    @property
    def has_struck(self) -> bool:
        """Whether the moment has come."""
        return self._moment is None


class Postbox:
    """A mail server that accepts everything, and tells fate before it tells the sender."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self.port = 0
        self.arrived: list[tuple[str, str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep what came: the notification's id and the recipient."""
        assert isinstance(envelope.content, bytes)
        id = str(message_from_bytes(envelope.content)["Message-ID"]).strip("<>").split("@")[0]
        self.arrived += [(id, to) for to in envelope.rcpt_tos]
        self._fate.tell("mail")
        return "250 2.0.0 kept"


@asynccontextmanager
async def postbox(fate: Fate) -> AsyncIterator[Postbox]:
    """Run a mail server while the block runs."""
    box = Postbox(fate)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, hostname="mail.example"), "127.0.0.1", 0
    )
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()


class Victim:
    """A process that runs the system."""

    def __init__(self, pid: int, data: Path, out: Path) -> None:
        self.data = data
        self._pid = pid
        self._out = out

    def kill(self) -> None:
        """kill -9; it must be alive."""
        os.kill(self._pid, signal.SIGKILL)

    async def opens(self) -> None:
        """Return when it has taken the data directory for itself."""
        lock = self.data / "bus.db.lock"
        await eventually(lambda: lock.read_text() == str(self._pid), "it never opens its data")

    async def address(self) -> str | None:
        """Return where it answers, once it does; None where it dies before."""
        await eventually(lambda: "\n" in self._said() or not self._lives(), "it never answers")
        said = self._said()
        return said.split()[3] if said.startswith("Rapport answers at ") else None

    async def gone(self) -> None:
        """Return when it is no more."""
        await eventually(lambda: not self._lives(), "it lives on")

    def _said(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def _lives(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True


class Nursery:
    """Brings forth processes that run the system on one data directory."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path) -> None:
        self._process = process
        self._data = data

    async def bear(self) -> Victim:
        """Start a process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out = self._data.with_name("out")
        out.unlink(missing_ok=True)
        line = (out, "up", "--data-dir", self._data, "--port", "0")
        self._process.stdin.write("\t".join(map(str, line)).encode() + b"\n")
        return Victim(int(await self._process.stdout.readline()), self._data, out)


@asynccontextmanager
async def nursery(data: Path, smtp_port: int, log: Path) -> AsyncIterator[Nursery]:
    """Have a nursery while the block runs; what its processes complain of goes to `log`."""
    environment = os.environ | {
        "RAPPORT_POLICY_DIR": str(_policy(data)),
        "RAPPORT_SMTP_HOST": "127.0.0.1",
        "RAPPORT_SMTP_PORT": str(smtp_port),
        "RAPPORT_SMTP_SECURITY": "none",
    }
    pipe = asyncio.subprocess.PIPE
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", NURSERY),
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    try:
        yield Nursery(process, data)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Clients:
    """Everybody who sends complaints or answers them, and what they were promised."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._random = Random(SEED)
        self._numbers = iter(range(1_000_000))
        self._unanswered: deque[list[Json]] = deque()
        self._unsure: deque[Json] = deque()
        self.sent: dict[str, Json] = {}
        self.accepted: dict[str, Json] = {}
        self.replies: dict[str, str] = {}

    async def work(self, rapport: Rapport) -> None:
        """Send and answer until nobody is there any more."""
        senders = [self._send_always(rapport) for _ in range(SENDERS)]
        await asyncio.gather(*senders, self._answer_always(rapport))

    async def finish(self, rapport: Rapport) -> None:
        """Send again what got no answer so far."""
        while self._unanswered:
            await self._send(rapport, self._unanswered.popleft())
        while self._unsure:
            await self._answer(rapport, self._unsure.popleft())

    async def _send_always(self, rapport: Rapport) -> None:
        while True:
            complaints = self._unanswered.popleft() if self._unanswered else self._complaints()
            try:
                await self._send(rapport, complaints)
            except httpx2.TransportError:
                self._unanswered.append(complaints)
                return

    async def _send(self, rapport: Rapport, complaints: list[Json]) -> None:
        if len(complaints) == 1:
            receipts = [await rapport.send(complaints[0])]
        else:
            path = "/intake/v1/feedback/batch"
            receipts = (await rapport.post(path, complaints, as_="web-shop"))["items"]
        for complaint, receipt in zip(complaints, receipts, strict=True):
            self.accepted[receipt["id"]] = {**complaint, **receipt}
        self._fate.tell("acknowledgement")

    async def _answer_always(self, rapport: Rapport) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            try:
                wish = self._unsure.popleft() if self._unsure else await self._wish(rapport)
                if wish is None:
                    continue
                try:
                    await self._answer(rapport, wish)
                except httpx2.TransportError:
                    self._unsure.append(wish)
                    raise
            except httpx2.TransportError:
                return

    async def _wish(self, rapport: Rapport) -> Json | None:
        """Choose a case that nobody has answered."""
        page = await rapport.get("/routing/v1/cases", state="open", limit=50)
        known = {*self.replies.values(), *(wish["case"] for wish in self._unsure)}
        cases = [case["id"] for case in page["items"] if case["id"] not in known]
        if not cases:
            return None
        case = self._random.choice(cases)
        return {"case": case, "key": f"answer-{case}"}

    async def _answer(self, rapport: Rapport, wish: Json) -> None:
        reply = await rapport.post(
            f"/routing/v1/cases/{wish['case']}/replies",
            {"text": "We are sorry. Your money is on its way."},
            as_="lin",
            headers={"Idempotency-Key": wish["key"]},
        )
        self.replies[reply["id"]] = wish["case"]
        self._fate.tell("reply")

    def _complaints(self) -> list[Json]:
        size = BATCH if self._random.random() < 0.1 else 1
        complaints = [_complaint(next(self._numbers)) for _ in range(size)]
        self.sent |= {complaint["source_ref"]: complaint for complaint in complaints}
        return complaints


def _complaint(number: int) -> Json:
    conversation = number // PER_CONVERSATION
    return {
        "kind": "complaint",
        "channel": "email",
        "source": "inbox",
        "source_ref": f"message-{number}",
        "thread_ref": f"conversation-{conversation}",
        "text": f"The kettle broke after {number} days. I want my money back.",
        "product": "kettle AK-300",
        "contact": {"email": f"person{conversation}@example.org"},
    }


async def prepare(data: Path, smtp_port: int) -> None:
    """Set an installation up in which every owner is told of a new case by e-mail."""
    async with _running(data, smtp_port) as (rapport, _):
        for owner in OWNERS:
            address = {"channel": "email", "to": f"{owner}@example.com"}
            record = {"side": "internal", "addresses": [address]}
            await rapport.put(f"/notification/v1/stakeholders/{owner}", record, as_="lin")
        wish = {"to": ["owner"], "events": ["case.opened"]}
        await rapport.put("/notification/v1/subscriptions/new-cases", wish, as_="lin")
        await rapport.settled()


def _policy(data: Path) -> Path:
    """Return policies by which owners are told of every case, however many there are."""
    limits = data.with_name("policy") / "notification" / "limits.yaml"
    limits.parent.mkdir(parents=True, exist_ok=True)
    limits.write_text(EVERY_CASE_IS_TOLD, "utf-8")
    return limits.parents[1]


@asynccontextmanager
async def _running(
    data: Path, smtp_port: int, later: timedelta = timedelta(0)
) -> AsyncIterator[tuple[Rapport, Bus]]:
    """Run the system here, with a clock that is so much later."""
    settings = {
        "policy_dir": _policy(data),
        "smtp_host": "127.0.0.1",
        "smtp_port": smtp_port,
        "smtp_security": "none",
    }
    clock = JumpingClock(datetime.now(UTC) + later)
    async with (
        system(data, port=0, clock=clock, settings=settings) as up,
        _client(up.url, data) as rapport,
    ):
        yield rapport, up.bus


def _client(url: str, data: Path) -> Rapport:
    signer = Signer.open(data / "keys")
    return Rapport(lambda: {name: [url] for name in SERVICES}, signer.mint)


async def live_and_die(victim: Victim, moment: Moment, fate: Fate, clients: Clients) -> None:
    """Let a process run until its moment comes."""
    if moment.what == "opening":
        await victim.opens()
        fate.tell("opening")
    elif (address := await victim.address()) is not None:
        async with _client(address, victim.data) as rapport:
            await clients.work(rapport)
    await victim.gone()
    assert fate.has_struck


async def test_nothing_accepted_is_lost_and_nothing_is_doubled(tmp_path: Path) -> None:
    data, log, fate = tmp_path / "data", tmp_path / "errors", Fate()
    clients = Clients(fate)
    async with postbox(fate) as box:
        async with nursery(data, box.port, log) as born:
            await prepare(data, box.port)
            for moment in moments():
                victim = await born.bear()
                fate.bind(moment, victim.kill)
                await live_and_die(victim, moment, fate, clients)

        async with _running(data, box.port, PAST_EVERY_LEASE) as (rapport, bus):
            await clients.finish(rapport)
            await rapport.settled()
            await check_messages(rapport, clients)
            cases = await check_cases(rapport, clients)
            notifications = await check_notifications(rapport, clients, cases)
            assert sum((await bus.ends([DEAD_LETTERS.name])).values()) == 0
    check_outboxes(data)
    twice = check_mail(box, notifications)
    assert "Traceback" not in log.read_text()
    print(
        f"{len(moments())} processes died; {len(clients.accepted)} messages and "
        f"{len(clients.replies)} answers were accepted; of {len(notifications)} mails {twice} came "
        "twice, for the process died between sending and knowing"
    )


async def check_messages(rapport: Rapport, clients: Clients) -> None:
    """Every message that was accepted has a case, the one of its conversation."""
    assert {item["source_ref"] for item in clients.accepted.values()} == clients.sent.keys()
    assert len(clients.accepted) == len(clients.sent)
    cases: dict[str, set[str]] = {}
    for item in clients.accepted.values():
        status = await rapport.status(item)
        assert status["state"] == "routed", status
        cases.setdefault(item["thread_ref"], set()).add(status["case_id"])
    assert {len(found) for found in cases.values()} == {1}
    assert await rapport.figure("feedback") == len(clients.sent)
    assert await rapport.figure("cases_opened") == len(cases)


async def check_cases(rapport: Rapport, clients: Clients) -> list[Json]:
    """Every conversation is one case, with each message and each answer once."""
    cases = await rapport.all("/routing/v1/cases")
    messages = Counter(item["thread_ref"] for item in clients.sent.values())
    assert len(cases) == len(messages)
    assert Counter(case["message_count"] for case in cases) == Counter(messages.values())
    answered = set(clients.replies.values())
    for listed in cases:
        path = f"/routing/v1/cases/{listed['id']}"
        case = await rapport.get(path)
        assert {name: case[name] for name in listed} == listed
        happened = Counter(entry["type"] for entry in await rapport.all(f"{path}/history"))
        assert happened["rapport.case.opened.v1"] == happened["rapport.clock.started.v1"] == 1
        assert happened["rapport.feedback.classified.v1"] == case["message_count"]
        is_answered = case["id"] in answered
        assert [reply["state"] for reply in case["replies"]] == ["delivered"] * is_answered
        assert {reply["id"] for reply in case["replies"]} <= clients.replies.keys()
        assert happened["rapport.clock.met.v1"] == is_answered
        assert case["clock"]["state"] == ("met" if is_answered else "running")
    return cases


async def check_notifications(
    rapport: Rapport, clients: Clients, cases: Sequence[Json]
) -> list[Json]:
    """Each owner was told of each case once, each person got each answer once."""
    notifications = await rapport.all("/notification/v1/notifications")
    assert {item["state"] for item in notifications} == {"delivered"}
    told = Counter((item["communication_id"], item["recipient"]) for item in notifications)
    assert set(told.values()) == {1}
    purposes = Counter(item["purpose"] for item in notifications)
    assert purposes == {"alert": len(cases), "reply": len(clients.replies)}
    alerts = {item["case_id"] for item in notifications if item["purpose"] == "alert"}
    assert alerts == {case["id"] for case in cases}
    interactions = await rapport.all("/notification/v1/interactions", as_="lin")
    on_record = Counter(item["notification_id"] for item in interactions)
    assert on_record == Counter(item["id"] for item in notifications)
    return notifications


def check_mail(box: Postbox, notifications: Sequence[Json]) -> int:
    """Every message arrived, and again only where its sending was interrupted; return how often."""
    arrived = Counter(id for id, _ in box.arrived)
    assert arrived.keys() == {item["id"] for item in notifications}
    attempts = {item["id"]: item["attempts"] for item in notifications}
    assert all(times <= attempts[id] for id, times in arrived.items())
    assert all(len({to for other, to in box.arrived if other == id}) == 1 for id in arrived)
    return sum(times > 1 for times in arrived.values())


def check_outboxes(data: Path) -> None:
    """Everything that was decided has been told."""
    for name in SERVICES:
        with closing(sqlite3.connect(data / f"{name}.db")) as store:
            [waiting] = store.execute('SELECT count(*) FROM "rapport:outbox"').fetchone()
        assert waiting == 0, name


def test_at_least_twenty_processes_die_each_at_a_moment_of_its_own() -> None:
    drawn = moments()
    assert len(drawn) >= 20
    assert drawn == moments()
    assert len(set(drawn)) > len(drawn) / 2
