"""Destinations: who is slow to answer gets a small share of our attention, so nobody waits for it.

A destination is a mail server or a webhook's host. While it answers quickly as many messages as
there are go to it at once or, where it has only so many connections, as many as wait in line for
them. One that takes long is given four at a time. What else is for it is put off until its turn,
and its attempts are not used up by that. The first quick answer ends it. What is known here is
known to this process alone, and forgotten with it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Final, NamedTuple

import httpx2

SLOW_SECONDS: Final = 2.0
SHARE: Final = 4
IN_LINE: Final = 8
"""Messages for each connection of a destination, the one that it is taking included."""

SHORTEST_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 60.0
SUPPOSED_SECONDS: Final = 0.1
"""How long a message takes at a destination that has not answered yet."""


def destination_of(channel: str, address: str) -> str:
    """Return who answers for an address of a channel."""
    if channel != "webhook":
        return channel
    try:
        return httpx2.URL(address).netloc.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError):
        return channel


class _Sending(NamedTuple):
    """A message on its way: since when, and in which turn of its line."""

    began: float
    turns: float

    @property
    def is_long_at(self) -> float:
        """From when on it takes long."""
        return self.began + SLOW_SECONDS * self.turns


class Destinations:
    """How long each destination takes at the moment, and whose turn it is.

    `connections` tells how many messages a destination takes side by side; without bound where it
    is not named.
    """

    def __init__(self, connections: Mapping[str, int] | None = None) -> None:
        self._connections: Mapping[str, float] = connections or {}
        self._under_way: defaultdict[str, list[_Sending]] = defaultdict(list)
        self._slow: set[str] = set()
        self._took: dict[str, float] = {}
        self._booked: dict[str, float] = {}

    def put_off(self, wanted: Iterable[tuple[str, str]]) -> dict[str, float]:
        """Return which of these messages have to wait, and for how many seconds.

        `wanted` are pairs of a message's id and its destination, in the order of their turns.
        """
        waits: dict[str, float] = {}
        rooms: dict[str, float] = {}
        for id, destination in wanted:
            if destination not in rooms:
                rooms[destination] = self._room(destination)
            if rooms[destination] > 0:
                rooms[destination] -= 1
            else:
                waits[id] = self._wait(destination)
        return waits

    @property
    def busy(self) -> frozenset[str]:
        """Those that take long at the moment, or have a line before them."""
        named = (*self._slow, *self._under_way)
        return frozenset(name for name in named if self._is_slow(name) or self._room(name) <= 0)

    @contextmanager
    def sending(self, destination: str) -> Iterator[None]:
        """Note that a message is on its way while the block runs."""
        line = self._under_way[destination]
        turns = 1 + len(line) // self._connections.get(destination, inf)
        this = _Sending(monotonic(), turns)
        line.append(this)
        try:
            yield
        finally:
            line.remove(this)
            if not line:
                del self._under_way[destination]
            self._note(destination, this)

    def _note(self, destination: str, sent: _Sending) -> None:
        now = monotonic()
        if now > sent.is_long_at:
            self._slow.add(destination)
            return
        if destination in self._connections:
            self._took[destination] = (now - sent.began) / sent.turns
        if destination in self._slow:
            self._slow.remove(destination)
            self._booked.pop(destination, None)

    def _room(self, destination: str) -> float:
        """Return how many messages it can be given now, none where that is not above 0."""
        most = self._connections.get(destination, inf) * IN_LINE
        if self._is_slow(destination):
            most = SHARE
        return most - len(self._under_way.get(destination, ()))

    def _is_slow(self, destination: str) -> bool:
        now = monotonic()
        line = self._under_way.get(destination, ())
        return destination in self._slow or any(now > each.is_long_at for each in line)

    def _wait(self, destination: str) -> float:
        """Return the time until its turn, which comes after all that were put off before."""
        now, line = monotonic(), self._under_way.get(destination, ())
        if self._is_slow(destination):
            longest = now - min((each.began for each in line), default=now)
            takes, first = max(SLOW_SECONDS, longest) / SHARE, SHORTEST_SECONDS
        else:
            takes = self._took.get(destination, SUPPOSED_SECONDS) / self._connections[destination]
            first = takes * len(line)
        turn = max(now + first, self._booked.get(destination, now)) + takes
        self._booked[destination] = min(turn, now + LONGEST_SECONDS)
        return self._booked[destination] - now
