"""Customers and staff: a steady load over real HTTP, and what it was promised.

Customers complain, one message at a time or ten, three to a conversation; staff answer some of the
cases; some customers ask again and again how it stands. What got no answer, or was sent away for a
while, is sent once more until it is answered, as clients do: under its own reference, or with the
same Idempotency-Key. So in the end everything that was sent is accepted, and how often does not
matter.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import monotonic
from typing import Any, Final

import httpx2

from tests.integration.clients import Json, Rapport

BATCH: Final = 10
BATCHES: Final = 0.1
"""The share of letters that are batches."""

PER_CONVERSATION: Final = 3
ANSWERED: Final = 0.08
WATCHED: Final = 0.1
"""The shares of messages whose case is answered, and whose sender asks how it stands."""

LOOKS: Final = 12
LOOK_SECONDS: Final = 0.5
PAUSE: Final = 0.3
LONGEST_PAUSE: Final = 2.0
TICK: Final = 0.1
MOST_UNANSWERED: Final = 150
"""Letters on their way at most; then customers wait before they write."""

AT_ONCE: Final = 16
"""Letters on their way where somebody sends as fast as they are taken."""

FINISH_SECONDS: Final = 240.0
PRODUCT: Final = "toaster TX-1"


class Insistent:
    """Calls that are made again until they are answered, one way or the other."""

    def __init__(self, rapport: Rapport, answers: Counter[str]) -> None:
        self._rapport = rapport
        self._answers = answers

    async def call(
        self, method: str, path: str, body: Any = None, *, as_: str, key: str | None = None
    ) -> httpx2.Response:
        """Return the answer to a call; a 5xx, or none at all, is no answer."""
        headers = {"Idempotency-Key": key} if key else {}
        pause = PAUSE
        while True:
            try:
                answer = await self._rapport.call(method, path, as_=as_, json=body, headers=headers)
            except httpx2.TransportError:
                self._answers["no answer"] += 1
            else:
                self._answers[f"{answer.status_code}"] += 1
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def told(
        self, method: str, path: str, body: Any = None, *, as_: str = "vic", key: str | None = None
    ) -> Json:
        """Return what a call is told; raises Unexpected for a refusal."""
        answer = await self.call(method, path, body, as_=as_, key=key)
        if not answer.is_success:
            raise Unexpected(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        told: Json = answer.json()
        return told


class Unexpected(Exception):
    """An answer that nobody should get."""


@dataclass
class Promises:
    """What everybody sent and was told; `statuses` are the states a sender was shown, in order."""

    sent: dict[str, Json] = field(default_factory=dict)
    accepted: dict[str, Json] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    crises: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)


class People:
    """See the module's docstring."""

    def __init__(self, rapport: Rapport, random: Random) -> None:
        self.promises = Promises()
        self.insistent = Insistent(rapport, self.promises.answers)
        self._random = random
        self._numbers = count()
        self._answered: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at_work(self, rate: float) -> AsyncIterator[None]:
        """Send so many messages a second while the block runs."""
        writing = asyncio.create_task(self._write(rate))
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def finish(self) -> None:
        """Return when everything has been answered that was sent; what is not in time is noted."""
        deadline = monotonic() + FINISH_SECONDS
        while self._tasks and (left := deadline - monotonic()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            self.promises.unexpected.append(f"{task.get_name()} came to no end")
            task.cancel()

    async def send(self, number: int) -> None:
        """Send so many messages as fast as they are taken."""
        while number > 0:
            number -= self._begin()
            while len(self._tasks) >= AT_ONCE:
                await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)
        await self.finish()

    def spawn(self, deed: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside all else; `finish` waits for it."""
        task = asyncio.create_task(self._noting(deed), name=getattr(deed, "__qualname__", ""))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def post_one(self, message: Json) -> Json:
        """Send a message until it is accepted; return the receipt."""
        self.promises.sent[message["source_ref"]] = message
        receipt = await self.insistent.told("POST", "/intake/v1/feedback", message, as_="web-shop")
        self._accept(message, receipt["id"])
        return receipt

    async def _noting(self, deed: Coroutine[Any, Any, None]) -> None:
        try:
            await deed
        except (Unexpected, KeyError, ValueError) as error:
            self.promises.unexpected.append(f"{type(error).__name__}: {error}")

    async def _write(self, rate: float) -> None:
        began, written = monotonic(), 0
        while True:
            await asyncio.sleep(TICK)
            should = rate * (monotonic() - began)
            while written < should and len(self._tasks) < MOST_UNANSWERED:
                written += self._begin()
            written = max(written, int(should) - BATCH)  # what had to wait is not made up for

    def _begin(self) -> int:
        """Begin a letter; return how many messages it has."""
        size = BATCH if self._random.random() < BATCHES else 1
        messages = [complaint(next(self._numbers)) for _ in range(size)]
        self.promises.sent |= {message["source_ref"]: message for message in messages}
        self.spawn(self._deliver(messages))
        return size

    async def _deliver(self, messages: list[Json]) -> None:
        if len(messages) == 1:
            receipt = await self.post_one(messages[0])
            if self._random.random() < WATCHED:
                self.spawn(self._watch(receipt))
            if self._random.random() < ANSWERED:
                self.spawn(self._answer(receipt))
            return
        told = await self.insistent.told(
            "POST", "/intake/v1/feedback/batch", messages, as_="web-shop"
        )
        for item in told["items"]:
            if "id" not in item:
                raise Unexpected(f"an item of a batch was refused: {item}")
            self._accept(messages[item["index"]], item["id"])

    def _accept(self, message: Json, id: str) -> None:
        known = self.promises.accepted.setdefault(id, message)
        if known["source_ref"] != message["source_ref"]:
            raise Unexpected(f"two messages have the id {id}")

    async def _watch(self, receipt: Json) -> None:
        """Ask how a message stands, again and again."""
        seen = self.promises.statuses.setdefault(receipt["id"], [])
        for _ in range(LOOKS):
            status = await self.insistent.told("GET", receipt["status_url"], as_="web-shop")
            seen.append(status["state"])
            await asyncio.sleep(LOOK_SECONDS)

    async def case_of(self, receipt: Json) -> str:
        """Return the case of a message, once it has one."""
        while True:
            status = await self.insistent.told("GET", receipt["status_url"], as_="web-shop")
            if status["state"] not in ("pending", "received", "failed"):
                return str(status["case_id"])
            await asyncio.sleep(PAUSE)

    async def _answer(self, receipt: Json) -> None:
        """Answer a case that nobody has answered."""
        case = await self.case_of(receipt)
        if case in self._answered:
            return
        self._answered.add(case)
        reply = await self.insistent.told(
            "POST",
            f"/routing/v1/cases/{case}/replies",
            {"text": "We are sorry. Your money is on its way."},
            as_="lin",
            key=f"answer-{case}",
        )
        self.promises.replies[reply["id"]] = case


def complaint(number: int) -> Json:
    """Return a complaint; three of them are one conversation."""
    conversation = number // PER_CONVERSATION
    return {
        "kind": "complaint",
        "channel": "email",
        "source": "chaos",
        "source_ref": f"message-{number}",
        "thread_ref": f"conversation-{conversation}",
        "text": f"The toaster broke after {number} days. I want my money back.",
        "product": PRODUCT,
        "contact": {"email": f"person{conversation}@example.org"},
    }
