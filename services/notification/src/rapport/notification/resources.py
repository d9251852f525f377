"""What notification's handlers and its API work with."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rapport.common.bus.port import Bus
from rapport.common.engine import Engine
from rapport.common.errors import TemporaryError
from rapport.common.policy import Policy
from rapport.common.store.port import Store
from rapport.notification.channels import Channels
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.destinations import Destinations
from rapport.notification.channels.rendering import Renderer
from rapport.notification.domain.allowances import Limits
from rapport.notification.repository import Directories

MOST_LISTENERS: Final = 500
MOST_LISTENERS_EACH: Final = 20
LISTEN_AGAIN_SECONDS: Final = 30.0


class Listeners:
    """Who listens to the live stream; each of them reads the log anew, so their number has a limit.

    `most` are heard at once, and `most_each` of one subject.
    """

    def __init__(self, most: int = MOST_LISTENERS, most_each: int = MOST_LISTENERS_EACH) -> None:
        self._most = most
        self._most_each = most_each
        self._now: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._now.total()

    @contextmanager
    def place(self, subject: str) -> Iterator[None]:
        """Let one more of `subject` listen while the block runs; raises TemporaryError."""
        if self._now[subject] >= self._most_each or len(self) >= self._most:
            raise TemporaryError("too many are listening", LISTEN_AGAIN_SECONDS)
        self._now[subject] += 1
        try:
            yield
        finally:
            self._now -= Counter([subject])  # which forgets whoever has none left


@dataclass(frozen=True)
class Resources:
    """See the module's docstring; `person_key` is what recipients are known by."""

    store: Store
    bus: Bus
    engine: Engine
    address_policy: AddressPolicy
    directory: Directories
    channels: Channels
    destinations: Destinations
    renderer: Renderer
    limits: Policy[Limits]
    person_key: bytes
    listeners: Listeners = field(default_factory=Listeners)
