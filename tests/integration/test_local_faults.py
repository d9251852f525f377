"""The machine that the embedded system runs on: its disk, its clock, and copies of its data.

A disk gets full or read-only, a clock is put forward and back, data come back from a copy. What was
answered 202 is never lost, what cannot be taken is answered 503 in time, and once the machine is
well again everything goes on by itself. The disks here are real ones, small, mounted for the test.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from rapport.common.auth import Signer
from rapport.common.clock import Clock, SystemClock
from rapport.common.errors import Conflict, NotFound, PermanentError
from rapport.common.events import decode
from rapport.common.events.topics import CASES, DEAD_LETTERS
from rapport.standalone.data_files import copy_files
from rapport.standalone.demo.receivers import MailServer
from rapport.standalone.system import SERVICES, system

from .clients import Rapport, eventually
from .conftest import Installation
from .test_processes import Customers

MIB: Final = 1024 * 1024
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
OWNERS: Final = ("jun", "kim", "navid")
ONE: Final = {"kind": "question", "channel": "web", "text": "Are you there?"}


class Disk:
    """A small disk of its own, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, but: int = 0) -> None:
        """Leave no room, or so many bytes."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))
        os.truncate(self._filler, self._filler.stat().st_size - but)

    def clear(self) -> None:
        """Make room again."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.path / "filler"


def run_or_skip(*command: object) -> None:
    """Run a command that needs rights and devices which not every machine has."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not allow it: {' '.join(map(str, command))}: {done.stderr}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 32 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    run_or_skip("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", path)
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB with a file system that becomes read-only when its device fails."""
    image, path = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    path.mkdir()
    run_or_skip("mkfs.ext4", "-q", image)
    run_or_skip("mount", "-o", "loop,errors=remount-ro", image, path)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fail(path: Path) -> None:
    """Let the device of the file system at `path` fail."""
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    switch = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
    switch.write_text("1")


@asynccontextmanager
async def installed(
    data: Path, settings: Mapping[str, Any], clock: Clock | None = None
) -> AsyncIterator[Installation]:
    """Run an installation on `data` while the block runs."""
    installation = Installation(lambda: system(data, port=0, clock=clock, settings=settings))
    await installation.start()
    try:
        yield installation
    finally:
        await installation.stop()


async def missing(installation: Installation) -> dict[str, str]:
    """Return what /readyz says is missing, nothing where it is ready."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{installation.up.urls['intake']}/readyz")
    found: dict[str, str] = answer.json()["missing"]
    assert answer.status_code == (503 if found else 200)
    return found


def refused(answer: httpx2.Response) -> None:
    """Nothing can be taken in: the sender is told so, and when to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert "bus.db" not in answer.json()["detail"]


async def check(rapport: Rapport, bus_of: Installation, customers: Customers) -> None:
    """Everything that was sent is accepted at last and has its effects, each once; none is lost."""
    await customers.insist()
    await rapport.settled()
    conversations: defaultdict[str, set[str]] = defaultdict(set)
    for item in customers.accepted.values():
        status = await rapport.status(item)
        assert status["state"] == "routed", status
        conversations[item["thread_ref"]].add(status["case_id"])
    assert {len(found) for found in conversations.values()} == {1}
    cases = await rapport.all("/routing/v1/cases")
    assert {case["id"] for case in cases} == set().union(*conversations.values())
    messages = Counter(item["thread_ref"] for item in customers.accepted.values())
    assert Counter(case["message_count"] for case in cases) == Counter(messages.values())
    assert await figure(rapport, "feedback") == len(customers.accepted)
    assert await figure(rapport, "cases_opened") == len(cases)
    assert sum((await bus_of.up.bus.ends([DEAD_LETTERS.name])).values()) == 0


async def figure(rapport: Rapport, name: str) -> float:
    """Return a figure of today and its neighbours, as far as clocks may jump."""
    now = datetime.now(UTC)
    days = {"from": (now - DAY).isoformat(), "to": (now + DAY).isoformat()}
    [period] = (await rapport.get("/analytics/v1/kpis", **days))["items"]
    [value] = [kpi["value"] for kpi in period["kpis"] if kpi["name"] == name]
    return float(value or 0)


# A full disk


async def test_a_full_disk_is_told_and_waited_out(
    disk: Disk, outside_settings: Mapping[str, Any]
) -> None:
    async with installed(disk.path / "data", outside_settings) as installation:
        rapport, customers = installation.client, Customers(installation.client)
        async with customers.complaining():
            await customers.more(20)
            disk.fill(but=256 * 1024)
            await eventually(lambda: customers.answers[503] >= 20, "the disk never gets full")
        assert customers.answers.keys() == {202, 503}

        disk.fill()
        last = await rapport.until(  # files may have room that they were given before
            customers.complain, lambda answer: answer.status_code == 503, "it still takes some"
        )
        refused(last)
        told = await missing(installation)
        full = {name for name, why in told.items() if why.startswith("the disk is full")}
        assert full == {f"{name}.{part}" for name in SERVICES for part in ("bus", "store")}
        assert (await rapport.call("GET", "/routing/v1/cases")).status_code == 200

        disk.clear()
        await rapport.until(
            lambda: missing(installation), lambda told: not told, "it is not ready again"
        )
        async with customers.complaining():
            await customers.more(20)
        await check(rapport, installation, customers)


async def test_what_was_taken_in_waits_for_the_stores_and_is_not_given_up(
    disk: Disk, tmp_path: Path, outside_settings: Mapping[str, Any]
) -> None:
    """The log has a disk of its own, with room."""
    settings = {**outside_settings, "bus": f"embedded:{tmp_path / 'log' / 'bus.db'}"}
    async with installed(disk.path / "data", settings) as installation:
        rapport, customers = installation.client, Customers(installation.client)
        async with customers.complaining():
            await customers.more(8)
        await rapport.settled()
        disk.fill()
        async with customers.complaining():
            await customers.more(100)
            await rapport.until(
                lambda: rapport.metric("rapport_batches_retried_total", service="routing"),
                bool,
                "there is still room",
            )
        assert customers.answers.keys() == {202}
        assert (await missing(installation)).keys() == {f"{name}.store" for name in SERVICES}

        disk.clear()
        await check(rapport, installation, customers)


async def test_how_far_groups_are_is_kept_by_itself_once_there_is_room(
    disk: Disk, outside_settings: Mapping[str, Any]
) -> None:
    async with installed(disk.path / "data", outside_settings) as installation:
        customers = Customers(installation.client)
        async with customers.complaining():
            await customers.more(20)
            disk.fill()
            await eventually(lambda: customers.answers[503] >= 1, "the disk never gets full")
        disk.clear()
        await check(installation.client, installation, customers)
        before = await installation.client.metric("rapport_events_handled_total")
        rapport = await installation.restart()
        await rapport.settled()
        assert await rapport.metric("rapport_events_handled_total") == before


# Logs


@asynccontextmanager
async def process(data: Path, log: Path, **settings: object) -> AsyncIterator[str]:
    """Run `rapport up` as a process that logs into a file; gives its address."""
    environment = {f"RAPPORT_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("ab") as errors:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rapport.standalone", "up"),
            *("--data-dir", str(data), "--port", "0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | environment,
        )
    assert started.stdout is not None
    try:
        said = (await started.stdout.readline()).decode()
        assert said.startswith("Rapport answers at "), said
        yield said.split()[3]
    finally:
        started.terminate()
        await started.communicate()
    assert started.returncode == 0


def client_of(url: str, data: Path) -> Rapport:
    """Return a client of a process."""
    return Rapport(lambda: {name: [url] for name in SERVICES}, Signer.open(data / "keys").mint)


@pytest.fixture(params=["full from the start", "full for a while"])
def log_disk(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Disk | None]:
    """A file that logs go to, and the disk that it is on."""
    if request.param == "full from the start":
        return Path("/dev/full"), None
    disk: Disk = request.getfixturevalue("disk")
    return disk.path / "log", disk


async def test_logs_that_find_no_room_stop_nobody(
    tmp_path: Path, log_disk: tuple[Path, Disk | None], outside_settings: Mapping[str, Any]
) -> None:
    log, disk = log_disk
    if disk is not None:
        disk.fill()
    smtp = {name: value for name, value in outside_settings.items() if name.startswith("smtp")}
    data = tmp_path / "data"
    async with (
        process(data, log, log_level="DEBUG", **smtp) as url,
        client_of(url, data) as rapport,
    ):
        customers = Customers(rapport)
        async with customers.complaining():
            await customers.more(20)
            if disk is not None:
                disk.clear()
                await customers.more(20)
        assert customers.answers.keys() == {202}
        await rapport.settled()
        assert await rapport.figure("feedback") == len(customers.accepted)
    if disk is not None:
        assert '"event"' in log.read_text(errors="replace")


# A read-only disk


@pytest.mark.parametrize("there_is_one", [True, False])
async def test_a_read_only_data_directory_is_named_when_the_start_is_refused(
    disk: Disk, outside_settings: Mapping[str, Any], there_is_one: bool
) -> None:
    data = disk.path / "data"
    if there_is_one:
        async with installed(data, outside_settings):
            pass
    run_or_skip("mount", "-o", "remount,ro", disk.path)
    refusal = await up(data)
    assert refusal.startswith("Error: ")
    assert str(data) in refusal
    assert "Read-only file system" in refusal


async def test_a_full_disk_is_named_when_the_start_is_refused(disk: Disk) -> None:
    disk.fill()
    refusal = await up(disk.path / "data")
    assert str(disk.path / "data") in refusal
    assert "No space left on device" in refusal


async def up(data: Path) -> str:
    """Return what `rapport up` says, which cannot start."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rapport.standalone", "up", "--data-dir", str(data)),
        *("--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await started.communicate()
    assert started.returncode == 1, said
    assert b"Traceback" not in said
    return said.decode()


async def test_a_disk_that_becomes_read_only_loses_nothing(
    failing_disk: Path, tmp_path: Path, outside_settings: Mapping[str, Any]
) -> None:
    data = failing_disk / "data"
    async with installed(data, outside_settings) as installation:
        rapport, customers = installation.client, Customers(installation.client)
        async with customers.complaining():
            await customers.more(20)
            fail(failing_disk)
            await eventually(lambda: customers.answers[503] >= 1, "it still takes everything")
        assert customers.answers.keys() == {202, 503}
        refused(await customers.complain())
        told = await missing(installation)
        assert told["intake.bus"] == told["routing.store"]
        assert told["intake.bus"].endswith("Read-only file system")
        assert (await rapport.call("GET", "/routing/v1/cases")).status_code == 200

    mended = tmp_path / "mended"
    shutil.copytree(data, mended)
    async with installed(mended, outside_settings) as installation:
        customers.rapport = rapport = installation.client
        async with customers.complaining():
            await customers.more(20)
        await check(rapport, installation, customers)


# Copies


async def test_a_copy_of_a_stopped_installation_goes_on_where_it_was(
    tmp_path: Path, outside_settings: Mapping[str, Any], mail: MailServer
) -> None:
    async with installed(tmp_path / "data", outside_settings) as installation:
        await tell_owners(installation.client)
        customers = Customers(installation.client)
        async with customers.complaining():
            await customers.more(20)
        await installation.client.settled()
    arrived = len(mail.arrived)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    async with installed(tmp_path / "copy", outside_settings) as installation:
        await check(installation.client, installation, customers)
        assert len(mail.arrived) == arrived


async def test_a_copy_of_a_running_installation_is_of_one_moment(
    tmp_path: Path, outside_settings: Mapping[str, Any], mail: MailServer
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with installed(data, outside_settings) as installation:
        await tell_owners(installation.client)
        customers = Customers(installation.client)
        async with customers.complaining():
            await customers.more(40)
            before = dict(customers.accepted)
            await backup(data, copy)
            await customers.more(20)
        await check(installation.client, installation, customers)

    async with installed(copy, outside_settings) as installation:
        rapport = installation.client
        await rapport.settled()
        known = await in_copy(rapport, customers)
        assert before.keys() <= known.keys() <= customers.accepted.keys()

        customers.rapport, customers.accepted = rapport, known
        async with customers.complaining():
            await customers.more(20)
        await check(rapport, installation, customers)
        await check_sequences(installation)
    delivered = await told_twice(mail)
    assert delivered <= {1, 2}


async def tell_owners(rapport: Rapport) -> None:
    """Let every owner be told of a new case by e-mail."""
    for owner in OWNERS:
        address = {"channel": "email", "to": f"{owner}@example.com"}
        record = {"side": "internal", "addresses": [address]}
        await rapport.put(f"/notification/v1/stakeholders/{owner}", record, as_="lin")
    wish = {"to": ["owner"], "events": ["case.opened"]}
    await rapport.put("/notification/v1/subscriptions/new-cases", wish, as_="lin")


async def told_twice(mail: MailServer) -> set[int]:
    """Return how often messages have arrived."""
    return set(Counter(item.id for item in mail.arrived).values())


async def in_copy(rapport: Rapport, customers: Customers) -> dict[str, Any]:
    """Return the messages that the copy knows, all of which it has handled."""
    known = {}
    for ref, item in customers.accepted.items():
        status = await rapport.status(item)
        if status["state"] != "pending":
            assert status["state"] == "routed", status
            known[ref] = item
    return known


async def backup(data: Path, target: Path) -> None:
    """Copy an installation as another process does."""
    command = (sys.executable, "-m", "rapport.standalone", "backup", target, "--data-dir", data)
    done = await asyncio.create_subprocess_exec(*map(str, command))
    assert await done.wait() == 0


async def check_sequences(installation: Installation) -> None:
    """No aggregate's version ever falls, in what it has told; it may have told something twice."""
    bus = installation.up.bus
    last: dict[str, str] = {}
    told: set[str] = set()
    starts = {place: start - 1 for place, start in (await bus.starts([CASES.name])).items()}
    ends = await bus.ends([CASES.name])
    async with aclosing(bus.tail([CASES.name], starts, until=ends)) as tail:
        async for records in tail:
            for event in map(decode, records):
                assert event is not None
                assert event.sequence is not None
                if event.id in told:
                    continue
                told.add(event.id)
                assert event.sequence > last.get(event.subject, ""), event.type
                last[event.subject] = event.sequence
    assert last


async def test_files_of_different_copies_are_not_taken_for_one_installation(
    tmp_path: Path, outside_settings: Mapping[str, Any]
) -> None:
    data = tmp_path / "data"
    async with installed(data, outside_settings):
        pass
    for name in ("first", "second"):
        copy_files(data, tmp_path / name, SERVICES)
    with pytest.raises(Conflict):
        copy_files(data, tmp_path / "first", SERVICES)
    with pytest.raises(NotFound):
        copy_files(tmp_path / "nowhere", tmp_path / "third", SERVICES)

    shutil.copy(tmp_path / "first" / "routing.db", tmp_path / "second" / "routing.db")
    with pytest.raises(PermanentError, match=r"second: routing\.db and bus\.db are of different"):
        await begun(tmp_path / "second", outside_settings)
    (tmp_path / "second" / "routing.db").unlink()
    with pytest.raises(PermanentError, match=r"routing\.db is missing beside the bus\.db"):
        await begun(tmp_path / "second", outside_settings)
    (tmp_path / "first" / "bus.db").unlink()
    with pytest.raises(PermanentError, match=r"bus\.db is missing beside the stores"):
        await begun(tmp_path / "first", outside_settings)


async def begun(data: Path, settings: Mapping[str, Any]) -> None:
    """Start on `data`, and stop."""
    async with installed(data, settings):
        pass


async def test_a_restored_copy_takes_in_the_store_of_a_new_service_and_starts_again(
    tmp_path: Path, outside_settings: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, copies = tmp_path / "data", [tmp_path / "first", tmp_path / "second"]
    with monkeypatch.context() as before_there_was_analytics:
        before_there_was_analytics.delitem(SERVICES, "analytics")
        await begun(data, outside_settings)
        for copy in copies:
            copy_files(data, copy, SERVICES)

    for copy in copies:
        await begun(copy, outside_settings)
        await begun(copy, outside_settings)
    shutil.copy(copies[0] / "analytics.db", copies[1] / "analytics.db")
    with pytest.raises(PermanentError, match=r"second: analytics\.db and bus\.db are of different"):
        await begun(copies[1], outside_settings)


async def test_a_copied_directory_belongs_to_one_process_and_so_does_its_original(
    tmp_path: Path, outside_settings: Mapping[str, Any]
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with installed(data, outside_settings) as original:
        await original.client.send(ONE)
        await original.client.settled()
        await backup(data, copy)
        shutil.copy(data / "bus.db.lock", copy / "bus.db.lock")
        async with installed(copy, outside_settings) as other:
            await other.client.send(ONE)
            assert f"bus.db is in use by process {os.getpid()}" in await up(copy)
            assert f"bus.db is in use by process {os.getpid()}" in await up(data)


# The clock


class Unsteady(SystemClock):
    """The machine's clock, put forward and back by whoever sets it."""

    def __init__(self) -> None:
        self.off = timedelta()

    def now(self) -> datetime:
        """Return the machine's time, as far off as it is."""
        return datetime.now(UTC) + self.off


@pytest.mark.parametrize("jumps", [(HOUR, -HOUR), (-HOUR, HOUR)], ids=["forward", "back"])
async def test_a_clock_that_jumps_an_hour_and_back_makes_nothing_wait_or_happen_twice(
    tmp_path: Path,
    outside_settings: Mapping[str, Any],
    mail: MailServer,
    jumps: Sequence[timedelta],
) -> None:
    clock = Unsteady()
    async with installed(tmp_path / "data", outside_settings, clock) as installation:
        rapport, customers = installation.client, Customers(installation.client)
        await tell_owners(rapport)
        async with customers.complaining():
            for jump in jumps:
                await customers.more(10)
                clock.off += jump
            await customers.more(10)
        assert customers.answers.keys() == {202}
        await check(rapport, installation, customers)
        await check_sequences(installation)
        assert await told_twice(mail) == {1}
        await check_clocks(rapport)


async def check_clocks(rapport: Rapport) -> None:
    """Every case has one clock, and no step of it came twice."""
    for case in await rapport.all("/routing/v1/cases"):
        history = await rapport.all(f"/routing/v1/cases/{case['id']}/history")
        happened = Counter(entry["type"] for entry in history)
        assert happened["rapport.clock.started.v1"] == 1
        assert happened["rapport.clock.warned.v1"] <= 1
        assert happened["rapport.clock.breached.v1"] <= 1
