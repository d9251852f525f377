"""Lookups: the addresses of hosts, as the system's resolver knows them.

The resolver may take its time with a host whose name server does not answer, and can be asked from
a thread only. The event loop's own threads for that are few, and everybody's. So each host that is
looked up has a thread here; whoever asks for it meanwhile waits for the same answer.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Final

AT_ONCE: Final = 16
"""So many hosts are looked up side by side; others wait for their turn."""


class Lookups:
    """Looks hosts up, each once at a time; a thread that hangs keeps no process from ending."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of `host`, in the resolver's order of preference.

        Raises OSError where there are none, UnicodeError for what cannot be a name.
        """
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._look_up(host, port))
            lookup.add_done_callback(partial(self._forget, host))
        return await asyncio.shield(lookup)

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        answer: Future[Sequence[str]] = Future()
        async with self._room:
            answer.set_running_or_notify_cancel()
            Thread(target=_ask, args=(host, port, answer), name="lookup", daemon=True).start()
            return await asyncio.wrap_future(answer)

    def _forget(self, host: str, lookup: asyncio.Task[Sequence[str]]) -> None:
        del self._under_way[host]
        if not lookup.cancelled():
            lookup.exception()  # which may be of no concern to anybody any more


def _ask(host: str, port: int, answer: Future[Sequence[str]]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:
        answer.set_exception(error)
    else:
        answer.set_result([str(address[0]) for *_, address in found])
