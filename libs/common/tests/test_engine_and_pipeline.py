"""The one way that events, commands and due items take, told with a toy shop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from rapport.common.aggregate import Cause, Fact
from rapport.common.bus.pipeline import Pipeline
from rapport.common.engine import Step
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events import Event, Message, dead_letters, encode
from rapport.common.handling import fact
from rapport.common.store.port import Change
from rapport.common.testing import MORNING, Harness, harness

from .shop import SHOP, ItemSold, Sale, Shop, Till, TillClosed, TillCounted, lock_up, sell


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(SHOP) as under_test:
        yield under_test


async def till(shop: Harness, id: str = "t1") -> Till | None:
    return await shop.running.store.get(Till, id)


async def test_an_event_changes_its_aggregate_and_what_follows_is_published(shop: Harness) -> None:
    sold = shop.event(ItemSold(till="t1", item="tea", price=3))
    await shop.given(sold)

    counted = shop.published(TillCounted)
    assert counted.data.total == 3
    assert counted.causationid == sold.id
    assert counted.correlationid == sold.correlationid
    assert counted.time == sold.time
    assert counted.sequence == "0000000001.000"
    assert counted.hops == 1


async def test_a_repeated_event_changes_nothing_and_publishes_nothing_new(shop: Harness) -> None:
    sold = shop.event(ItemSold(till="t1", item="tea"))
    await shop.given(sold, sold)
    await shop.given(sold)

    assert len(shop.all(TillCounted)) == 1
    assert (await shop.running.store.tally(Sale))[0].count == 1


async def test_facts_are_given_what_was_prepared_for_them_together() -> None:
    async def discount(events: Sequence[Event[ItemSold]], _: Shop) -> int:
        return len(events)

    @fact(ItemSold, prepare=discount)
    def sale(event: Event[ItemSold], less: int) -> Iterable[Fact]:
        yield Sale(id=event.id, till=event.data.till, price=event.data.price - less)

    async with harness(replace(SHOP, declared=[sale])) as shop:
        await shop.given(*(ItemSold(till="t1", item=f"item {n}", price=n) for n in range(3, 6)))
        sales = await shop.running.store.find(Sale)
        assert sorted(sale.price for sale in sales.items) == [0, 1, 2]


async def test_a_batch_folds_into_one_save_per_aggregate(shop: Harness) -> None:
    await shop.given(*(ItemSold(till="t1", item=f"item {n}") for n in range(20)))

    counted = await till(shop)
    assert counted is not None
    assert (counted.version, counted.total) == (1, 20)
    assert [event.data.total for event in shop.all(TillCounted)] == list(range(1, 21))
    assert [event.sequence for event in shop.all(TillCounted)] == sorted(
        str(event.sequence) for event in shop.all(TillCounted)
    )
    assert shop.running.resources.prepared == [20]


async def test_a_long_story_of_one_aggregate_takes_several_saves(shop: Harness) -> None:
    await shop.given(*(ItemSold(till="t1", item=f"item {n}") for n in range(450)))

    counted = await till(shop)
    assert counted is not None
    assert (counted.version, counted.total) == (5, 450)
    assert len(shop.all(TillCounted)) == 450


async def test_an_event_that_can_never_be_stored_is_dead_lettered_alone(shop: Harness) -> None:
    await shop.given(
        ItemSold(till="t1", item="tea"),
        ItemSold(till="t1", item="茶" * 100_000),
        ItemSold(till="t1", item="cake"),
    )

    counted = await till(shop)
    assert counted is not None
    assert counted.items == ["tea", "cake"]
    assert shop.types().count("rapport.dlq") == 1


async def test_what_was_deleted_stays_deleted(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    assert await shop.running.store.delete(Till, "t1")
    await shop.given(ItemSold(till="t1", item="cake"))

    assert await till(shop) is None
    letter = next(record for record in shop.bus.records if record.topic == "rapport.dlq")
    assert dead_letters.told(letter).data.reason == "it was deleted and stays so"


async def test_a_failing_decision_drops_only_its_own_event(shop: Harness) -> None:
    await shop.given(
        ItemSold(till="t1", item="tea"),
        ItemSold(till="t1", item="a mistake", price=-5),
        ItemSold(till="t1", item="a bug", price=13),
        ItemSold(till="t1", item="cake"),
    )

    counted = await till(shop)
    assert counted is not None
    assert (counted.total, counted.items) == (2, ["tea", "cake"])
    letters = [record for record in shop.bus.records if record.topic == "rapport.dlq"]
    told = [dead_letters.told(letter).data for letter in letters]
    assert [letter.reason for letter in told] == ["a price is not negative", "ZeroDivisionError"]
    assert {letter.group for letter in told} == {"shop"}


async def test_a_dead_letter_keeps_the_record_as_it_was(shop: Harness) -> None:
    message = encode(shop.event(ItemSold(till="t1", item="x", price=-1)))
    await shop.deliver([message])

    letter = next(record for record in shop.bus.records if record.topic == "rapport.dlq")
    assert letter.value == message.value
    assert letter.key == message.key
    assert set(message.headers) <= set(letter.headers)


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{}", ()),
        (b"not json", (("ce_specversion", b"1.0"), ("ce_type", b"test.item.sold.v1"))),
        (b"\xff", (("ce_specversion", b"\xff\xfe"),)),
    ],
)
async def test_poison_is_dead_lettered_and_the_rest_goes_on(
    shop: Harness, value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    poison = Message("rapport.feedback", "t1", value, headers)
    await shop.deliver([poison, encode(shop.event(ItemSold(till="t1", item="tea")))])

    assert shop.published(TillCounted).data.total == 1
    assert [record.topic for record in shop.bus.records].count("rapport.dlq") == 1


async def test_a_redriven_event_reaches_only_its_group(shop: Harness) -> None:
    await shop.given(
        shop.event(ItemSold(till="t1", item="tea"), redrive="somebody else"),
        shop.event(ItemSold(till="t1", item="cake"), redrive="shop"),
    )

    counted = await till(shop)
    assert counted is not None
    assert counted.items == ["cake"]


async def test_an_older_event_of_the_same_subject_is_skipped_unless_redriven(
    shop: Harness,
) -> None:
    newer = shop.event(ItemSold(till="t1", item="b"), subject="s", sequence="0000000002.000")
    older = shop.event(ItemSold(till="t1", item="a"), subject="s", sequence="0000000001.000")
    again = shop.event(
        ItemSold(till="t1", item="a"), subject="s", sequence="0000000001.000", redrive="shop"
    )
    await shop.given(newer, older)
    counted = await till(shop)
    assert counted is not None
    assert counted.items == ["b"]

    await shop.given(again)
    counted = await till(shop)
    assert counted is not None
    assert counted.items == ["b", "a"]


async def test_trouble_of_our_own_is_waited_out(shop: Harness) -> None:
    shop.running.resources.failures = [TemporaryError("the store is away", delay=0.0)]
    waiting = shop.running.clock
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    waiting.sleep = nap  # type: ignore[method-assign]
    await shop.given(ItemSold(till="t1", item="tea"))

    assert len(naps) == 1
    assert shop.published(TillCounted).data.total == 1


async def test_what_falls_due_happens_once_with_its_due_time(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    await shop.advance(hours=7)
    assert shop.all(TillClosed) == []

    await shop.advance(hours=50)
    assert shop.published(TillClosed).time == MORNING + timedelta(hours=8)
    assert shop.running.resources.after_close == ["t1"]


async def test_a_command_with_the_same_key_is_applied_once(shop: Harness) -> None:
    for _ in range(3):
        answer = await shop.call(
            "POST", "/shop/v1/tills/t1/sales", headers={"Idempotency-Key": "k"}
        )
        assert answer.json() == {"total": 5}
    assert shop.published(TillCounted).data.total == 5


async def test_a_command_on_a_changed_aggregate_is_refused(shop: Harness) -> None:
    await shop.call("POST", "/shop/v1/tills/t1/sales")
    await shop.call("POST", "/shop/v1/tills/t1/sales")
    answer = await shop.call("POST", "/shop/v1/tills/t1/sales", headers={"If-Match": '"1"'})

    assert answer.status_code == 412
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_refused_command_changes_nothing(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    await shop.advance(hours=9)
    answer = await shop.call("POST", "/shop/v1/tills/t1/sales")

    assert (answer.status_code, answer.json()["detail"]) == (409, "the till is closed")


async def test_a_lost_race_is_decided_again(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    engine = shop.running.engine
    first = True

    def overtaken(current: Till | None) -> Till:
        nonlocal first
        assert current is not None
        current.total += 100
        return current

    original = engine.store.save_many

    async def somebody_is_faster(changes):  # type: ignore[no-untyped-def]
        nonlocal first
        if first:
            first = False
            other = await engine.store.get(Till, "t1")
            assert other is not None
            other.total += 1
            await original([type(changes[0])(other, ())])
        return await original(changes)

    engine.store.save_many = somebody_is_faster  # type: ignore[method-assign]
    await engine.apply(Till, {"t1": [Step(Cause(id="c", time=MORNING), overtaken)]})

    counted = await till(shop)
    assert counted is not None
    assert (counted.total, counted.version) == (102, 3)


class Counted:
    """The changes of each save."""

    def __init__(self, shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saves: list[list[str]] = []
        self.trouble: Exception | None = None
        self._save = shop.running.engine.store.save_many
        monkeypatch.setattr(shop.running.engine.store, "save_many", self)

    async def __call__(self, changes: Sequence[Change]) -> list[bool]:
        self.saves.append([change.aggregate.id for change in changes])
        if self.trouble is not None:
            raise self.trouble
        return await self._save(changes)


async def two_tills(shop: Harness) -> tuple[Till, Till]:
    await shop.given(ItemSold(till="t1", item="tea"), ItemSold(till="t2", item="tea"))
    first, second = await till(shop, "t1"), await till(shop, "t2")
    assert first is not None
    assert second is not None
    return first, second


async def charged(shop: Harness, read: Till, price: int) -> Till:
    def charge(till: Till | None) -> Till:
        assert till is not None
        till.sell("fee", price)
        return till

    return await shop.running.engine.change(Till, read.id, charge, cause="fee", read=read)


async def test_commands_of_one_turn_on_what_was_read_already_are_saved_together(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two_tills(shop)
    counted = Counted(shop, monkeypatch)
    after = await asyncio.gather(charged(shop, first, 2), charged(shop, second, 3))
    assert [item.total for item in after] == [3, 4]
    assert counted.saves == [["t1", "t2"]]


async def test_of_commands_that_go_together_each_hears_of_its_own(shop: Harness) -> None:
    first, second = await two_tills(shop)
    refused, after = await asyncio.gather(
        charged(shop, first, -1), charged(shop, second, 3), return_exceptions=True
    )
    assert isinstance(refused, PermanentError)
    assert isinstance(after, Till)
    assert after.total == 4
    unchanged = await till(shop, "t1")
    assert unchanged is not None
    assert unchanged.total == 1


async def test_trouble_is_told_to_all_whose_commands_went_together(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two_tills(shop)
    Counted(shop, monkeypatch).trouble = TemporaryError("the store is away")
    told = await asyncio.gather(
        charged(shop, first, 2), charged(shop, second, 3), return_exceptions=True
    )
    assert list(map(str, told)) == ["the store is away"] * 2


async def test_what_was_saved_is_published_though_the_answer_was_trouble(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = shop.running.store, shop.running.clock
    save_many = store.save_many

    async def saved_but_not_answered(changes: Sequence[Change]) -> list[bool]:
        monkeypatch.setattr(store, "save_many", save_many)
        await save_many(changes)
        raise TemporaryError("the connection is lost", delay=0.0)

    async def nap(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(store, "save_many", saved_but_not_answered)
    monkeypatch.setattr(clock, "sleep", nap)
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), subject="s", sequence="1.000"))
    assert shop.published(TillCounted).data.total == 1


async def test_what_was_leased_begins_though_others_of_its_batch_meet_trouble(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_tills(shop)
    running, store, shopkeeper = shop.running, shop.running.store, shop.running.resources
    get_many, save_many = store.get_many, store.save_many
    begun_by_then: list[list[str]] = []

    async def away(kind: type[Till], ids: Sequence[str]) -> dict[str, Till]:
        raise TemporaryError("the store is away", delay=0.0)

    async def overtaken_then_away(changes: Sequence[Change]) -> list[bool]:
        monkeypatch.setattr(store, "save_many", save_many)
        monkeypatch.setattr(store, "get_many", away)
        first, _ = changes
        return [*await save_many([first]), False]

    async def back_again(seconds: float) -> None:
        await running.scheduler.settle_effects()
        begun_by_then.append([*shopkeeper.after_close])
        monkeypatch.setattr(store, "get_many", get_many)

    monkeypatch.setattr(Till, "is_leased", True)
    monkeypatch.setattr(store, "save_many", overtaken_then_away)
    monkeypatch.setattr(running.clock, "sleep", back_again)
    leasing = replace(sell, then=lock_up)
    running.pipeline = Pipeline(
        running.engine, shop.bus, running.clock, [leasing], [], running.resources
    )
    await shop.given(ItemSold(till="t1", item="milk"), ItemSold(till="t2", item="milk"))
    assert begun_by_then == [["t1"]]
    assert shopkeeper.after_close == ["t1", "t2"]


async def test_what_was_read_is_read_again_where_somebody_was_faster(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    stale = await till(shop)
    assert stale is not None
    await shop.given(ItemSold(till="t1", item="milk"))
    after = await charged(shop, stale, 5)
    assert (after.total, after.items) == (7, ["tea", "milk", "fee"])


async def test_a_drill_never_mixes_with_the_real_thing(shop: Harness) -> None:
    await shop.given(ItemSold(till="t1", item="tea"))
    await shop.given(shop.event(ItemSold(till="t1", item="drill"), exercise="fire drill"))

    counted = await till(shop)
    assert counted is not None
    assert counted.items == ["tea"]
    assert "rapport.dlq" in [record.topic for record in shop.bus.records]


async def test_a_circle_of_events_is_stopped(shop: Harness) -> None:
    await shop.given(shop.event(ItemSold(till="t1", item="tea"), hops=16))

    assert shop.all(TillCounted) == []
    assert [record.topic for record in shop.bus.records] == ["rapport.dlq"]
