"""A whole installation as a process of its own, seen from outside: answers, logs, metrics."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from rapport.common.auth import ROLES, Signer
from rapport.standalone.system import HOST, PEOPLE

Json = dict[str, Any]

PATIENCE: Final = 180.0
PAUSE: Final = 0.05
NOWHERE: Final = "9"
"""A port that nobody listens on: mail waits for ever."""


@dataclass(frozen=True)
class Installation:
    """A running installation: its address, whoever signs its tokens, and what it has logged."""

    url: str
    signer: Signer
    log: Path

    def token(self, *roles: str) -> str:
        """Return the token of somebody with these roles, of somebody with all of them if none."""
        return self.signer.mint(PEOPLE[roles[0]] if roles else PEOPLE["agent"], roles or ROLES)

    def call(
        self, method: str, path: str, *, roles: Sequence[str] = (), **arguments: Any
    ) -> httpx2.Response:
        """Make one request, which must succeed."""
        headers = {"Authorization": f"Bearer {self.token(*roles)}"} | arguments.pop("headers", {})
        answer = httpx2.request(method, f"{self.url}{path}", headers=headers, **arguments)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def items(self, path: str) -> Sequence[Json]:
        """Return the first items of a list."""
        found: Sequence[Json] = self.call("GET", path, params={"limit": 20}).json()["items"]
        return found

    @property
    def said(self) -> str:
        """All that it has logged so far, and its metrics now."""
        return self.log.read_text("utf-8") + self.call("GET", "/metrics").text


@contextmanager
def installed(folder: Path, **settings: str) -> Iterator[Installation]:
    """Run an installation while the block runs; it logs all that it can."""
    data, log = folder / "data", folder / "log"
    with closing(socket.create_server((HOST, 0))) as listener:
        port = listener.getsockname()[1]
    told = {
        "RAPPORT_LOG_LEVEL": "DEBUG",
        "RAPPORT_SMTP_HOST": HOST,
        "RAPPORT_SMTP_PORT": NOWHERE,
        **settings,
    }
    command = ("-m", "rapport.standalone", "up", "--data-dir", str(data), "--port", str(port))
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | told,
            stdout=subprocess.DEVNULL,  # tokens to try things with
            stderr=written,
        )
        try:
            url = f"http://{HOST}:{port}"
            _await_ready(url, process)
            yield Installation(url, Signer.open(data / "keys"), log)
        finally:
            process.terminate()
            process.wait()


def _await_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        assert process.poll() is None, "it has ended"
        try:
            if httpx2.get(f"{url}/readyz").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(PAUSE)
    raise AssertionError("it does not come up")


def until(found: Any, what: str) -> Any:
    """Ask `found` until it answers something, and return that; fails, saying `what` never came."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < give_up, what
        time.sleep(PAUSE)
    return answer
