"""Images, compose and what observes them, checked as far as it goes without a container engine.

Every validator that exists for a file reads it. What is not installed here is skipped by name:
promtool is in Debian's `prometheus`, otelcol and docker compose are their projects' own.
"""

import ast
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client import Counter, Gauge, Histogram

from rapport.common import telemetry
from rapport.common.settings import PREFIX, Settings
from rapport.standalone.openapi import document
from rapport.standalone.system import SERVICES

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy" / "compose"
PROMETHEUS: Final = DEPLOY / "prometheus"
PORTS: Final = {name: port for port, name in enumerate(SERVICES, 8101)}
BUILT: Final = (*SERVICES, "topics")
WITHOUT_SHELL: Final = {"collector"}
"""Images that hold nothing that a health check could be made with."""

Json = dict[str, Any]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


COMPOSE: Final[Json] = read(ROOT / "docker-compose.yml")
CONTAINERS: Final[dict[str, Json]] = COMPOSE["services"]


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a validator; what it says is the failure."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def validator(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(name) is None, reason=f"NOT CHECKED: {name} is not installed"
    )


def has_compose() -> bool:
    try:
        return not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    except OSError:
        return False


# --- compose ---


def test_the_compose_file_keeps_to_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text("utf-8"))
    checker = jsonschema.Draft202012Validator(schema)
    assert [f"{error.json_path}: {error.message}" for error in checker.iter_errors(COMPOSE)] == []


@pytest.mark.skipif(not has_compose(), reason="NOT CHECKED: docker compose is not installed")
def test_compose_itself_accepts_the_file() -> None:
    run("docker", "compose", "config", "--quiet")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_may_do_little_and_is_pinned(name: str) -> None:
    container = CONTAINERS[name]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in container
    assert "privileged" not in container
    if "build" not in container:
        assert re.search(r":v?\d+\.\d+", container["image"]), "a version, not what is latest"


@pytest.mark.parametrize("name", [*BUILT, "gateway"])
def test_what_is_ours_has_a_plain_user_and_writes_nowhere(name: str) -> None:
    container = CONTAINERS[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", container["user"])
    assert container["read_only"]
    assert container["tmpfs"] == ["/tmp"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_published_is_published_to_this_machine_alone(name: str) -> None:
    ports = CONTAINERS[name].get("ports", [])
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    if ports:  # what has no way out cannot be published
        assert "outside" in CONTAINERS[name]["networks"]
    assert COMPOSE["networks"]["inside"]["internal"]


def test_nothing_of_a_service_is_published_but_the_gateway() -> None:
    assert [name for name in BUILT if "ports" in CONTAINERS[name]] == []


@pytest.mark.parametrize("name", CONTAINERS)
def test_who_waits_for_another_waits_for_something_that_will_be(name: str) -> None:
    needs = CONTAINERS[name].get("depends_on", {})
    for other, need in needs.items():
        waited_for = CONTAINERS[other]
        if need["condition"] == "service_healthy":
            assert "test" in waited_for["healthcheck"]
        else:
            assert need["condition"] == "service_completed_successfully"
            assert waited_for["restart"] == "no"


def test_every_container_that_stays_tells_its_health() -> None:
    silent = {
        name for name, item in CONTAINERS.items() if "test" not in item.get("healthcheck", {})
    }
    assert silent == {*WITHOUT_SHELL, "topics"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_time_to_drain(name: str) -> None:
    grace = int(CONTAINERS[name]["stop_grace_period"].removesuffix("s"))
    assert grace > 2 * Settings.model_fields["drain_seconds"].default


def given(name: str) -> Iterator[str]:
    """Name the settings that a container gets, as variables and as files."""
    yield from (key for key in CONTAINERS[name]["environment"] if key.startswith(PREFIX))
    for secret in CONTAINERS[name].get("secrets", ()):
        yield from (target for target in [secret["target"].upper()] if target.startswith(PREFIX))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_told_only_what_it_understands(name: str) -> None:
    fields = SERVICES[name].settings.model_fields
    known = {f"{PREFIX}{field}".upper() for field in fields} | {f"{PREFIX}SECRETS_DIR"}
    assert set(given(name)) - known == set()


def test_a_service_has_the_same_port_wherever_it_is_named() -> None:
    compose = {name: CONTAINERS[name]["environment"]["RAPPORT_HTTP_PORT"] for name in SERVICES}
    gateway = (DEPLOY / "gateway" / "nginx.conf").read_text("utf-8")
    asked = read(PROMETHEUS / "prometheus.yaml")["scrape_configs"][0]["dns_sd_configs"]
    assert compose == PORTS
    assert {name: int(port) for name, port in re.findall(r" +(\w+):(81\d\d);", gateway)} == PORTS
    assert {item["names"][0]: item["port"] for item in asked} == PORTS


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in CONTAINERS[name].get("volumes", ()):
        source = volume.split(":", 1)[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


# --- secrets ---


def trial_keys() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trial_keys", DEPLOY / "trial_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def secret_files() -> dict[str, str]:
    """Name the file of each secret."""
    return {name: Path(item["file"]).name for name, item in COMPOSE["secrets"].items()}


def test_the_secrets_are_made_once_and_are_those_that_compose_mounts(tmp_path: Path) -> None:
    script = trial_keys()
    script.make(tmp_path / "keys")
    made = {path.name: path.read_text("utf-8") for path in (tmp_path / "keys").iterdir()}
    script.make(tmp_path / "keys")
    again = {path.name: path.read_text("utf-8") for path in (tmp_path / "keys").iterdir()}
    assert again == made
    assert set(secret_files().values()) == set(script.SHARED)
    assert made.keys() - set(script.SHARED) == {"sign.json"}
    for item in COMPOSE["secrets"].values():
        assert (ROOT / item["file"]).parent == script.FOLDER


def test_the_folder_of_secrets_is_closed_and_containers_can_read_the_files(tmp_path: Path) -> None:
    script = trial_keys()
    script.make(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for name in script.SHARED:
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o444
    assert stat.S_IMODE((tmp_path / "keys" / "sign.json").stat().st_mode) == 0o600
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reads_its_settings_as_compose_gives_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_keys().make(tmp_path / "keys")
    mounted = tmp_path / "run" / "secrets"
    mounted.mkdir(parents=True)
    for secret in CONTAINERS[name]["secrets"]:
        shutil.copy(
            tmp_path / "keys" / secret_files()[secret["source"]], mounted / secret["target"]
        )
    for variable in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    for variable, value in CONTAINERS[name]["environment"].items():
        monkeypatch.setenv(variable, str(value).replace("/run/secrets", str(mounted)))
    settings = SERVICES[name].settings.load()
    person_key = (tmp_path / "keys" / "person_key").read_text("utf-8")
    assert settings.person_key.get_secret_value() == person_key
    assert settings.auth_keys.read_text("utf-8").startswith('{"keys"')
    if name == "intake":
        status_key = (tmp_path / "keys" / "status_key").read_text("utf-8")
        assert settings.model_dump()["status_key"].get_secret_value() == status_key


# --- images ---


def test_the_dockerfile_is_without_reproach() -> None:
    run(str(Path(sys.executable).parent / "hadolint"), "Dockerfile")


def arguments(name: str) -> dict[str, str]:
    """Return the build arguments that an image is made with."""
    args = {"SERVICE": name, **CONTAINERS[name]["build"]["args"]}
    return {"PARTS": f"services/{args['SERVICE']}", **args}


def is_sent(path: str) -> bool:
    """Tell whether .dockerignore lets a path through: the last line that matches decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.lstrip("!")
        if line and not line.startswith("#") and (fnmatch(path, pattern) or path == pattern):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("name", BUILT)
def test_an_image_is_made_of_what_is_there(name: str) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    for source in re.findall(r"^COPY (?!--from)(\S+) \S+$", text, re.M):
        for argument, value in arguments(name).items():
            source = source.replace(f"${{{argument}}}", value)
        assert (ROOT / source).exists(), source
        top = Path(source).parts[0] if Path(source).parts else "libs"
        assert is_sent(top), source


def test_an_image_is_named_after_the_module_that_it_runs() -> None:
    for name in BUILT:
        folder = ROOT / ("apps" if name == "topics" else "services") / arguments(name)["SERVICE"]
        assert (folder / "src" / "rapport" / folder.name / "__main__.py").exists()


def locked(path: Path) -> dict[str, set[str]]:
    """Return the versions that a lock names of each distribution."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text("utf-8"), re.M):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def wanted(*parts: str) -> set[str]:
    """Return what parts say they need, without our own parts."""
    found: set[str] = set()
    for part in parts:
        project = tomllib.loads((ROOT / part / "pyproject.toml").read_text("utf-8"))["project"]
        found |= {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    return {name for name in found if not name.startswith("rapport-")}


@pytest.mark.parametrize("name", SERVICES)
def test_a_lock_has_what_its_service_needs_in_the_versions_that_are_tested(name: str) -> None:
    lock = locked(ROOT / "services" / name / "requirements.lock")
    tested = locked(ROOT / "requirements.lock")
    assert wanted("libs/common", f"services/{name}") <= lock.keys()
    assert {item: versions for item, versions in lock.items() if not versions <= tested[item]} == {}


@pytest.mark.parametrize("name", SERVICES)
def test_a_lock_has_nothing_of_other_services_and_nothing_of_tests(name: str) -> None:
    lock = locked(ROOT / "services" / name / "requirements.lock").keys()
    own = wanted("libs/common", f"services/{name}")
    others = wanted(*(f"services/{other}" for other in SERVICES), "apps/standalone") - own
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    tools = {canonicalize_name(Requirement(line).name) for line in groups["dev"]}
    brought_along = {"click", "cryptography", "httpcore2"}  # by uvicorn, joserfc, httpx2
    assert lock & ((others | tools) - own - brought_along) == set()


@pytest.mark.parametrize("name", SERVICES)
def test_a_lock_can_be_trusted_wherever_it_is_installed_from(name: str) -> None:
    text = (ROOT / "services" / name / "requirements.lock").read_text("utf-8")
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert [entry.split(" ", 1)[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "index-url" not in text


def imported(*parts: str) -> set[str]:
    """Return the packages that are not ours that the source of parts imports anywhere."""
    modules: set[str] = set()
    for part in parts:
        for path in (ROOT / part / "src").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    modules |= {name.name for name in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules.add(node.module)
    tops = {module.partition(".")[0] for module in modules}
    return tops - sys.stdlib_module_names - {"rapport"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_imports_is_in_its_image(name: str) -> None:
    lock = locked(ROOT / "services" / name / "requirements.lock").keys()
    homes = packages_distributions()
    for package in imported("libs/common", f"services/{name}"):
        assert lock & {canonicalize_name(home) for home in homes[package]}, package


# --- what observes ---


def series() -> set[str]:
    """Name every time series that a service has."""
    names: set[str] = set()
    for metric in vars(telemetry).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            [described] = metric.describe()
            endings = {"counter": ["_total"], "gauge": [""]}.get(
                described.type, ["_bucket", "_sum", "_count"]
            )
            names |= {described.name + ending for ending in endings}
    return names


def panels() -> Iterator[Json]:
    for path in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        yield from json.loads(path.read_text("utf-8"))["panels"]


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def alert_rules() -> list[Json]:
    groups = read(PROMETHEUS / "alerts.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("query", [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())])
def test_what_is_drawn_or_watched_is_measured(query: str) -> None:
    assert set(re.findall(r"\brapport_\w+", query)) - series() == set()


def test_every_panel_asks_the_source_that_is_set_up() -> None:
    sources = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    drawn = [panel for panel in panels() if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in drawn} == {sources[0]["uid"]}
    assert len({panel["id"] for panel in panels()}) == len(list(panels()))
    assert all(panel["description"] for panel in drawn)


@validator("promtool")
def test_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    queries = [
        query.replace("$__rate_interval", "1m").replace("$service", ".*")
        for query in dashboard_queries()
    ]
    rules = [{"record": f"panel:{at}", "expr": query} for at, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    run("promtool", "check", "rules", str(file))


@validator("promtool")
def test_prometheus_accepts_its_configuration_and_rules() -> None:
    run("promtool", "check", "config", "prometheus.yaml", cwd=PROMETHEUS)


@validator("promtool")
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    run("promtool", "test", "rules", "alerts.test.yaml", cwd=PROMETHEUS)


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = read(PROMETHEUS / "alerts.test.yaml")["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in alert_rules()}
    assert all(rule["annotations"].keys() == {"summary", "what_to_do"} for rule in alert_rules())


def test_the_collector_uses_all_that_it_defines_and_defines_all_that_it_uses() -> None:
    configuration = read(DEPLOY / "collector" / "collector.yaml")
    pipelines = configuration["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        assert used == configuration[kind].keys()


def test_traces_go_where_the_collector_listens() -> None:
    receiver = read(DEPLOY / "collector" / "collector.yaml")["receivers"]["otlp"]["protocols"]
    port = receiver["http"]["endpoint"].rpartition(":")[2]
    for name in SERVICES:
        endpoint = CONTAINERS[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert endpoint == f"http://collector:{port}"


@validator("otelcol")
def test_the_collector_accepts_its_configuration() -> None:
    run("otelcol", "validate", "--config", str(DEPLOY / "collector" / "collector.yaml"))


# --- one document of all APIs ---


@pytest.fixture(scope="module")
def merged() -> Json:
    return document(SERVICES.values())


def test_the_gateway_s_document_is_the_services_own(merged: Json) -> None:
    committed = json.loads((DEPLOY / "gateway" / "openapi.json").read_text("utf-8"))
    assert committed == merged, "make docs"


def test_the_one_document_holds_together(merged: Json) -> None:
    schemas = merged["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(merged))) <= schemas.keys()
    operations = [item for path in merged["paths"].values() for item in path.values()]
    assert len({item["operationId"] for item in operations}) == len(operations)
    assert {item["tags"][0] for item in operations} == SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_the_one_document_says_of_a_service_what_its_own_says(name: str, merged: Json) -> None:
    own = document([SERVICES[name]])
    paths = {path for path in merged["paths"] if path.startswith(f"/{name}/")}
    assert paths == own["paths"].keys()
    for path in paths:
        assert spelled_out(merged["paths"][path], merged) == spelled_out(own["paths"][path], own)


def spelled_out(part: Any, whole: Json, inside: tuple[str, ...] = ()) -> Any:
    """Return a part of a document with what it refers to in place, so that names do not matter."""
    if isinstance(part, list):
        return [spelled_out(item, whole, inside) for item in part]
    if not isinstance(part, dict):
        return part
    name = str(part.get("$ref", "")).rpartition("/")[2]
    if name:
        schema = whole["components"]["schemas"][name]
        return "again" if name in inside else spelled_out(schema, whole, (*inside, name))
    return {
        key: spelled_out(value, whole, inside)
        for key, value in part.items()
        if key != "discriminator"
    }
