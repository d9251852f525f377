"""Hosts are looked up in threads of their own: one that hangs holds up nobody else."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from threading import Barrier, Event, current_thread
from typing import Any, Final

import pytest

from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.lookups import AT_ONCE

PUBLIC: Final = "93.184.216.34"
PATIENCE_SECONDS: Final = 60.0
MORE_THAN_ANY_POOL: Final = 100

Found = list[tuple[Any, ...]]


def found(port: int) -> Found:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]


class NameServers:
    """Answer for every host at once, but for `hanging.test` only when they are let."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.begun = Event()
        self.answers = Event()

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> Found:
        assert current_thread().daemon
        self.asked[host] += 1
        if host == "hanging.test":
            self.begun.set()
            self.answers.wait()
        return found(port)


@pytest.fixture
def name_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    servers = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", servers.getaddrinfo)
    yield servers
    servers.answers.set()


async def test_a_host_that_hangs_takes_one_thread_and_nobody_elses_time(
    name_servers: NameServers,
) -> None:
    policy = AddressPolicy()
    waiting = [
        asyncio.create_task(policy.addresses("hanging.test", 443))
        for _ in range(MORE_THAN_ANY_POOL)
    ]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await policy.addresses("quick.test", 443) == [PUBLIC]
    assert not any(task.done() for task in waiting)

    name_servers.answers.set()
    assert await asyncio.gather(*waiting) == [[PUBLIC]] * MORE_THAN_ANY_POOL
    assert name_servers.asked == {"hanging.test": 1, "quick.test": 1}


async def test_whoever_gives_up_leaves_the_lookup_to_the_others(name_servers: NameServers) -> None:
    policy = AddressPolicy()
    first, second = (asyncio.create_task(policy.addresses("hanging.test", 443)) for _ in range(2))
    await asyncio.to_thread(name_servers.begun.wait, PATIENCE_SECONDS)
    first.cancel()
    name_servers.answers.set()
    assert await second == [PUBLIC]
    assert first.cancelled()
    assert name_servers.asked == {"hanging.test": 1}


async def test_so_many_hosts_are_asked_for_side_by_side_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side_by_side = Barrier(AT_ONCE, timeout=PATIENCE_SECONDS)
    asking: set[str] = set()
    sizes: list[int] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> Found:
        asking.add(host)
        sizes.append(len(asking))
        side_by_side.wait()
        asking.discard(host)
        return found(port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    policy = AddressPolicy()
    hosts = [f"h{number}.test" for number in range(2 * AT_ONCE)]
    answers = await asyncio.gather(*(policy.addresses(host, 443) for host in hosts))
    assert answers == [[PUBLIC]] * len(hosts)
    assert max(sizes) == AT_ONCE
