"""Rapport as those outside see it: an address per service, a token per person, answers.

Whoever waits here asks again and again until the answer is the one hoped for, or time is up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx2
from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")
Json = dict[str, Any]
Token = Callable[[str, Sequence[str]], str]
Urls = Callable[[], Mapping[str, Sequence[str]]]

PATIENCE: Final = 120.0
"""Seconds until somebody who waits gives up; nobody who gets an answer waits that long."""

PAUSE: Final = 0.05
SHORT_PAUSE: Final = 0.001
PAGE: Final = 200

PEOPLE: Final = {
    "web-shop": ("publisher",),
    "kim": ("agent",),
    "lin": ("lead",),
    "anna": ("pr",),
    "paula": ("pr", "approver"),
    "louis": ("approver",),
    "vic": ("viewer",),
}
"""Who calls in these stories, and their roles."""


async def eventually(holds: Callable[[], bool], otherwise: str) -> None:
    """Return when something holds; fails, saying what is `otherwise`."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, otherwise
        await asyncio.sleep(SHORT_PAUSE)


class Rapport:
    """A client of the running system; `urls` gives the addresses of each service's replicas.

    Like a gateway it goes to the next replica where one cannot be reached, or goes away before it
    has answered.
    """

    def __init__(self, urls: Urls, token: Token) -> None:
        self._urls = urls
        self._tokens = {name: token(name, roles) for name, roles in PEOPLE.items()}
        self._http = httpx2.AsyncClient(
            timeout=PATIENCE, limits=httpx2.Limits(max_keepalive_connections=64)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def call(
        self, method: str, path: str, *, as_: str = "vic", **arguments: Any
    ) -> httpx2.Response:
        """Make one request as somebody."""
        headers = {
            "Authorization": f"Bearer {self._tokens[as_]}",
            **arguments.pop("headers", {}),
        }
        replicas = self._urls()[path.split("/", 2)[1]]
        for url in replicas[:-1]:
            with suppress(httpx2.NetworkError, httpx2.RemoteProtocolError):
                return await self._http.request(
                    method, f"{url}{path}", headers=headers, **arguments
                )
        return await self._http.request(
            method, f"{replicas[-1]}{path}", headers=headers, **arguments
        )

    def _everywhere(self) -> set[str]:
        return {url for replicas in self._urls().values() for url in replicas}

    async def get(self, path: str, *, as_: str = "vic", **parameters: Any) -> Any:
        """Return what is at a path."""
        answer = await self.call("GET", path, as_=as_, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, *, as_: str, **arguments: Any) -> Any:
        """Do something that is allowed; return the answer."""
        answer = await self.call("POST", path, as_=as_, json=body, **arguments)
        assert answer.is_success, answer.text
        return answer.json()

    async def put(self, path: str, body: Any, *, as_: str) -> Any:
        """Put something that is allowed; return the answer."""
        answer = await self.call("PUT", path, as_=as_, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def all(self, path: str, *, as_: str = "vic", **parameters: Any) -> list[Json]:
        """Return all items of a list, page by page."""
        return [item async for item in self._items(path, as_, parameters)]

    async def _items(self, path: str, as_: str, parameters: Json) -> AsyncIterator[Json]:
        cursor = None
        while True:
            asked = parameters | ({} if cursor is None else {"cursor": cursor})
            page = await self.get(path, as_=as_, limit=PAGE, **asked)
            for item in page["items"]:
                yield item
            cursor = page["next"]
            if cursor is None:
                return

    async def until(
        self, ask: Callable[[], Awaitable[T]], holds: Callable[[T], object], what: str
    ) -> T:
        """Ask until the answer holds and return it; fails, saying `what` never came."""
        give_up = time.monotonic() + PATIENCE
        while True:
            answer = await ask()
            if holds(answer):
                return answer
            assert time.monotonic() < give_up, f"{what}; at last: {answer!r:.2000}"
            await asyncio.sleep(PAUSE)

    # What several stories do

    async def send(self, complaint: Json) -> Json:
        """Send feedback; return the receipt."""
        receipt: Json = await self.post("/intake/v1/feedback", complaint, as_="web-shop")
        return receipt

    async def status(self, receipt: Json) -> Json:
        """Ask where a message stands, as its sender does."""
        answer = await self.call("GET", receipt["status_url"], as_="web-shop")
        assert answer.status_code == 200, answer.text
        status: Json = answer.json()
        return status

    async def case_of(self, receipt: Json) -> Json:
        """Return the case of a message, once it has one."""
        status = await self.until(
            lambda: self.status(receipt), lambda told: told["state"] == "routed", "no case"
        )
        case: Json = await self.get(f"/routing/v1/cases/{status['case_id']}")
        return case

    async def figure(self, name: str) -> float:
        """Return a figure of the last days."""
        [period] = (await self.get("/analytics/v1/kpis"))["items"]
        found: float | None = next(kpi for kpi in period["kpis"] if kpi["name"] == name)["value"]
        return found or 0.0

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels, over all processes."""
        return sum([await self.metric_at(url, name, **labels) for url in self._everywhere()])

    async def metric_at(self, url: str, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels, in one process."""
        answer = await self._http.get(f"{url}/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def settled(self) -> None:
        """Wait until nothing is on its way: read, published, sent, and twice the same."""
        seen: list[float] = []

        async def quiet() -> bool:
            for url in self._everywhere():
                if not (await self._http.get(f"{url}/readyz")).is_success:
                    return False
            waiting = await self.metric("rapport_consumer_lag_records")
            waiting += await self.metric("rapport_relay_behind_aggregates")
            for state in ("queued", "leased"):
                page = await self.get("/notification/v1/notifications", state=state, limit=1)
                waiting += len(page["items"])
            seen.append(await self.metric("rapport_events_handled_total"))
            return not waiting and seen[-1:] == seen[-2:-1]

        await self.until(quiet, bool, "it does not come to rest")
