"""The store port: typed collections of aggregates and facts.

Promises, kept by every adapter and held to by `tests/contract/store.py`:

- A save is one atomic, durable write: it happens only if the stored version is still the one that
  the change was decided on (compare-and-swap; version 0 means that nothing was stored), raises the
  version by one and appends the change's messages to the aggregate's outbox. Several changes are
  one bulk write, each succeeding or losing by itself. A call that fails may have done its work.
- An outbox keeps its order. Clearing removes exactly the named messages and leaves the version.
- Inserting a fact whose id is there already does nothing.
- Reads see every save that returned before they began.
- A document of a newer schema number than the code's raises TemporaryError (another process,
  already upgraded, wrote it). An adapter in trouble raises TemporaryError, one whose data are
  damaged PermanentError.
- A damaged document spoils no other: asked for by its id it is a PermanentError, `find` and `due`
  leave it out and tell its id in the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from rapport.common.aggregate import OUTBOX_LIMIT, Aggregate, Fact
from rapport.common.errors import PermanentError
from rapport.common.events.codec import Message

MESSAGE_LIMIT: Final = 256 * 1024

A = TypeVar("A", bound=Aggregate)
Stored = TypeVar("Stored", bound=Aggregate | Fact)


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open interval of values: at least `start`, below `end`; None leaves a side open."""

    start: Any = None
    end: Any = None


Where = Mapping[str, Any]
"""Field -> what it must be: a value, a list of values (any of them), None, or a `Range`."""


@dataclass(frozen=True, slots=True)
class Change:
    """One aggregate to save, as decided on its `version`, and the messages that follow from it.

    Raises PermanentError for more than 200 messages, or one whose value is over 256 KiB: no such
    change reaches a store.
    """

    aggregate: Aggregate
    messages: Sequence[tuple[str, Message]] = ()  # (event id, message)

    def __post_init__(self) -> None:
        name = self.aggregate.COLLECTION
        if len(self.messages) > OUTBOX_LIMIT:
            raise PermanentError(f"more than {OUTBOX_LIMIT} events for one save of {name}")
        if any(len(message.value or b"") > MESSAGE_LIMIT for _, message in self.messages):
            raise PermanentError(f"an event of {name} is over {MESSAGE_LIMIT // 1024} KiB")


@dataclass(frozen=True, slots=True)
class Page(Generic[Stored]):
    """Some items in the collection's order, and the cursor of the next page (None: no more)."""

    items: Sequence[Stored]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """A group of facts or aggregates: its field values, how many there are, the sums asked for."""

    group: tuple[Any, ...]
    count: int
    sums: tuple[float, ...] = field(default=())


class Store(Protocol):
    """See the module's docstring for the promises."""

    async def start(self) -> None:
        """Open the store and create what its collections need."""

    async def stop(self) -> None:
        """Finish the writes under way and close."""

    async def get(self, kind: type[A], id: str) -> A | None:
        """Return one aggregate, None where there is none."""

    async def get_many(self, kind: type[A], ids: Sequence[str]) -> dict[str, A]:
        """Return those of `ids` that are there, in one read."""

    async def find(
        self,
        kind: type[Stored],
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page[Stored]:
        """Return a page in the kind's declared order, ties by id.

        Where something damaged is left out, a page is shorter than `limit` and may have a next.
        Raises Invalid for a field that the kind does not declare, or a cursor that is not one.
        """

    async def tally(
        self,
        kind: type[Aggregate] | type[Fact],
        by: Sequence[str] = (),
        where: Where | None = None,
        *,
        sums: Sequence[str] = (),
    ) -> list[Tally]:
        """Count, and sum the fields of `sums`, per group of the declared fields `by`.

        Without `by` there is always exactly one group, which may count zero.
        """

    async def save_many(self, changes: Sequence[Change]) -> list[bool]:
        """Save each change; True where it was saved, False where another writer was first.

        No two are of the same aggregate. On True the aggregate's `version` is the stored one.
        Raises PermanentError, with nothing written, where one of them can never be stored (lone
        surrogates, a naive time, a number over 64 bits): saved one by one, the others go through.
        """

    async def insert_facts(self, facts: Sequence[Fact]) -> set[str]:
        """Insert `facts` of one or several kinds; return the ids that were new."""

    async def due(self, kind: type[A], now: datetime, *, limit: int = 200) -> list[A]:
        """Return aggregates whose `next_due` is not after `now`, the most overdue first.

        Those of a newer schema number are left to newer code; those that are damaged are left out,
        and take nobody's place.
        """

    async def next_due(self, kinds: Sequence[type[Aggregate]]) -> datetime | None:
        """Return when the next item of any of `kinds` falls due."""

    async def delete(self, kind: type[Aggregate], id: str) -> bool:
        """Replace an aggregate by a tombstone; False (nothing done) while its outbox is not empty.

        What has a tombstone is gone for every read and cannot be created again.
        """

    async def outboxes(
        self, kind: type[Aggregate], ids: Sequence[str]
    ) -> dict[str, list[tuple[str, Message]]]:
        """Return the outboxes, head first, of those of `ids` that have messages waiting."""

    async def clear_outboxes(
        self, kind: type[Aggregate], published: Mapping[str, Sequence[str]]
    ) -> None:
        """Remove exactly the named event ids from the named aggregates' outboxes."""

    async def waiting(
        self, kind: type[Aggregate], before: datetime, *, limit: int = 500
    ) -> list[str]:
        """Return ids of aggregates whose outbox holds something saved before `before`.

        The oldest come first; `before` is the machine's time, whatever the service's clock says.
        """
