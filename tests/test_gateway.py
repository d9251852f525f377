"""The gateway's configuration at work: a real nginx before services that tell what reached them."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from rapport.common.serving import listening
from rapport.standalone.system import SERVICES

GATEWAY = Path(__file__).parents[1] / "deploy" / "compose" / "gateway"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

IMPATIENT = """
location = /routing/v1/never {
    set $service routing;
    proxy_read_timeout 100ms;
    proxy_pass http://$upstream;
}
"""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        NGINX is None, reason="NOT TESTED: the gateway (install nginx, as Debian's nginx-light)"
    ),
]


class Told:
    """A service that answers with what reached it; some paths are slow, fail or stream."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        told = {
            "path": path,
            "query": scope["query_string"].decode(),
            "headers": headers,
            "size": len(body),
        }
        if path.endswith("/never"):
            await self.go_on.wait()
        status = 503 if path.endswith("/trouble") else 200
        kind = b"application/problem+json" if status == 503 else b"application/json"
        start: dict[str, Any] = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [(b"content-type", kind), (b"retry-after", b"7")]})
        if path.endswith("/stream"):
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await self.go_on.wait()
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


@pytest.fixture(scope="module")
def services() -> dict[str, Told]:
    """The five services."""
    return {name: Told() for name in SERVICES}


def configured(folder: Path, ports: dict[str, int]) -> Path:
    """Write the gateway's configuration with addresses and folders of this test."""
    text = (GATEWAY / "nginx.conf").read_text("utf-8").replace(" /tmp/", f" {folder}/")
    for service, port in ports.items():
        text = re.sub(rf"{service}:81\d\d", f"127.0.0.1:{port}", text)
    text = text.replace("listen 8080", f"listen unix:{folder}/socket")
    text = text.replace("/etc/nginx/openapi.json", str(GATEWAY / "openapi.json"))
    text = text.replace("/dev/stdout", f"{folder}/access").replace("/dev/stderr", f"{folder}/error")
    text = text.replace("worker_processes auto", "worker_processes 1")
    text = text.replace("location = /notification", f"{IMPATIENT}location = /notification")
    (folder / "nginx.conf").write_text(text, "utf-8")
    return folder / "nginx.conf"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where nginx keeps its files; a socket's path must be short."""
    with TemporaryDirectory(prefix="gateway-") as name:
        yield Path(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path, services: dict[str, Told]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway; of the services, knowledge is away."""
    async with AsyncExitStack() as stack:
        ports = {
            name: await stack.enter_async_context(listening(service, "127.0.0.1", 0))
            for name, service in services.items()
            if name != "knowledge"
        }
        configuration = configured(folder, {**ports, "knowledge": 1})
        command = [str(NGINX), "-c", str(configuration), "-p", str(folder)]
        if os.geteuid() == 0:
            command += ["-g", "user root;"]
        await asyncio.to_thread(subprocess.run, command, check=True)  # answers once it listens
        stack.callback(subprocess.run, [*command, "-s", "stop"], check=True)
        client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=f"{folder}/socket"),
            base_url="http://gateway",
            timeout=20.0,
        )
        yield await stack.enter_async_context(client)
        for service in services.values():
            service.go_on.set()


async def test_the_first_part_of_a_path_names_the_service(gateway: httpx2.AsyncClient) -> None:
    for service in ("intake", "routing", "notification", "analytics"):
        response = await gateway.get(f"/{service}/v1/things%20here?a=1&a=2")
        assert response.json()["path"] == f"/{service}/v1/things here"
        assert response.json()["query"] == "a=1&a=2"


async def test_who_asks_and_the_trace_reach_the_service(gateway: httpx2.AsyncClient) -> None:
    sent = {
        "Authorization": "Bearer token",
        "Idempotency-Key": "once",
        "If-Match": '"3"',
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "X-Request-ID": "asked-1",
    }
    response = await gateway.get("/routing/v1/cases", headers=sent)
    got = response.json()["headers"]
    assert {name: got[name.lower()] for name in sent} == sent
    assert response.headers["x-request-id"] == "asked-1"


async def test_a_request_without_an_id_gets_one_and_a_strange_one_is_replaced(
    gateway: httpx2.AsyncClient,
) -> None:
    for given in ({}, {"X-Request-ID": 'a"b c'}):
        response = await gateway.get("/routing/v1/cases", headers=given)
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.json()["headers"]["x-request-id"] == response.headers["x-request-id"]


async def test_the_live_stream_is_passed_on_as_it_happens(
    gateway: httpx2.AsyncClient, services: dict[str, Told]
) -> None:
    async with gateway.stream("GET", "/notification/v1/stream") as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 1\n\n"  # the service has not ended yet
        services["notification"].go_on.set()


async def test_a_body_within_the_limit_arrives_whole(gateway: httpx2.AsyncClient) -> None:
    body = b"x" * (10 * 1024 * 1024)
    response = await gateway.post("/intake/v1/feedback", content=body)
    assert response.json()["size"] == len(body)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_larger_body_is_refused_with_a_problem(
    gateway: httpx2.AsyncClient, chunked: bool
) -> None:
    body = b"x" * (10 * 1024 * 1024 + 1)

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    response = await gateway.post("/intake/v1/feedback", content=pieces() if chunked else body)
    assert (response.status_code, response.headers["content-type"]) == (
        413,
        "application/problem+json",
    )
    assert response.json()["status"] == 413


@pytest.mark.parametrize(
    ("path", "status"), [("/knowledge/v1/articles", 502), ("/routing/v1/never", 504)]
)
async def test_a_service_that_is_away_or_late_is_a_problem_worth_a_retry(
    gateway: httpx2.AsyncClient, path: str, status: int
) -> None:
    response = await gateway.get(path)
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["x-request-id"]


async def test_what_a_service_answers_is_passed_on_as_it_is(gateway: httpx2.AsyncClient) -> None:
    response = await gateway.get("/intake/v1/trouble")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["path"] == "/intake/v1/trouble"


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/readyz", "/rest", "/intake/metrics", "/intake/v2/feedback", "/", "/x/v1/y"],
)
async def test_nothing_else_is_reachable(gateway: httpx2.AsyncClient, path: str) -> None:
    response = await gateway.get(path)
    assert response.status_code == response.json()["status"] == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_one_document_and_each_service_s_own_are_there(
    gateway: httpx2.AsyncClient,
) -> None:
    whole = await gateway.get("/openapi.json")
    assert whole.headers["content-type"] == "application/json"
    assert whole.json()["info"]["title"] == "Rapport"
    assert (await gateway.get("/intake/openapi.json")).json()["path"] == "/intake/openapi.json"
    assert (await gateway.get("/livez")).text == "ok"


async def test_what_is_no_request_and_a_path_or_header_too_long_are_problems(
    gateway: httpx2.AsyncClient, folder: Path
) -> None:
    assert (await gateway.get("/intake/v1/" + "x" * 20_000)).json()["status"] == 414
    large = await gateway.get("/intake/v1/x", headers={"a": "x" * 20_000})
    assert large.json()["status"] == 400
    reader, writer = await asyncio.open_unix_connection(f"{folder}/socket")
    writer.write(b"GET /intake/v1/x HTTP/1.1\r\n\r\n")  # without a host
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


async def test_the_log_tells_no_query(gateway: httpx2.AsyncClient, folder: Path) -> None:
    await gateway.get("/knowledge/v1/search?q=secret")
    await gateway.get("/analytics/v1/kpis")  # nginx writes of one before it answers the next
    lines = (folder / "access").read_text("utf-8").splitlines()
    assert "/knowledge/v1/search" in [json.loads(line)["path"] for line in lines]
    assert "secret" not in "".join(lines)
