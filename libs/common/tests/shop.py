"""A toy service for tests of the machinery: tills count what they sold, then close."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import httpx2
from pydantic import Field

from rapport.common.aggregate import Aggregate, Due, Fact
from rapport.common.errors import Conflict, PermanentError
from rapport.common.events.envelope import Event, EventData, Instant, event
from rapport.common.events.topics import ANALYTICS, FEEDBACK
from rapport.common.handling import due, fact, on
from rapport.common.http import Command, Front, Router, command, operations
from rapport.common.runtime import Host, Service
from rapport.common.testing import Harness, token


@event("test.item.sold.v1", FEEDBACK, key="till")
class ItemSold(EventData):
    """Somebody bought something."""

    till: str
    item: str
    price: int = 1


@event("test.till.counted.v1", ANALYTICS, key="till")
class TillCounted(EventData):
    """A till has counted up to here."""

    till: str
    total: int
    item: str


@event("test.till.closed.v1", ANALYTICS, key="till")
class TillClosed(EventData):
    """A till is closed."""

    till: str
    total: int


class Till(Aggregate):
    """Counts what was sold; closes eight hours after its first sale."""

    COLLECTION: ClassVar[str] = "tills"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("closed", "total"),)

    total: int = 0
    items: list[str] = Field(default_factory=list)
    closes_at: Instant | None = None
    closed: bool = False

    def due(self) -> Iterable[Due]:
        if self.closes_at is not None and not self.closed:
            yield Due("close", self.closes_at)

    def sell(self, item: str, price: int) -> None:
        if self.closed:
            raise Conflict("the till is closed")
        self.total += price
        self.items.append(item)
        if price < 0:
            raise PermanentError("a price is not negative")
        if price == 13:
            raise ZeroDivisionError("a mistake in our own code")
        self.emit(TillCounted(till=self.id, total=self.total, item=item), key=item)


class Sale(Fact):
    """One sale, for figures."""

    COLLECTION: ClassVar[str] = "sales"
    FIELDS: ClassVar[tuple[str, ...]] = ("till", "price")
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("till", "price"),)

    till: str
    price: int


class Shop:
    """What the toy's prepare gets; `fail` makes it raise that many times."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.prepared: list[int] = []
        self.failures: list[Exception] = []
        self.after_close: list[str] = []


async def opening_hours(events: Sequence[Any], shop: Shop) -> int:
    shop.prepared.append(len(events))
    if shop.failures:
        raise shop.failures.pop()
    return 8


@on(ItemSold, changes=Till, key=lambda event: event.data.till, prepare=opening_hours)
def sell(till: Till | None, event: Event[ItemSold], hours: int) -> Till | None:
    till = till or Till(id=event.data.till, closes_at=event.time + timedelta(hours=hours))
    if event.data.item in till.items:
        return None
    till.sell(event.data.item, event.data.price)
    return till


async def lock_up(till: Till, shop: Shop) -> None:
    shop.after_close.append(till.id)


@due(Till, then=lock_up)
def close(till: Till, item: Due) -> Till:
    till.closed = True
    till.emit(TillClosed(till=till.id, total=till.total))
    return till


@fact(ItemSold)
def sale(event: Event[ItemSold]) -> Iterable[Fact]:
    yield Sale(id=event.id, till=event.data.till, price=event.data.price)


router = Router(prefix="/shop/v1")


@router.post("/tills/{till}/sales")
async def sell_by_hand(till: str, cmd: Annotated[Command, command("case.work")]) -> dict[str, int]:
    def decide(current: Till | None) -> Till:
        current = current or Till(id=till)
        current.sell(f"by-hand-{len(current.items)}", 5)
        return current

    return {"total": (await cmd.change(Till, till, decide)).total}


SHOP = Service(
    name="shop",
    title="A shop",
    consumes=(FEEDBACK,),
    kinds=(Till, Sale),
    declared=(sell, close, sale),
    router=router,
    resources=Shop,
)


@asynccontextmanager
async def front_of(shop: Harness) -> AsyncIterator[httpx2.AsyncClient]:
    """Call the whole application as a server has it, as somebody who may do everything."""
    app = Front({"shop": shop.running.app}, operations(shop.running.missing))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token('ana')}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://rapport.test", headers=headers
    ) as client:
        yield client
