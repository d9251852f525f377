"""The company and the world around it: people who call the APIs with their tokens, and time.

Everything goes over HTTP. The system itself is only asked what the clock needs: whether it is
quiet, how much it has published, and when something falls due. Time passes in jumps, from one
minute in which something falls due to the next, and never while something is on its way.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import httpx2

from rapport.common.clock import JumpingClock
from rapport.notification.api import STREAMED
from rapport.standalone.demo.receivers import Arrival, Outside
from rapport.standalone.demo.scenario import Scenario
from rapport.standalone.processes import Processes
from rapport.standalone.system import System

STRIDE: Final = timedelta(minutes=5)
"""The longest jump."""

MINUTE: Final = timedelta(minutes=1)

PATIENCE_SECONDS: Final = 30.0
"""Real time within which the system comes to rest after anything that is done to it."""

GLANCE_SECONDS: Final = 0.004

ADMIN: Final = "admin"
"""Who sets things up before the story, and reads what a figure is checked with."""

Json = dict[str, Any]


class Refused(Exception):
    """An API said no: the problem document, and who wanted what."""

    def __init__(self, by: str, wish: str, problem: Json) -> None:
        self.status = int(problem["status"])
        self.detail = str(problem["detail"])
        reasons = [f"{item['pointer']} {item['reason']}" for item in problem.get("errors") or ()]
        said = "; ".join([self.detail, *reasons])
        super().__init__(f"{by}: {wish} was refused with {self.status}: {said}")


class Restless(Exception):
    """The system did not come to rest."""


@dataclass
class World:
    """See the module's docstring; `names` has what the story calls the things behind ids."""

    scenario: Scenario
    up: System | Processes
    clock: JumpingClock
    http: httpx2.AsyncClient
    outside: Outside
    names: dict[str, str] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _published_before: int = 0
    _heard: int = 0
    _seen: set[Arrival] = field(default_factory=set)

    async def open(self) -> None:
        """Take note of what was published before anybody listened."""
        self._published_before = sum((await self.up.bus.ends(STREAMED)).values())

    async def call(
        self, by: str, method: str, path: str, body: object = None, **query: object
    ) -> Json:
        """Call an API as somebody and return what it answers; raises Refused for a problem."""
        response = await self.http.request(
            method,
            self.up.urls[path.split("/", 2)[1]] + path,
            json=body,
            params={name: str(value) for name, value in query.items()},
            headers={"Authorization": f"Bearer {self._token(by)}"},
        )
        answer: Json = response.json() if response.content else {}
        if response.is_error:
            raise Refused(by, f"{method} {path}", answer)
        return answer

    async def see(self, path: str, **query: object) -> Json:
        """Read something."""
        return await self.call(ADMIN, "GET", path, **query)

    async def list(self, path: str, **query: object) -> AsyncIterator[Json]:
        """Read a list to its end."""
        cursor: Mapping[str, object] = {}
        while True:
            page = await self.see(path, limit=200, **query, **cursor)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    async def until(self, moment: datetime) -> AsyncIterator[None]:
        """Let time pass, jump by jump, each followed by rest; yields after each."""
        while (now := self.clock.now()) < moment:
            self.clock.move_to(min(moment, await self._next_stop(now)))
            await self.rest()
            yield

    async def _next_stop(self, now: datetime) -> datetime:
        """Return the end of the minute in which something falls due, at most a stride from now."""
        due = min((item for item in await self.up.next_due() if item > now), default=now + STRIDE)
        return min(due.replace(second=0, microsecond=0) + MINUTE, now + STRIDE)

    async def rest(self) -> None:
        """Wait until nothing is on its way and the live stream has told everything."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await self._is_at_rest():  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(GLANCE_SECONDS)
        except TimeoutError:
            raise Restless(f"not quiet within {PATIENCE_SECONDS:.0f} s") from None

    def news(self) -> tuple[Sequence[Json], Sequence[Arrival]]:
        """Return the events and the messages outside that came since this was last asked."""
        events = self.outside.stream.events[self._heard :]
        arrived = [item for item in self.outside.arrived if item not in self._seen]
        self._heard += len(events)
        self._seen.update(arrived)
        for data in (event["data"] for event in events):
            if "crisis_id" in data and "title" in data:
                self.names[data["crisis_id"]] = data["title"]
        return events, arrived

    async def _is_at_rest(self) -> bool:
        """Quiet, and nothing was published while service after service was asked."""
        before = await self._published()
        quiet = await self.up.quiet()
        return (
            quiet
            and before == await self._published()
            and before == len(self.outside.stream.events)
        )

    async def _published(self) -> int:
        return sum((await self.up.bus.ends(STREAMED)).values()) - self._published_before

    def _token(self, by: str) -> str:
        if by not in self._tokens:
            employee = self.scenario.people.get(by)
            roles = employee.roles if employee else ("admin",) if by == ADMIN else ("publisher",)
            self._tokens[by] = self.up.token(by, *roles)
        return self._tokens[by]

    # Names

    def name(self, id: str) -> str:
        """Return what the story calls something: a case, a crisis, a stakeholder."""
        return self.names.get(id, id)

    def case(self, id: str) -> str:
        """Return what the story calls a case, marked as such."""
        return f"“{self.name(id)}”"

    def person(self, subject: str | None) -> str:
        """Return how somebody is called; a team is called by its own name."""
        return self.scenario.name_of(subject)

    def readable(self, text: str) -> str:
        """Return a text with names in place of ids."""
        for id, name in self.names.items():
            text = text.replace(id, name)
        return text
