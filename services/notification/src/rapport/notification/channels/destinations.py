"""Destinations: who is slow to answer gets a small share of our attention, so nobody waits for it.

A destination is a mail server or a webhook's host. While it answers quickly as many messages as
there are go to it at once. One that takes long is given four at a time; what else is for it is put
off, and its attempts are not used up by that. The first quick answer ends it. What is known here is
known to this process alone, and forgotten with it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import httpx2

SLOW_SECONDS: Final = 2.0
SHARE: Final = 4
SHORTEST_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 60.0


def destination_of(channel: str, address: str) -> str:
    """Return who answers for an address of a channel."""
    if channel != "webhook":
        return channel
    try:
        return httpx2.URL(address).netloc.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError):
        return channel


class Destinations:
    """How long each destination takes at the moment, and whose turn it is."""

    def __init__(self) -> None:
        self._began: defaultdict[str, list[float]] = defaultdict(list)
        self._slow: set[str] = set()
        self._put_off: Counter[str] = Counter()

    def put_off(self, wanted: Iterable[tuple[str, str]]) -> dict[str, float]:
        """Return which of these messages have to wait, and for how many seconds.

        `wanted` are pairs of a message's id and its destination, in the order of their turns.
        """
        waits: dict[str, float] = {}
        admitted: Counter[str] = Counter()
        for id, destination in wanted:
            under_way = len(self._began.get(destination, ())) + admitted[destination]
            if under_way >= SHARE and self._is_slow(destination):
                waits[id] = self._wait(destination)
            else:
                admitted[destination] += 1
        return waits

    @property
    def slow(self) -> frozenset[str]:
        """Those that take long at the moment."""
        return frozenset(name for name in (*self._slow, *self._began) if self._is_slow(name))

    @contextmanager
    def sending(self, destination: str) -> Iterator[None]:
        """Note that a message is on its way while the block runs."""
        began = monotonic()
        self._began[destination].append(began)
        try:
            yield
        finally:
            self._began[destination].remove(began)
            if not self._began[destination]:
                del self._began[destination]
            if monotonic() - began > SLOW_SECONDS:
                self._slow.add(destination)
            else:
                self._slow.discard(destination)
                del self._put_off[destination]

    def _is_slow(self, destination: str) -> bool:
        return destination in self._slow or self._longest(destination) > SLOW_SECONDS

    def _longest(self, destination: str) -> float:
        """Return for how many seconds the message is on its way that has been longest."""
        return monotonic() - min(self._began.get(destination, ()), default=monotonic())

    def _wait(self, destination: str) -> float:
        """Return the time until its turn, by how long those take that have theirs."""
        self._put_off[destination] += 1
        each = max(SLOW_SECONDS, self._longest(destination)) / SHARE
        return min(LONGEST_SECONDS, SHORTEST_SECONDS + each * self._put_off[destination])
