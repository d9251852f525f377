"""What can never succeed: it is put aside, alone, and whatever stands beside it goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from rapport.common.aggregate import OUTBOX_LIMIT, Cause
from rapport.common.bus.dead_letters import DeadLetter, redriven
from rapport.common.bus.port import HEADERS_LIMIT
from rapport.common.engine import FOLD_LIMIT, Step
from rapport.common.errors import LONGEST_PAUSE, PermanentError, TemporaryError
from rapport.common.events import Message, Record, dead_letters, encode
from rapport.common.events.codec import Headers
from rapport.common.events.dead_letters import EventDeadLettered
from rapport.common.events.envelope import Event
from rapport.common.handling import on
from rapport.common.runtime import Service
from rapport.common.testing import MORNING, Harness, harness

from .shop import SHOP, ItemSold, Sale, Till, TillCounted, sell

TOO_BIG = 2**63


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(SHOP) as under_test:
        yield under_test


def letters(shop: Harness) -> list[Record]:
    return [record for record in shop.bus.records if record.topic == "rapport.dlq"]


def size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


async def items(shop: Harness, id: str = "t1") -> list[str]:
    till = await shop.running.store.get(Till, id)
    return till.items if till else []


async def test_a_fact_that_cannot_be_stored_costs_only_its_own_event(shop: Harness) -> None:
    huge = ItemSold(till="t1", item="palace", price=TOO_BIG)
    await shop.given(ItemSold(till="t2", item="tea"), huge, ItemSold(till="t3", item="cake"))

    assert [await items(shop, till) for till in ("t1", "t2", "t3")] == [[], ["tea"], ["cake"]]
    assert (await shop.running.store.tally(Sale))[0].count == 2
    assert {dead_letters.told(letter).data.reason for letter in letters(shop)} == {
        "tills cannot be stored as it is",
        "sales cannot be stored as it is",
    }


async def test_what_spoils_a_save_does_not_cost_the_events_beside_it(shop: Harness) -> None:
    await shop.given(
        ItemSold(till="t1", item="tea"),
        ItemSold(till="t1", item="palace", price=TOO_BIG),
        ItemSold(till="t1", item="cake"),
    )

    assert await items(shop) == ["tea", "cake"]
    assert [event.data.total for event in shop.all(TillCounted)] == [1, 2]


async def test_a_decision_that_emits_much_finds_room_behind_others(shop: Harness) -> None:
    def sell_many(count: int, name: str) -> Step:
        def decide(till: Till | None) -> Till:
            till = till or Till(id="t1")
            for number in range(count):
                till.sell(f"{name} {number}", 1)
            return till

        return Step(Cause(id=name, time=MORNING), decide)

    steps = [sell_many(FOLD_LIMIT - 1, "few"), sell_many(OUTBOX_LIMIT, "many")]
    await shop.running.engine.apply(Till, {"t1": steps})
    await shop.settle()

    assert [step.failure for step in steps] == [None, None]
    assert len(shop.all(TillCounted)) == FOLD_LIMIT - 1 + OUTBOX_LIMIT


async def test_an_event_that_no_bus_would_take_does_not_get_stuck_on_its_way_out(
    shop: Harness,
) -> None:
    await shop.given(
        shop.event(ItemSold(till="t1", item="tea"), correlationid="x" * 20_000),
        ItemSold(till="t2", item="cake"),
    )

    assert [await items(shop, till) for till in ("t1", "t2")] == [[], ["cake"]]
    [letter] = letters(shop)
    assert dead_letters.told(letter).data.reason == "an event's attributes are over 16 KiB"


async def test_a_stored_document_that_does_not_fit_costs_only_its_own_events(
    shop: Harness,
) -> None:
    get_many = shop.running.store.get_many

    async def one_is_damaged(kind, ids):  # type: ignore[no-untyped-def]
        if "t1" in ids:
            raise PermanentError("a stored tills does not fit")
        return await get_many(kind, ids)

    shop.running.store.get_many = one_is_damaged  # type: ignore[method-assign]
    await shop.given(ItemSold(till="t1", item="tea"), ItemSold(till="t2", item="cake"))

    assert await items(shop, "t2") == ["cake"]
    [letter] = letters(shop)
    assert dead_letters.told(letter).data.reason == "a stored tills does not fit"


async def test_what_can_be_prepared_alone_does_not_fail_with_the_batch() -> None:
    async def refuse_tea(events: Sequence[Event[ItemSold]], shop: object) -> int:
        if any(event.data.item == "tea" for event in events):
            raise PermanentError("no tea")
        return 8

    picky = on(ItemSold, changes=Till, key=lambda event: event.data.till, prepare=refuse_tea)
    async with harness(_shop(picky(sell.decide))) as shop:
        shop.running.clock.sleep = _no_time  # type: ignore[method-assign]
        await shop.given(*(ItemSold(till="t1", item=item) for item in ("cake", "tea", "bun")))

        assert await items(shop) == ["cake", "bun"]
        [letter] = letters(shop)
        assert dead_letters.told(letter).data.reason == "no tea"


async def test_a_dead_letter_has_room_for_why_whatever_headers_it_came_with(shop: Harness) -> None:
    sold = encode(shop.event(ItemSold(till="t1", item="x", price=-1)))
    taken = size(sold.headers)
    headers = (*sold.headers, ("x-trail", b"x" * (HEADERS_LIMIT - taken - 10)))
    await shop.deliver([sold._replace(headers=headers)])

    [letter] = letters(shop)
    assert dead_letters.told(letter).data.reason == "a price is not negative"
    assert size(letter.headers) <= HEADERS_LIMIT
    assert set(sold.headers) <= set(letter.headers)


async def test_a_dead_letter_without_room_for_all_headers_says_so_and_does_not_go_back(
    shop: Harness,
) -> None:
    sold = encode(shop.event(ItemSold(till="t1", item="x", price=-1)))
    await shop.deliver([sold])
    room = HEADERS_LIMIT - size(letters(shop)[0].headers) - len("x-trail")
    trails = [("x-trail", b"x" * length) for length in (room, room + 1)]
    await shop.deliver([sold._replace(headers=(*sold.headers, trail)) for trail in trails])

    _, whole, cut = map(DeadLetter.of, letters(shop))
    assert trails[0] in redriven(whole).headers
    assert set(sold.headers) <= set(cut.original.headers)
    had = size((*sold.headers, trails[1]))
    left_out = dict(cut.record.headers)["kafka_dlt-left-out"]
    assert left_out.decode() == f"headers, some of {had} bytes"
    with pytest.raises(PermanentError, match="too large to be kept whole"):
        redriven(cut)


async def test_a_long_or_broken_reason_is_cut_and_repaired() -> None:
    @on(ItemSold, changes=Till, key=lambda event: event.data.till)
    def refuse(till: Till | None, event: Event[ItemSold]) -> Till | None:
        raise PermanentError("\ud800" + "too long " * HEADERS_LIMIT)

    async with harness(_shop(refuse)) as shop:
        await shop.given(ItemSold(till="t1", item="tea"))
        [letter] = letters(shop)
        reason = dead_letters.told(letter).data.reason
        assert reason.startswith("?too long too long")
        assert len(reason) < 2_000


async def test_a_dead_letter_that_cannot_be_handled_is_not_written_again() -> None:
    @on(EventDeadLettered, changes=Till, key=lambda event: "t1")
    def fail(till: Till | None, event: Event[EventDeadLettered]) -> Till | None:
        raise PermanentError("not this either")

    poison = Message("rapport.feedback", "t1", b"{}", ())
    letter = Message("rapport.dlq", "t1", b"{}", (("kafka_dlt-original-offset", b"many"),))
    async with harness(_shop(fail)) as shop:
        with capture_logs() as logs:
            await shop.deliver([letter, poison._replace(topic="rapport.dlq")])
        assert letters(shop) == []
        assert [entry["event"] for entry in logs] == ["event.dead_lettered"] * 2


async def test_trouble_that_lasts_for_days_is_waited_out(shop: Harness) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    shop.running.clock.sleep = nap  # type: ignore[method-assign]
    shop.running.resources.failures = [TemporaryError("away")] * 1_100
    await shop.given(ItemSold(till="t1", item="tea"))

    assert await items(shop) == ["tea"]
    assert naps[0] == 1.0
    assert naps == sorted(naps)
    assert naps[-1] == LONGEST_PAUSE


def _shop(*declared: object) -> Service:
    """Return the shop with other handlers."""
    return Service(**{**vars(SHOP), "declared": declared})


async def _no_time(seconds: float) -> None:
    """A clock's sleep that takes none."""
    await asyncio.sleep(0)
