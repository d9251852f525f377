"""Requests that come when they come, whether or not those before them have been answered.

Most loads wait for an answer before they send the next request, and so slow down with whom they
measure. Here each request has its moment, and how long it took is counted from that moment, the
time that it waited for a connection or for us included.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from time import perf_counter
from typing import Final, cast

from benchmarks.intake import length_of

TICK: Final = 0.001
PATIENCE: Final = 60.0
"""Seconds that what is still under way at the end has to be answered in."""


@dataclass
class Answers:
    """What came of a load: how many seconds each answer took, by status."""

    offered: float
    seconds: dict[int, list[float]] = field(default_factory=dict)
    lasted: float = 0.0
    without_retry_after: int = 0

    def rate(self, status: int) -> float:
        """Return how many requests per second were answered so."""
        return len(self.seconds.get(status, ())) / self.lasted

    def p99(self, status: int) -> float:
        """Return in how many seconds 99 of 100 such answers came; 0 where there was none."""
        found = self.seconds.get(status, [])
        return quantiles(found, n=100)[98] if len(found) > 1 else sum(found)


class _Load:
    """Connections, and requests that wait for one."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[tuple[bytes, float]] = deque()
        self.under_way = 0
        self.done = asyncio.Event()
        self.failure: Exception | None = None

    def send(self, request: bytes, moment: float) -> None:
        """Send over a connection that has nothing to do, else when there is one."""
        self.under_way += 1
        self.done.clear()
        if self.idle:
            self.idle.pop().send(request, moment)
        else:
            self.waiting.append((request, moment))

    def answered(self, connection: "_Connection", head: bytes, moment: float) -> None:
        """Note an answer; its connection is free for another request."""
        self.under_way -= 1
        if not self.under_way:
            self.done.set()
        status = int(head[9:12])
        self.answers.seconds.setdefault(status, []).append(perf_counter() - moment)
        if status == 503 and b"\r\nretry-after: " not in head.lower():
            self.answers.without_retry_after += 1
        if self.waiting:
            connection.send(*self.waiting.popleft())
        else:
            self.idle.append(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._answer = b""
        self._moment = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._load.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self not in self._load.idle:
            self._load.failure = error or ConnectionError("closed before it answered")

    def send(self, request: bytes, moment: float) -> None:
        self._moment = moment
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if separator and len(body) >= length_of(head):
            self._answer = b""
            self._load.answered(self, head, self._moment)


async def offer(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int
) -> Answers:
    """Send `rate` requests per second, one after the other and over again, for so long.

    Raises ConnectionError where the server hangs up, TimeoutError where it does not answer.
    """
    load = _Load(Answers(rate))
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
    transports = [connection.transport for connection in load.idle]
    began, sent = perf_counter(), 0
    while (passed := perf_counter() - began) < seconds:
        for number in range(sent, int(passed * rate)):
            load.send(requests[number % len(requests)], began + number / rate)
        sent = int(passed * rate)
        await asyncio.sleep(TICK)
        if load.failure is not None:
            raise load.failure
    async with asyncio.timeout(PATIENCE):
        await load.done.wait()
    load.answers.lasted = perf_counter() - began
    for transport in transports:
        transport.abort()
    return load.answers
