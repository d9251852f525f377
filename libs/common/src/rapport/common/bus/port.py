"""The bus port: an ordered, partitioned log that many groups read, each at its own pace.

Promises, kept by every adapter and held to by `tests/contract/bus.py`:

- `publish` returns when all its messages are durable (fsync, acks=all). Messages of one call with
  the same key keep their order, and so do calls that follow each other. A call that fails may have
  published some of them: publishing again is safe, since ids make the repeat harmless.
- Delivery is at least once, in order within a partition; a key always maps to the same partition.
- One group hands one partition's batch at a time to its handler, and a partition whose handler
  waits holds up no other. A handler that returns is done with its batch; only then is the offset
  committed, never beyond an unfinished record. Retrying is the handler's own matter: one that
  raises stops its partition, loudly.
- `stop` (and a revoked partition) lets a running handler finish for up to `drain` seconds, then
  cancels it, and one that only waits (`bus/rests.py`) at once; what was not finished is delivered
  again.
- A message has up to 1,000,000 bytes of key and value and 32 KiB of headers, which together fit
  Kafka's default limit; a larger one, or one for a topic that was not declared, is a
  PermanentError. A key, value or header comes back as it was, byte for byte.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rapport.common.errors import PermanentError
from rapport.common.events.codec import Headers, Message, Record

MESSAGE_LIMIT: Final = 1_000_000
HEADERS_LIMIT: Final = 32 * 1024

Handler = Callable[[Sequence[Record]], Awaitable[None]]
"""Gets one partition's next records (1 to `max_batch`, in order); returning means they are done."""

Position = tuple[str, int]
"""A topic's name and a partition."""


def headers_size(headers: Headers) -> int:
    """Return how many bytes of `HEADERS_LIMIT` these take up."""
    return sum(len(name.encode()) + len(value) for name, value in headers)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind: records not yet done, and the age in seconds of the oldest."""

    records: int
    seconds: float


class Expired(PermanentError):
    """What was to be read has left the log."""

    status = 410
    title = "No longer kept"


class Subscription(Protocol):
    """A group's reading of its topics, from `subscribe` until `stop`."""

    @property
    def failures(self) -> Mapping[Position, Exception]:
        """The partitions that stopped, each with what its handler raised."""

    async def stop(self, drain: float = 20.0) -> None:
        """Stop reading; a running handler has `drain` seconds to finish."""

    async def lag(self) -> Lag:
        """Return how far this group is behind."""


class Readable(Protocol):
    """What is read without a group, and changes nothing."""

    async def start(self) -> None:
        """Open the bus; raises TemporaryError where it cannot be reached."""

    async def stop(self) -> None:
        """Close the bus; publishing that is under way is finished first."""

    def tail(
        self,
        topics: Sequence[str],
        after: Mapping[Position, int] | None = None,
        *,
        until: Mapping[Position, int] | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read without a group, until the bus stops; each item is of one partition.

        Whoever stops before that closes it (`contextlib.aclosing`), and with it what it holds open.

        Starts after the given offsets (-1 is before the first), in a partition without one at its
        end. Not given at all, it starts at the ends at the time it is first awaited. With `until`,
        offsets as `ends` gives them, it stops once it is past all of them; not every offset has a
        record. Raises `Expired` where what comes next has left the log.
        """

    async def starts(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset of the oldest record that is kept; else its end."""

    async def ends(self, topics: Sequence[str]) -> dict[Position, int]:
        """Return, per partition, the offset that the next record will get."""


class Bus(Readable, Protocol):
    """See the module's docstring for the promises."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make `messages` durable, or raise TemporaryError (maybe some are) or PermanentError."""

    async def subscribe(
        self, group: str, topics: Sequence[str], handler: Handler, *, max_batch: int = 500
    ) -> Subscription:
        """Read `topics` for `group`, from its committed offsets, else from the start."""
