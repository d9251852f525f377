"""The real servers without Docker: one Kafka broker and one server of MongoDB's protocol.

Both are fetched once, into a folder that git ignores, and need no network afterwards. Each runs as
a process of its own on the loopback address, with data, log and process id in a folder of its own;
what is ended is exactly the process that was started, which its start time proves.

    servers.py start            start both for development, or say that they run already
    servers.py stop             end both, keep their data
    servers.py run -- COMMAND   run a command with both on free ports and fresh data
"""

import argparse
import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

HERE: Final = Path(__file__).resolve().parent
FOLDER: Final = HERE.parents[1] / ".servers"
HOST: Final = "127.0.0.1"
REPEATS_NOTHING: Final = "retryWrites=false"
"""For the URI of SecantusDB: it keeps 10,000 answers for writes that a driver may repeat and sorts
them at each write, so that 500 writes a second become 70 within minutes, and stay 700 without."""
MONGODB_OPTIONS: Final = f"replicaSet=secantus&{REPEATS_NOTHING}"
KAFKA_TEST: Final = "RAPPORT_TEST_KAFKA"
MONGODB_TEST: Final = "RAPPORT_TEST_MONGODB"

JAVA: Final = 17
READY_WITHIN: Final = 120.0
STOP_WITHIN: Final = 20.0
GONE_WITHIN: Final = 10.0
POLL: Final = 0.05
FREE_PORTS: Final = range(20_000, 32_000)  # below those the kernel gives to outgoing connections

_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_HELLO: Final = b"\x10hello\0" + struct.pack("<i", 1) + b"\x02$db\0\6\0\0\0admin\0"


class ServersError(Exception):
    """What is wrong and what to do about it, in one line."""


@dataclass(slots=True)
class Server:
    """One server: its process, and the folder it keeps its data in.

    It can be stopped or killed and started again on the same data and port. `prepare` makes the
    folder ready for a port and returns the command to run. `kafka` and `mongodb` make a server.
    """

    name: str
    folder: Path
    port: int
    answers: Callable[[int], bool]
    prepare: Callable[[int], Sequence[str]]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file it writes to."""
        return self.folder / f"{self.name.lower()}.log"

    def start(self) -> bool:
        """Start it and wait until it answers; False where it runs already.

        Raises ServersError where the port is taken, it runs on another, or it does not come up.
        """
        setting = f"RAPPORT_{self.name.upper()}_PORT"
        if found := running(self.folder):
            _, port = found
            if self.port not in (0, port):
                raise ServersError(
                    f"{self.name} is already running on port {port}, not {self.port}:"
                    f" stop it first, or set {setting}={port}"
                )
            self.port = port
            self._wait_until_ready()
            return False
        self.port = self.port or free_port()
        if not is_free(self.port):
            raise ServersError(
                f"port {self.port} for {self.name} is taken by another program:"
                f" choose another with {setting} or --{self.name.lower()}-port"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.prepare(self.port)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            record(self.folder, self.process.pid, self.port)
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return True

    def stop(self) -> bool:
        """End it in good order, by force after 20 seconds; False where it was not running."""
        return self._end(signal.SIGTERM)

    def kill(self) -> bool:
        """End it at once, as a crash would; False where it was not running."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> bool:
        ended = end(self.folder, how)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        return ended

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while running(self.folder):
            if self.answers(self.port):
                return
            if time.monotonic() > deadline:
                raise ServersError(
                    f"{self.name} did not answer on port {self.port} within {READY_WITHIN:.0f}"
                    f" seconds: {last_words(self.log)}"
                )
            time.sleep(POLL)
        raise ServersError(f"{self.name} ended before it answered: {last_words(self.log)}")


def kafka(
    folder: Path,
    binaries: Path,
    port: int = 0,
    *,
    settings: str = "",
    storage: Sequence[str] = (),
    answers: Callable[[int], bool] | None = None,
) -> Server:
    """A Kafka broker with its data in `folder`; port 0 picks a free one at the first start.

    `settings` go behind those of the template, `storage` to the tool that formats the data folder;
    a broker that does not speak in the clear needs its own way to tell whether it `answers`.
    """
    folder = folder.resolve()
    properties = folder / "server.properties"
    java = (
        *("java", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"),
        f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.properties'}",
        *("-cp", f"{binaries.resolve()}/*"),
    )

    def prepare(port: int) -> Sequence[str]:
        data = folder / "data"
        template = (HERE / "kafka" / "server.properties").read_text("utf-8")
        text = string.Template(template + settings).substitute(
            port=port, controller_port=free_port(port), data=data
        )
        properties.write_text(text, "utf-8")
        if not (data / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
            tool = (*java, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool")
            format = ("format", "-t", cluster, "-c", str(properties), *storage)
            call([*tool, *format], "Kafka has no storage")
        return (*java, "kafka.Kafka", str(properties))

    return Server("Kafka", folder, port, answers or kafka_answers, prepare)


def mongodb(folder: Path, binaries: Path, port: int = 0) -> Server:
    """A server of MongoDB's protocol with its data in `folder`; port 0 picks a free one.

    What it has acknowledged survives a kill.
    """
    folder = folder.resolve()
    settings = folder / "secantusd.toml"

    def prepare(port: int) -> Sequence[str]:
        settings.touch()  # without it the one in the home folder counts
        return (
            *(f"{binaries.resolve()}/bin/python", "-m", "secantus", "--config", str(settings)),
            *("--host", HOST, "--port", str(port), "--storage-path", str(folder / "data")),
            *("--log-level", "WARNING", "--cache-size", "256M", "--sync-on-commit"),
        )

    return Server("MongoDB", folder, port, mongodb_answers, prepare)


def kafka_answers(port: int) -> bool:
    """Tell whether a broker lists its API versions, which it does once it takes requests."""
    answer = exchange(port, _API_VERSIONS)
    return len(answer) > 10 and struct.unpack(">ih", answer[4:10]) == (1, 0)


def mongodb_answers(port: int) -> bool:
    """Tell whether a server of MongoDB's protocol says hello and takes writes."""
    document = struct.pack("<i", len(_HELLO) + 5) + _HELLO + b"\0"
    header = struct.pack("<iiiiIb", 21 + len(document), 1, 0, 2013, 0, 0)
    return b"isWritablePrimary\0\1" in exchange(port, header + document)


def exchange(port: int, request: bytes) -> bytes:
    """Send a request and return the beginning of the answer, or nothing."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(request)
            return connection.recv(65_536)
    except OSError:
        return b""


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(*taken: int) -> int:
    """A port nobody listens on, nor gets by chance before a server does."""
    chance = random.SystemRandom()
    while (port := chance.choice(FREE_PORTS)) in taken or not is_free(port):
        pass
    return port


def record(folder: Path, pid: int, port: int) -> None:
    """Note which process serves this folder."""
    (folder / "pid").write_text(f"{pid} {port} {birth(pid)}\n", "utf-8")


def running(folder: Path) -> tuple[int, int] | None:
    """Process id and port of the server of this folder, or None where it does not run."""
    try:
        pid, port, born = (folder / "pid").read_text("utf-8").strip().split(" ", 2)
        return (int(pid), int(port)) if birth(int(pid)) == born else None
    except (FileNotFoundError, ValueError):
        return None


def birth(pid: int) -> str | None:
    """When a process started, which tells it from a later one with its number; None once ended."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    asked = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
    )
    state, _, born = asked.stdout.strip().partition(" ")
    return None if state[:1] in ("", "Z") else " ".join(born.split())


def end(folder: Path, how: signal.Signals) -> bool:
    """End the server of this folder and wait until it is gone; False where none ran."""
    found = running(folder)
    if found:
        pid, _ = found
        _signal(pid, how)
        if not _is_gone(folder, STOP_WITHIN if how == signal.SIGTERM else GONE_WITHIN):
            _signal(pid, signal.SIGKILL)
            if not _is_gone(folder, GONE_WITHIN):
                raise ServersError(f"process {pid} does not end, not even by force")
    (folder / "pid").unlink(missing_ok=True)
    return found is not None


def _signal(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)


def _is_gone(folder: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while running(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def last_words(log: Path) -> str:
    """The last complaint in a log, or its last line, and where to read the rest."""
    lines = log.read_text("utf-8", "replace").split("\n") if log.exists() else []
    written = [line.strip() for line in lines if line.strip()]
    complaints = [line for line in written if re.search(r"^(?!at ).*(ERROR|FATAL|Exception)", line)]
    said = (complaints or written or ["it wrote nothing"])[-1]
    return f"{said} (see {log})"


def fetch_kafka(folder: Path = FOLDER) -> Path:
    """Fetch Kafka's jars with Maven unless they are there, and return the folder they are in.

    Raises ServersError where Java 17 or Maven is missing, or Maven cannot fetch.
    """
    need_java()
    pom = HERE / "kafka" / "pom.xml"

    def fetch(target: Path) -> None:
        if shutil.which("mvn") is None:
            raise ServersError(
                "Kafka is fetched with Maven and there is no mvn on the PATH:"
                " install it, for example with apt-get install maven"
            )
        print("Fetching Kafka with Maven, 43 MB, once ...", file=sys.stderr, flush=True)
        maven = ("mvn", "--batch-mode", "--quiet", "--file", str(pom))
        call(
            [*maven, "dependency:copy-dependencies", f"-DoutputDirectory={target}"],
            "Maven could not fetch Kafka",
        )

    return fetched(folder, "kafka", pom.read_bytes(), fetch)


def fetch_mongodb(folder: Path = FOLDER) -> Path:
    """Install the server of MongoDB's protocol in a venv unless it is there; return the venv.

    Raises ServersError where pip cannot fetch it.
    """
    requirements = HERE / "mongodb-requirements.txt"
    base = f"{sys.version_info.major}.{sys.version_info.minor} {sys.base_prefix}"

    def fetch(target: Path) -> None:
        print("Fetching a server of MongoDB's protocol with pip, once ...", file=sys.stderr)
        problem = "pip could not fetch the server of MongoDB's protocol"
        call([sys.executable, "-m", "venv", str(target)], problem)
        pip = (f"{target}/bin/python", "-m", "pip", "install", "--disable-pip-version-check")
        exact = ("--require-hashes", "--only-binary", ":all:")
        call([*pip, "--quiet", *exact, "--requirement", str(requirements)], problem)

    return fetched(folder, "mongodb", requirements.read_bytes() + base.encode(), fetch)


def fetched(folder: Path, name: str, wanted: bytes, fetch: Callable[[Path], None]) -> Path:
    """The folder with what is wanted, fetched by whoever comes first; the others wait for it."""
    target = folder.resolve() / "fetched" / f"{name}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    complete = target / "complete"
    if complete.exists():
        return target
    with only_one(folder / "fetch.lock"):
        if not complete.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            fetch(target)
            complete.touch()
    return target


def need_java() -> None:
    """Raise ServersError unless a Java that Kafka runs on is on the PATH."""
    get = f"install Java {JAVA} or newer, for example with apt-get install openjdk-17-jre-headless"
    if shutil.which("java") is None:
        raise ServersError(f"Kafka needs Java and there is no java on the PATH: {get}")
    told = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA:
        found = told.partition("\n")[0] or "one that tells no version"
        raise ServersError(f"Kafka needs a newer Java than {found}: {get}")


def call(command: Sequence[str], problem: str) -> None:
    """Run a tool to its end; raises ServersError with its first complaint where it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = (done.stderr + done.stdout).split("\n")
        said = [line for line in lines if "ERROR" in line] or [line for line in lines if line]
        raise ServersError(f"{problem}: {said[0].strip() if said else 'it says no reason'}")


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that only one process at a time can hold; says so where it has to wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another program that holds {lock} ...", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(folder: Path, kafka_port: int, mongodb_port: int) -> None:
    """Start both servers, or find them running, and print the settings that reach them."""
    broker = kafka(folder / "kafka", fetch_kafka(folder), kafka_port)
    store = mongodb(folder / "mongodb", fetch_mongodb(folder), mongodb_port)
    with only_one(folder / "servers.lock"):
        for server in (broker, store):
            state = "started" if server.start() else "is already running"
            print(f"{server.name} {state} on {server.address}, log in {server.log}")
    print(f"RAPPORT_BUS=kafka://{broker.address}")
    print(f"RAPPORT_STORE='mongodb://{store.address}/rapport?{MONGODB_OPTIONS}'")


def stop(folder: Path) -> None:
    """End what `start` started in this folder, and nothing else."""
    with only_one(folder / "servers.lock"):
        for name in ("Kafka", "MongoDB"):
            state = "stopped" if end(folder / name.lower(), signal.SIGTERM) else "is not running"
            print(f"{name} {state}")


def run(folder: Path, command: Sequence[str]) -> int:
    """Run a command with both servers on free ports and fresh data; return its exit status.

    A server that cannot be fetched is left out, loudly, and with it its variable. One that was
    fetched and does not start is an error. The servers and their data are gone afterwards.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in (KAFKA_TEST, MONGODB_TEST)
    }
    on_signal(_leave)
    with fresh_data(folder) as data:
        try:
            if binaries := or_loudly("Kafka", fetch_kafka, folder):
                broker = kafka(data / "kafka", binaries)
                broker.start()
                environment[KAFKA_TEST] = broker.address
            if binaries := or_loudly("MongoDB", fetch_mongodb, folder):
                store = mongodb(data / "mongodb", binaries)
                store.start()
                environment[MONGODB_TEST] = f"mongodb://{store.address}/?{MONGODB_OPTIONS}"
            return execute(command, environment)
        finally:
            on_signal(signal.SIG_IGN)


@contextmanager
def fresh_data(folder: Path) -> Iterator[Path]:
    """A folder for one run, gone afterwards with the servers in it.

    What a run that was killed has left behind goes with the next one: nobody holds its lock.
    """
    with only_one(folder / "runs.lock"):
        for left in folder.glob("run-*"):
            with suppress(BlockingIOError, FileNotFoundError), (left / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                clear(left)
        data = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
        lock = (data / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield data
        finally:
            clear(data)


def clear(data: Path) -> None:
    """End the servers of a run and remove its folder."""
    for name in ("kafka", "mongodb"):
        end(data / name, signal.SIGKILL)
    shutil.rmtree(data, ignore_errors=True)


def or_loudly(name: str, fetch: Callable[[Path], Path], folder: Path) -> Path | None:
    """What was fetched, or None after a line that nobody overlooks."""
    try:
        return fetch(folder)
    except ServersError as error:
        print(
            f"\n!!!!!! SKIPPED: everything on a real {name}. {error} !!!!!!\n",
            file=sys.stderr,
            flush=True,
        )
        return None


def execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command, pass SIGINT and SIGTERM on to it, and return its status as a shell would."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        # A terminal sends Ctrl-C to the command by itself; a second one would break its clean-up.
        elif not (number == signal.SIGINT and _is_in_foreground()):
            process.send_signal(number)

    on_signal(pass_on)
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise ServersError(f"{command[0]} cannot be run: {error.strerror}") from error
    for number in early:
        process.send_signal(number)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def on_signal(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Handle SIGINT and SIGTERM alike."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def port_number(text: str) -> int:
    """Read a port number."""
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 (a free one) to 65535")
    return int(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; the environment gives the ports that it does not."""
    parser = argparse.ArgumentParser(prog="servers.py", description="Real servers without Docker.")
    parts = parser.add_subparsers(dest="action", required=True)
    for action, does in (
        ("start", "start both, or say that they run already"),
        ("stop", "end what start started"),
        ("run", "run a command with both, on free ports and fresh data"),
    ):
        part = parts.add_parser(action, help=does)
        part.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
        if action == "start":
            for name, usual in (("kafka", "9092"), ("mongodb", "27017")):
                default = os.environ.get(f"RAPPORT_{name.upper()}_PORT") or usual
                part.add_argument(
                    f"--{name}-port", type=port_number, default=default, help="0: any free one"
                )
        if action == "run":
            part.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    given = parse(arguments)
    try:
        if given.action == "run":
            command = given.command[1:] if given.command[:1] == ["--"] else given.command
            if not command:
                raise ServersError("say what to run: servers.py run -- COMMAND")
            return run(given.folder, command)
        if given.action == "start":
            start(given.folder, given.kafka_port, given.mongodb_port)
        else:
            stop(given.folder)
    except ServersError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
