"""The real servers of `make servers` and `make test`: what they promise a developer."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import AsyncMongoClient
from servers import Server, ServersError

SCRIPT = Path(servers.__file__)


@pytest.fixture(scope="module")
def kafka_binaries() -> Path:
    try:
        return servers.fetch_kafka()
    except ServersError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def mongodb_binaries() -> Path:
    try:
        return servers.fetch_mongodb()
    except ServersError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def folder(kafka_binaries: Path, mongodb_binaries: Path, tmp_path: Path) -> Iterator[Path]:
    """A developer's folder of servers, which has fetched them before."""
    (tmp_path / "fetched").symlink_to(kafka_binaries.parent)
    yield tmp_path
    for name in ("kafka", "mongodb"):
        servers.end(tmp_path / name, signal.SIGKILL)


@pytest.fixture
def broker(kafka_binaries: Path, tmp_path: Path) -> Iterator[Server]:
    broker = servers.kafka(tmp_path / "kafka", kafka_binaries)
    yield broker
    broker.kill()


@pytest.fixture
def store(mongodb_binaries: Path, tmp_path: Path) -> Iterator[Server]:
    store = servers.mongodb(tmp_path / "mongodb", mongodb_binaries)
    yield store
    store.kill()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def tell(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    return tell("start", "--folder", folder, "--kafka-port", "0", "--mongodb-port", "0")


def only(path: Path, *programs: str) -> str:
    """A PATH with these programs and no other."""
    for program in programs:
        real = shutil.which(program)
        if real is None:
            pytest.skip(f"there is no {program} here")
        (path / program).symlink_to(real)
    return str(path)


@pytest.mark.parametrize("kind", [servers.kafka, servers.mongodb])
def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    kind: Callable[[Path, Path, int], Server], tmp_path: Path
) -> None:
    with socket.create_server((servers.HOST, 0)) as other:
        port = other.getsockname()[1]
        server = kind(tmp_path, tmp_path, port)
        with pytest.raises(ServersError, match=rf"{port}.*RAPPORT_{server.name.upper()}_PORT"):
            server.start()


def test_without_java_the_start_says_what_to_install(tmp_path: Path) -> None:
    said = tell("start", "--folder", tmp_path, PATH=only(tmp_path))
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "no java on the PATH: install Java 17 or newer" in said.stderr


def test_a_java_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n", "utf-8")
    old.chmod(0o755)
    said = tell("start", "--folder", tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert said.returncode == 1
    assert 'newer Java than openjdk version "11.0.2" 2019-01-15: install Java 17' in said.stderr


def test_without_maven_the_start_says_what_to_install(tmp_path: Path) -> None:
    said = tell("start", "--folder", tmp_path, PATH=only(tmp_path, "java"))
    assert said.returncode == 1
    assert "no mvn on the PATH: install it" in said.stderr


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    said = tell("start", "--folder", tmp_path, RAPPORT_KAFKA_PORT="ninety")
    assert said.returncode == 2
    assert "'ninety' is not a port" in said.stderr


def test_start_twice_is_one_start_and_stop_ends_it(folder: Path) -> None:
    first = start(folder)
    assert first.returncode == 0, first.stderr
    kafka, mongodb = (servers.running(folder / name) for name in ("kafka", "mongodb"))
    assert kafka
    assert mongodb
    assert first.stdout.split("\n")[-3:-1] == [
        f"RAPPORT_BUS=kafka://127.0.0.1:{kafka[1]}",
        f"RAPPORT_STORE='mongodb://127.0.0.1:{mongodb[1]}"
        "/rapport?replicaSet=secantus&retryWrites=false'",
    ]

    again = start(folder)
    assert again.stdout.count("is already running") == 2
    assert again.stdout.split("\n")[-3:] == first.stdout.split("\n")[-3:]
    assert servers.running(folder / "kafka") == kafka
    assert servers.running(folder / "mongodb") == mongodb

    assert tell("stop", "--folder", folder).stdout == "Kafka stopped\nMongoDB stopped\n"
    assert [servers.birth(pid) for pid, _ in (kafka, mongodb)] == [None, None]
    assert servers.exchange(kafka[1], b"") == servers.exchange(mongodb[1], b"") == b""
    assert tell("stop", "--folder", folder).stdout.count("is not running") == 2


def test_stop_leaves_a_process_alone_that_only_has_the_number(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "pid").write_text(f"{bystander.pid} 9092 long ago\n", "utf-8")
    said = tell("stop", "--folder", tmp_path)
    assert said.stdout == "Kafka is not running\nMongoDB is not running\n"
    assert bystander.poll() is None


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_broker_that_comes_back_has_its_records(how: str, broker: Server) -> None:
    broker.start()
    address = broker.address
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("letters", num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait("letters", b"dear customer")
    await producer.stop()

    assert getattr(broker, how)()
    assert broker.start()

    assert broker.address == address
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition("letters", 0)])
    assert (await consumer.getone()).value == b"dear customer"
    await consumer.stop()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_store_that_comes_back_has_its_documents(how: str, store: Server) -> None:
    store.start()
    uri = f"mongodb://{store.address}/?{servers.MONGODB_OPTIONS}"
    async with AsyncMongoClient[dict[str, object]](uri) as client:
        await client.rapport.letters.insert_one({"_id": 1, "to": "customer"})

    assert getattr(store, how)()
    assert store.start()

    async with AsyncMongoClient[dict[str, object]](uri) as client:
        assert await client.rapport.letters.find_one() == {"_id": 1, "to": "customer"}


def test_a_server_that_runs_on_another_port_is_not_taken_for_the_one_asked_for(
    mongodb_binaries: Path, store: Server
) -> None:
    store.start()
    elsewhere = servers.free_port(store.port)
    other = servers.mongodb(store.folder, mongodb_binaries, elsewhere)
    with pytest.raises(
        ServersError, match=f"already running on port {store.port}, not {elsewhere}"
    ):
        other.start()
    assert servers.mongodb(store.folder, mongodb_binaries).start() is False


def test_a_server_that_does_not_come_up_says_why(store: Server) -> None:
    store.folder.mkdir()
    (store.folder / "secantusd.toml").write_text("this is no setting", "utf-8")
    with pytest.raises(ServersError, match=r"MongoDB ended before it answered: .*mongodb\.log"):
        store.start()
    assert servers.running(store.folder) is None


SHOW = (
    "import os; print(*(os.environ.get(n) for n in ('RAPPORT_TEST_KAFKA','RAPPORT_TEST_MONGODB')))"
)


def test_a_run_has_servers_of_its_own_and_leaves_nothing(folder: Path) -> None:
    said = tell(
        "run", "--folder", folder, "--", sys.executable, "-c", f"{SHOW}; raise SystemExit(3)"
    )
    assert said.returncode == 3, said.stderr
    kafka, mongodb = said.stdout.split()
    assert kafka.startswith("127.0.0.1:")
    assert mongodb.startswith("mongodb://127.0.0.1:")
    assert mongodb.endswith("/?replicaSet=secantus&retryWrites=false")
    assert servers.is_free(int(kafka.partition(":")[2]))
    assert list(folder.glob("run-*")) == []


def test_without_java_a_run_goes_on_without_kafka_and_says_so(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "programs"
    path.mkdir()
    said = tell(
        *("run", "--folder", folder, "--", sys.executable, "-c", SHOW),
        PATH=only(path),
        RAPPORT_TEST_KAFKA="127.0.0.1:9092",
    )
    assert said.returncode == 0
    kafka, mongodb = said.stdout.split()
    assert kafka == "None"
    assert mongodb.startswith("mongodb://")
    assert "!!!!!! SKIPPED: everything on a real Kafka. Kafka needs Java" in said.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_passes_a_signal_on_and_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    command = "trap 'echo told; exit 7' INT TERM; echo ready; read line"
    path = tmp_path / "programs"
    path.mkdir()
    with subprocess.Popen(
        [sys.executable, SCRIPT, "run", "--folder", servers.FOLDER, "--", "/bin/sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PATH": only(path)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"told\n"
        assert process.wait() == 7


def test_what_a_killed_run_left_behind_goes_with_the_next(
    mongodb_binaries: Path, tmp_path: Path
) -> None:
    killed = (
        "import os, servers; from pathlib import Path\n"
        f"with servers.fresh_data(Path({str(tmp_path)!r})) as data:\n"
        f"    servers.mongodb(data / 'mongodb', Path({str(mongodb_binaries)!r})).start()\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", killed], env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    )
    (left,) = tmp_path.glob("run-*")
    orphan = servers.running(left / "mongodb")
    assert orphan

    with servers.fresh_data(tmp_path) as data, servers.fresh_data(tmp_path) as beside:
        assert servers.birth(orphan[0]) is None
        assert set(tmp_path.glob("run-*")) == {data, beside}
    assert list(tmp_path.glob("run-*")) == []
