"""What every store promises: an adapter's test class inherits this and says how to open the store.

`opener` opens the same data each time it is called. Stores that outlive their process inherit
`DurableStoreContract` and give, in `source`, the Python that opens them in another process: with
`kinds` in scope, it leaves the store in a variable `store`; and, in `damage`, what spoils a stored
story by its id.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from rapport.common.aggregate import Aggregate, Due, Fact
from rapport.common.errors import Invalid, PermanentError, TemporaryError
from rapport.common.events.codec import Message
from rapport.common.events.envelope import Instant
from rapport.common.store import Change, Page, Range, Store, Tally, Where

NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO: Final = datetime(1970, 1, 2, tzinfo=UTC)
NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
ENGLISH: Final = "The kettle's lid broke off 🫖💔"
CHINESE: Final = "水壶的盖子断了，客服一直没有回复"
PERSIAN: Final = "درِ کتری شکست و کسی پاسخ نمی‌دهد"


class State(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class Story(Aggregate):
    COLLECTION = "story"
    INDEXES = (
        ("owner", "state"),
        ("state", "told_at"),
        ("region",),
        ("urgent",),
        ("score",),
        ("length",),
    )
    ORDER = "told_at"

    owner: str = "ana"
    state: State = State.OPEN
    told_at: Instant = NEW_YEAR
    region: str | None = None
    urgent: bool = False
    score: float = 0.0
    text: str = ""
    count: int = 0
    wakes: Instant | None = None

    @property
    def length(self) -> int:
        return len(self.text)

    def due(self) -> Iterable[Due]:
        return () if self.wakes is None else (Due("wakes", self.wakes),)


class Place(Aggregate):
    COLLECTION = "place"

    wakes: Instant | None = None

    def due(self) -> Iterable[Due]:
        return () if self.wakes is None else (Due("wakes", self.wakes),)


class Sale(Fact):
    COLLECTION = "sale"
    FIELDS = ("product", "sold_at", "price", "pieces", "returned")
    INDEXES = (("product", "sold_at"),)
    ORDER = "sold_at"

    product: str = "kettle"
    sold_at: Instant = NEW_YEAR
    price: float = 20.0
    pieces: int = 1
    returned: bool = False


class Visit(Fact):
    COLLECTION = "visit"


class Turn(Fact):
    """What is only ever looked for within its story."""

    COLLECTION = "turn"
    FIELDS = ("story", "place")
    INDEXES = (("story",),)
    ORDER = "place"
    LISTED = False

    story: str
    place: int


class NewerStory(Aggregate):
    """The same collection, as a later release has it."""

    COLLECTION = "story"
    SCHEMA = 2
    INDEXES = Story.INDEXES
    ORDER = "told_at"

    owner: str = "ana"
    state: State = State.OPEN
    told_at: Instant = NEW_YEAR
    region: str | None = None
    urgent: bool = False
    score: float = 0.0
    length: int = 0
    at: Instant | None = Field(default=NEW_YEAR)

    def due(self) -> Iterable[Due]:
        return (Due("wakes", NEW_YEAR),)


class Item(Aggregate):
    COLLECTION = "item"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("name",),)

    name: str = ""
    made_at: datetime = NEW_YEAR
    parts: list[str] = Field(default_factory=list)


class ItemByTime(Item):
    """The next release of `Item`: finds by other fields, and lists in another order."""

    INDEXES = (("size", "made_at"),)
    ORDER = "made_at"

    @property
    def size(self) -> int:
        return len(self.parts)


Kinds = Sequence[type[Aggregate] | type[Fact]]
Opener = Callable[[Kinds], Store]
Damage = Callable[[str], object]

KINDS: Final[Kinds] = (Story, Place, Sale, Visit, Turn)

STORIES: Final = [
    Story(
        id=f"story-{number}",
        owner=("ana", "ben", "دارا")[number % 3],
        state=State.CLOSED if number % 4 else State.OPEN,
        told_at=NEW_YEAR + timedelta(microseconds=number // 2),
        region=None if number % 5 == 0 else ("north", "südlich")[number % 2],
        urgent=number % 7 == 0,
        score=number / 4,
        text=CHINESE[: number % 6],
    )
    for number in range(24)
]


def after(**delta: float) -> datetime:
    """Return the new year moved by a timedelta's arguments."""
    return NEW_YEAR + timedelta(**delta)


def message(text: str) -> Message:
    headers = (("ce_type", b"rapport.story.told.v1"), ("raw", bytes(range(256))))
    return Message("rapport.stories", "story", text.encode(), headers)


def told(aggregate: Aggregate, *events: str) -> Change:
    """Return a change of `aggregate` with one message for each event id."""
    return Change(aggregate, [(event, message(event)) for event in events])


def ids(page: Page[Any]) -> list[str]:
    return [item.id for item in page.items]


async def save(store: Store, *items: Aggregate) -> None:
    assert all(await store.save_many([Change(item) for item in items]))


async def all_pages(store: Store, where: Where, *, limit: int, newest_first: bool) -> list[Story]:
    found: list[Story] = []
    cursor = None
    while True:
        page = await store.find(Story, where, limit=limit, cursor=cursor, newest_first=newest_first)
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        cursor = page.next


def satisfies(story: Story, where: Where) -> bool:
    """Tell, in plain Python, whether a story is one that `where` asks for."""
    return all(_is(getattr(story, name), wanted) for name, wanted in where.items())


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Range):
        return (
            value is not None
            and (wanted.start is None or value >= wanted.start)
            and (wanted.end is None or value < wanted.end)
        )
    return value in wanted if isinstance(wanted, list) else value == wanted


def _condition(values: Sequence[Any], *, ranged: bool = True) -> st.SearchStrategy[Any]:
    value = st.sampled_from(values)
    present = st.sampled_from([item for item in values if item is not None])
    ranges = st.builds(Range, st.none() | present, st.none() | present)
    kinds = [value, st.lists(value, max_size=3), *([ranges] if ranged else [])]
    return st.one_of(kinds)


WHERES: Final = st.fixed_dictionaries(
    {},
    optional={
        "id": _condition([story.id for story in STORIES]),
        "owner": _condition(["ana", "ben", "دارا", "nobody"]),
        "state": _condition(list(State), ranged=False),
        "told_at": _condition(
            [NEW_YEAR - timedelta(hours=1), *sorted({story.told_at for story in STORIES})]
        ),
        "region": _condition([None, "north", "südlich"], ranged=False),
        "urgent": _condition([True, False], ranged=False),
        "score": _condition([0.0, 1.25, 3.5, 100.0]),
        "length": _condition([0, 2, 5]),
    },
)

SHARED_AMONG_EXAMPLES: Final = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.differing_executors,  # several adapters inherit the test
]


class StoreContract:
    """The promises of the port; see the module's docstring."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, opener: Opener) -> AsyncIterator[Store]:
        store = opener(KINDS)
        await store.start()
        yield store
        await store.stop()

    # Saving

    @pytest.mark.parametrize("text", [ENGLISH, CHINESE, PERSIAN])
    async def test_what_is_saved_is_read_back(self, store: Store, text: str) -> None:
        story = Story(id=text, owner=text, text=text, told_at=after(microseconds=1), wakes=NEVER)
        await save(store, story)
        assert story.version == 1
        assert await store.get(Story, text) == story
        assert await store.get_many(Story, [text, "absent"]) == {text: story}
        assert (await store.find(Story, {"owner": text})).items == [story]

    async def test_what_was_never_saved_is_absent(self, store: Store) -> None:
        assert await store.get(Story, "absent") is None
        assert await store.get_many(Story, []) == {}
        assert await store.save_many([]) == []

    async def test_kinds_do_not_share_ids(self, store: Store) -> None:
        await save(store, Story(id="same"), Place(id="same"))
        assert isinstance(await store.get(Story, "same"), Story)
        assert isinstance(await store.get(Place, "same"), Place)

    async def test_creating_again_changes_nothing(self, store: Store) -> None:
        await save(store, Story(id="a", owner="first"))
        again = Story(id="a", owner="second")
        assert await store.save_many([told(again, "lost")]) == [False]
        assert again.version == 0
        kept = await store.get(Story, "a")
        assert kept is not None
        assert (kept.owner, kept.version) == ("first", 1)
        assert await store.outboxes(Story, ["a"]) == {}

    async def test_a_change_decided_on_an_old_version_loses(self, store: Store) -> None:
        await save(store, Story(id="a"))
        mine, theirs = await store.get(Story, "a"), await store.get(Story, "a")
        assert mine is not None
        assert theirs is not None
        theirs.count = 1
        await save(store, theirs)
        mine.count = 2
        assert await store.save_many([told(mine, "lost")]) == [False]
        assert await store.get(Story, "a") == theirs
        assert await store.outboxes(Story, ["a"]) == {}

    async def test_nothing_can_follow_on_what_was_never_stored(self, store: Store) -> None:
        assert await store.save_many([Change(Story(id="a", version=3))]) == [False]
        assert await store.get(Story, "a") is None

    async def test_racing_increments_lose_nothing(self, store: Store) -> None:
        await save(store, Story(id="a"))

        async def increment() -> None:
            while True:
                story = await store.get(Story, "a")
                assert story is not None
                story.count += 1
                if (await store.save_many([told(story, f"event-{story.count}")]))[0]:
                    return

        async def racer() -> None:
            for _ in range(20):
                await increment()

        await asyncio.gather(*(racer() for _ in range(8)))
        story = await store.get(Story, "a")
        assert story is not None
        assert (story.count, story.version) == (160, 161)
        outbox = (await store.outboxes(Story, ["a"]))["a"]
        assert [event for event, _ in outbox] == [f"event-{n}" for n in range(1, 161)]

    async def test_each_change_of_a_bulk_write_succeeds_or_loses_by_itself(
        self, store: Store
    ) -> None:
        await save(store, Story(id="known"), Place(id="place"))
        known = await store.get(Story, "known")
        assert known is not None
        changes = [
            told(Story(id="new"), "e1"),
            told(Story(id="known"), "e2"),
            told(known, "e3"),
            told(known.model_copy(deep=True), "e4"),
            told(Place(id="place"), "e5"),
            told(Place(id="elsewhere"), "e6"),
        ]
        assert await store.save_many(changes) == [True, False, True, False, False, True]
        assert [change.aggregate.version for change in changes] == [1, 0, 2, 1, 0, 1]
        assert await store.outboxes(Story, ["new", "known"]) == {
            "new": [("e1", message("e1"))],
            "known": [("e3", message("e3"))],
        }
        assert list(await store.outboxes(Place, ["place", "elsewhere"])) == ["elsewhere"]

    async def test_large_bulk_writes_and_reads(self, store: Store) -> None:
        stories = [Story(id=f"s{number}", count=number) for number in range(501)]
        await save(store, *stories)
        assert await store.get_many(Story, [story.id for story in stories]) == {
            story.id: story for story in stories
        }

    def test_a_change_has_limits(self) -> None:
        too_many = [(f"e{number}", message("")) for number in range(201)]
        with pytest.raises(PermanentError, match="200 events"):
            Change(Story(id="a"), too_many)
        with pytest.raises(PermanentError, match="256 KiB"):
            Change(Story(id="a"), [("e", message("x" * (256 * 1024 + 1)))])
        Change(Story(id="a"), [*too_many[1:-1], ("e", message("x" * 256 * 1024))])

    @pytest.mark.parametrize(
        "odd", [{"text": "\ud800"}, {"wakes": datetime(2026, 1, 1)}, {"owner": 2**63}]
    )
    async def test_what_can_never_be_stored_is_refused_before_anything_is_written(
        self, store: Store, odd: dict[str, Any]
    ) -> None:
        fine = Story(id="fine")
        with pytest.raises(PermanentError):
            await store.save_many([Change(fine), Change(Story.model_construct(id="odd", **odd))])
        assert await store.get(Story, "fine") is None
        await save(store, fine)

    # Outboxes

    async def test_an_outbox_keeps_its_order_over_saves(self, store: Store) -> None:
        story = Story(id="a")
        for events in (["z", "y"], [], ["x", "b"]):
            assert await store.save_many([told(story, *events)]) == [True]
        assert await store.outboxes(Story, ["a", "absent"]) == {
            "a": [(event, message(event)) for event in "zyxb"]
        }

    async def test_clearing_removes_exactly_what_is_named(self, store: Store) -> None:
        one, other = Story(id="one"), Story(id="other")
        await store.save_many([told(one, "e1", "e2", "e3"), told(other, "e1", "e2")])
        await store.clear_outboxes(Story, {"one": ["e1", "e3", "unknown"], "absent": ["e1"]})
        assert await store.outboxes(Story, ["one", "other"]) == {
            "one": [("e2", message("e2"))],
            "other": [("e1", message("e1")), ("e2", message("e2"))],
        }

    async def test_clearing_leaves_the_version_alone(self, store: Store) -> None:
        story = Story(id="a")
        await store.save_many([told(story, "e1")])
        await store.clear_outboxes(Story, {"a": ["e1"]})
        assert await store.outboxes(Story, ["a"]) == {}
        assert await store.get(Story, "a") == story
        await save(store, story)
        assert story.version == 2

    async def test_a_message_without_key_or_value_comes_back_as_it_was(self, store: Store) -> None:
        bare = Message("topic", None, None, ())
        await store.save_many([Change(Story(id="a"), [("e", bare)])])
        assert await store.outboxes(Story, ["a"]) == {"a": [("e", bare)]}

    async def test_waiting_names_the_oldest_outboxes_first(self, store: Store) -> None:
        for id in ("c", "a", "b"):
            await store.save_many([told(Story(id=id), "e1", "e2")])
        await store.save_many([told(Place(id="elsewhere"), "e1"), Change(Story(id="silent"))])
        await store.clear_outboxes(Story, {"c": ["e1"], "a": ["e1", "e2"]})
        assert await store.waiting(Story, NEVER) == ["c", "b"]
        assert await store.waiting(Story, NEVER, limit=1) == ["c"]
        assert await store.waiting(Place, NEVER) == ["elsewhere"]
        assert await store.waiting(Story, LONG_AGO) == []

    # Facts

    async def test_a_fact_is_inserted_once(self, store: Store) -> None:
        assert await store.insert_facts([Sale(id="a", pieces=1), Visit(id="v")]) == {"a", "v"}
        assert await store.insert_facts([Sale(id="a", pieces=9), Sale(id="b")]) == {"b"}
        assert await store.insert_facts([Sale(id="c"), Sale(id="c", pieces=9)]) == {"c"}
        assert await store.insert_facts([]) == set()
        found = await store.find(Sale)
        assert [(sale.id, sale.pieces) for sale in found.items] == [("a", 1), ("b", 1), ("c", 1)]
        assert ids(await store.find(Visit)) == ["v"]

    async def test_what_is_listed_within_something_only_keeps_its_order_there(
        self, store: Store
    ) -> None:
        places = [("b", 2), ("a", 2), ("a", 1), ("b", 1), ("a", 3)]
        turns = [Turn(id=f"{story}{place}", story=story, place=place) for story, place in places]
        await store.insert_facts(turns)
        page = await store.find(Turn, {"story": "a"}, limit=2)
        assert ids(page) == ["a1", "a2"]
        assert ids(await store.find(Turn, {"story": "a"}, cursor=page.next)) == ["a3"]
        assert ids(await store.find(Turn)) == ["a1", "b1", "a2", "b2", "a3"]

    async def test_the_same_fact_from_many_sides_is_new_once(self, store: Store) -> None:
        same = [Sale(id=f"sale-{number}") for number in range(10)]
        new = await asyncio.gather(*(store.insert_facts(same) for _ in range(8)))
        assert sorted(id for found in new for id in found) == sorted(sale.id for sale in same)

    # Finding

    @settings(max_examples=60, deadline=None, suppress_health_check=SHARED_AMONG_EXAMPLES)
    @given(where=WHERES, limit=st.integers(1, 7), newest_first=st.booleans())
    async def test_finding_agrees_with_plain_python(
        self, store: Store, where: dict[str, Any], limit: int, newest_first: bool
    ) -> None:
        await store.save_many([Change(story.model_copy()) for story in STORIES])
        expected = sorted(
            (story for story in STORIES if satisfies(story, where)),
            key=lambda story: (story.told_at, story.id),
            reverse=newest_first,
        )
        found = await all_pages(store, where, limit=limit, newest_first=newest_first)
        assert [story.id for story in found] == [story.id for story in expected]
        [counted] = await store.tally(Story, where=where, sums=["score", "length"])
        assert counted.count == len(expected)
        assert counted.sums == (
            sum(story.score for story in expected),
            sum(story.length for story in expected),
        )

    async def test_pages_are_stable_under_inserts(self, store: Store) -> None:
        def story(second: int, id: str) -> Story:
            return Story(id=id, told_at=after(seconds=second))

        await save(store, *(story(second, f"s{second}") for second in range(6)))
        first = await store.find(Story, limit=3)
        assert ids(first) == ["s0", "s1", "s2"]
        await save(store, story(1, "behind"), story(2, "s2-between"), story(9, "ahead"))
        second = await store.find(Story, limit=3, cursor=first.next)
        third = await store.find(Story, limit=3, cursor=second.next)
        assert ids(second) + ids(third) == ["s2-between", "s3", "s4", "s5", "ahead"]
        assert third.next is None

    async def test_order_is_exact_to_the_microsecond(self, store: Store) -> None:
        moments = [after(microseconds=step) for step in (2, 0, 1)]
        await save(store, *(Story(id=str(n), told_at=at) for n, at in enumerate(moments)))
        assert ids(await store.find(Story)) == ["1", "2", "0"]
        half = Range(moments[1], moments[0])
        assert ids(await store.find(Story, {"told_at": half})) == ["1", "2"]
        assert ids(await store.find(Story, {"told_at": Range(None, moments[0])})) == ["1", "2"]
        assert ids(await store.find(Story, {"told_at": Range(None, None)})) == ["1", "2", "0"]

    async def test_times_of_other_zones_are_the_same_moments(self, store: Store) -> None:
        await save(store, Story(id="a", told_at=datetime.fromisoformat("2026-01-01T08:00+08:00")))
        assert ids(await store.find(Story, {"told_at": NEW_YEAR})) == ["a"]

    async def test_what_changed_is_found_by_what_it_is_now(self, store: Store) -> None:
        story = Story(id="a")
        await save(store, story)
        story.state, story.text = State.CLOSED, "four"
        await save(store, story)
        assert ids(await store.find(Story, {"state": State.OPEN})) == []
        assert ids(await store.find(Story, {"state": "closed", "length": 4})) == ["a"]

    async def test_only_declared_fields_can_be_asked_for(self, store: Store) -> None:
        with pytest.raises(Invalid) as refused:
            await store.find(Story, {"text": "x"})
        assert [problem.pointer for problem in refused.value.problems] == ["/text"]
        with pytest.raises(Invalid):
            await store.tally(Story, ["text"])
        with pytest.raises(Invalid):
            await store.tally(Story, where={"text": "x"})
        with pytest.raises(Invalid):
            await store.tally(Sale, sums=["product"])

    @pytest.mark.parametrize(
        "where",
        [
            {"owner": 1},
            {"urgent": "yes"},
            {"told_at": datetime(2026, 1, 1)},
            {"told_at": Range("2026", None)},
            {"length": [2**63]},
            {"score": float("nan")},
            {"owner": "\ud800"},
        ],
    )
    async def test_a_value_of_another_type_is_refused(self, store: Store, where: Where) -> None:
        with pytest.raises(Invalid):
            await store.find(Story, where)

    @pytest.mark.parametrize(
        "cursor", ["", "x", "💥", "W10", "WzEsMl0", "WyJhIiwiYiJd", "W" * 5_000, "WzFlOTk5LCJhIl0"]
    )
    async def test_what_is_not_a_cursor_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(Invalid):
            await store.find(Story, cursor=cursor)

    # Counting

    async def test_tally_counts_and_sums_per_group(self, store: Store) -> None:
        await store.insert_facts(
            [
                Sale(id="1", product="kettle", price=20, pieces=2),
                Sale(id="2", product="kettle", price=0.5, pieces=1, returned=True),
                Sale(id="3", product="茶壶", price=30, sold_at=after(hours=1)),
            ]
        )
        assert sorted(await store.tally(Sale, ["product"], sums=["price", "pieces"]), key=repr) == [
            Tally(("kettle",), 2, (20.5, 3.0)),
            Tally(("茶壶",), 1, (30.0, 1.0)),
        ]
        by_time = await store.tally(Sale, ["sold_at", "returned"], {"product": ["kettle", "茶壶"]})
        assert {item.group: item.count for item in by_time} == {
            (NEW_YEAR, False): 1,
            (NEW_YEAR, True): 1,
            (after(hours=1), False): 1,
        }
        assert await store.tally(Sale, where={"product": "none"}, sums=["price"]) == [
            Tally((), 0, (0.0,))
        ]
        assert await store.tally(Sale, ["product"], {"product": "none"}) == []

    async def test_tally_of_aggregates(self, store: Store) -> None:
        await save(store, Story(id="a"), Story(id="b", region="north"), Story(id="c"))
        tallies = await store.tally(Story, ["state", "region"], {"owner": "ana"})
        assert {item.group: item.count for item in tallies} == {
            (State.OPEN, None): 2,
            (State.OPEN, "north"): 1,
        }

    # What falls due

    async def test_the_most_overdue_comes_first(self, store: Store) -> None:
        await save(
            store,
            Story(id="later", wakes=after(hours=3)),
            Story(id="b", wakes=after(hours=1)),
            Story(id="a", wakes=after(hours=2)),
            Story(id="now", wakes=after(hours=2, microseconds=1)),
            Story(id="asleep"),
        )
        now = after(hours=2, microseconds=1)
        assert [story.id for story in await store.due(Story, now)] == ["b", "a", "now"]
        assert [story.id for story in await store.due(Story, now, limit=1)] == ["b"]

    async def test_next_due_looks_at_all_the_kinds_that_it_is_asked_for(self, store: Store) -> None:
        assert await store.next_due([Story, Place]) is None
        assert await store.next_due([]) is None
        story = Story(id="a", wakes=after(hours=2))
        await save(store, story, Place(id="b", wakes=after(hours=1, microseconds=1)))
        assert await store.next_due([Story]) == after(hours=2)
        assert await store.next_due([Story, Place]) == after(hours=1, microseconds=1)
        story.wakes = None
        await save(store, story)
        assert await store.next_due([Story]) is None
        assert await store.due(Story, NEVER) == []

    # Deleting

    async def test_what_is_deleted_is_gone_for_good(self, store: Store) -> None:
        story = Story(id="a", wakes=NEW_YEAR)
        await save(store, story, Story(id="b"))
        assert await store.delete(Story, "a")
        assert await store.delete(Story, "a")
        assert await store.get(Story, "a") is None
        assert ids(await store.find(Story)) == ["b"]
        assert await store.due(Story, NEVER) == []
        assert await store.next_due([Story]) is None
        assert await store.tally(Story) == [Tally((), 1)]
        assert await store.save_many([Change(Story(id="a")), Change(story)]) == [False, False]
        assert await store.get(Story, "a") is None

    async def test_deleting_waits_for_an_empty_outbox(self, store: Store) -> None:
        story = Story(id="a")
        await store.save_many([told(story, "e1")])
        assert not await store.delete(Story, "a")
        assert await store.get(Story, "a") == story
        await store.clear_outboxes(Story, {"a": ["e1"]})
        assert await store.delete(Story, "a")

    async def test_a_tombstone_is_of_one_kind(self, store: Store) -> None:
        assert await store.delete(Story, "same")
        await save(store, Place(id="same"))
        assert await store.save_many([Change(Story(id="same"))]) == [False]

    # Trouble

    async def test_a_closed_store_is_trouble_that_passes(self, opener: Opener) -> None:
        store = opener(KINDS)
        await store.start()
        await store.stop()
        with pytest.raises(TemporaryError):
            await store.get(Story, "a")


class DurableStoreContract(StoreContract):
    """The promises of a store that outlives its process."""

    KILLS: ClassVar[int] = 3

    @pytest.fixture
    def source(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def damage(self) -> Damage:
        raise NotImplementedError

    async def test_all_of_it_is_there_after_a_restart(self, opener: Opener) -> None:
        store = opener(KINDS)
        await store.start()
        story = Story(id="a", wakes=NEW_YEAR)
        await store.save_many([told(story, "e1", "e2")])
        await store.insert_facts([Sale(id="s")])
        await store.delete(Place, "gone")
        await store.stop()

        store = opener(KINDS)
        await store.start()
        assert await store.get(Story, "a") == story
        assert await store.due(Story, NEVER) == [story]
        assert [event for event, _ in (await store.outboxes(Story, ["a"]))["a"]] == ["e1", "e2"]
        assert await store.waiting(Story, NEVER) == ["a"]
        assert await store.insert_facts([Sale(id="s")]) == set()
        assert await store.save_many([Change(Place(id="gone"))]) == [False]
        await store.stop()

    async def test_older_code_waits_where_newer_code_has_written(self, opener: Opener) -> None:
        newer = opener([NewerStory])
        await newer.start()
        await save(newer, NewerStory(id="a"))
        await newer.stop()

        older = opener(KINDS)
        await older.start()
        with pytest.raises(TemporaryError):
            await older.get(Story, "a")
        with pytest.raises(TemporaryError):
            await older.find(Story)
        assert await older.due(Story, NEVER) == []
        assert await older.save_many([Change(Story(id="a"))]) == [False]
        await older.stop()

    async def test_a_damaged_document_spoils_no_other(self, store: Store, damage: Damage) -> None:
        await save(store, *(Story(id=id, wakes=NEW_YEAR) for id in "abcde"))
        for id in "acd":
            damage(id)
        first = await store.find(Story, limit=2)
        second = await store.find(Story, limit=2, cursor=first.next)
        third = await store.find(Story, limit=2, cursor=second.next)
        assert [ids(page) for page in (first, second, third)] == [["b"], [], ["e"]]
        assert third.next is None
        for limit, due in enumerate([[], ["b"], ["b", "e"], ["b", "e"]]):
            assert [story.id for story in await store.due(Story, NEVER, limit=limit)] == due
        with pytest.raises(PermanentError):
            await store.get_many(Story, ["a", "b"])

    async def test_what_was_answered_survives_kill_9(self, opener: Opener, source: str) -> None:
        answered: dict[str, int] = {}
        for _ in range(self.KILLS):
            answered |= await asyncio.to_thread(_save_until_killed, source)
            store = opener(KINDS)
            await store.start()
            stories, outboxes = await _settled(store, list(answered))
            await store.stop()
            for id, version in answered.items():
                assert stories[id].version >= version
                assert len(outboxes[id]) == stories[id].version


async def _settled(
    store: Store, ids: Sequence[str]
) -> tuple[dict[str, Story], dict[str, list[tuple[str, Message]]]]:
    """Read both at one moment: a server may still carry out what a killed process asked for."""
    while True:
        stories = await store.get_many(Story, ids)
        outboxes = await store.outboxes(Story, ids)
        if await store.get_many(Story, ids) == stories:
            return stories, outboxes


def _save_until_killed(source: str) -> dict[str, int]:
    """Let a real process save, kill it with -9 in the middle, return the versions it answered."""
    command = [sys.executable, __file__, source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answers = [process.stdout.readline().split() for _ in range(25)]
        process.kill()
        answers += [line.split() for line in process.stdout if line.endswith("\n")]
    return {id: int(version) for id, version in answers}


async def _save_for_ever(store: Store) -> None:
    """Save stories from eight sides, and print each one's id and version once that is answered."""
    await store.start()

    async def write(side: int) -> None:
        for round in range(sys.maxsize):
            id = f"{side}-{round % 5}"
            story = await store.get(Story, id) or Story(id=id)
            event = f"{id}-{story.version}"
            if (await store.save_many([told(story, event)]))[0]:
                print(id, story.version, flush=True)

    await asyncio.gather(*(write(side) for side in range(8)))


if __name__ == "__main__":
    scope: dict[str, Any] = {"kinds": KINDS}
    exec(sys.argv[1], scope)
    asyncio.run(_save_for_ever(scope["store"]))
