"""Dead letters are looked at without personal data, and go back to whoever gave them up."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from rapport.common.bus.dead_letters import (
    DeadLetter,
    Place,
    Wanted,
    dead_letters,
    find,
    redrive,
    redrive_all,
    redriven,
    summary,
    view,
)
from rapport.common.bus.embedded import EmbeddedBus
from rapport.common.bus.history import history
from rapport.common.errors import Invalid, NotFound, PermanentError
from rapport.common.events import Message, Record, encode
from rapport.common.events.dead_letters import PREFIX, redriven_for
from rapport.common.events.feedback import Contact, FeedbackReceived
from rapport.common.events.shown import shown
from rapport.common.events.topics import DEAD_LETTERS, FEEDBACK, INBOUND
from rapport.common.events.vocabulary import Channel, Kind, Language
from rapport.common.testing import MORNING, Harness, harness

from .shop import SHOP, ItemSold, Till

SECRET: Final = "ana@example.org"


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(SHOP) as under_test:
        yield under_test


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.db")
    await bus.start()
    yield bus
    await bus.stop()


def given_up(
    message: Message, *, group: str = "shop", offset: int = 7, reason: str = "no"
) -> Message:
    """Return a message as the pipeline of a group gives it up."""
    details = {
        "original-topic": message.topic,
        "original-partition": "3",
        "original-offset": str(offset),
        "original-timestamp": "1",
        "original-consumer-group": group,
        "exception-fqcn": "rapport.common.errors.PermanentError",
        "exception-message": reason,
    }
    added = [(f"{PREFIX}{name}", value.encode()) for name, value in details.items()]
    return Message(DEAD_LETTERS.name, message.key, message.value, (*added, *message.headers))


def placed(message: Message) -> Record:
    return Record(message.topic, 0, 0, 0, message.key, message.value, message.headers)


def sold(item: str, till: str = "t1") -> Message:
    value = json.dumps({"till": till, "item": item}).encode()
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{till}-{item}",
        "ce_source": "/tests",
        "ce_type": ItemSold.TYPE,
        "ce_subject": till,
        "ce_time": MORNING.isoformat(),
    }
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return Message(FEEDBACK.name, till, value, packed)


def received() -> FeedbackReceived:
    return FeedbackReceived(
        feedback_id="f1",
        reference="F-1",
        case_id="c1",
        client="web-shop",
        kind=Kind.COMPLAINT,
        channel=Channel.WEB,
        source="web",
        language=Language.EN,
        text="My name is Ana",
        contact=Contact(person="p", email=SECRET),
        received_at=MORNING,
        occurred_at=MORNING,
    )


async def all_of(bus: EmbeddedBus, topic: str) -> list[Record]:
    return [record async for records in history(bus, [topic]) for record in records]


async def letters(bus: EmbeddedBus, wanted: Wanted | None = None) -> Sequence[DeadLetter]:
    return [letter async for letter in dead_letters(bus, wanted)]


def same(record: Record) -> tuple[str | None, bytes | None, list[tuple[str, bytes]]]:
    """Return what was published, without whom it was for."""
    return record.key, record.value, [item for item in record.headers if item[0] != "ce_redrive"]


# Looking


async def test_a_letter_tells_where_it_was_and_why_it_was_given_up(bus: EmbeddedBus) -> None:
    await bus.publish([given_up(sold("tea"), reason="the till is closed")])

    [letter] = await letters(bus)
    told = summary(letter)
    assert told.pop("at")
    assert told == {
        "place": str(letter.place),
        "group": "shop",
        "topic": "rapport.feedback",
        "partition": 3,
        "offset": 7,
        "type": "test.item.sold.v1",
        "id": "t1-tea",
        "cause": "rapport.common.errors.PermanentError",
        "reason": "the till is closed",
    }


async def test_letters_are_chosen_by_group_and_by_type(bus: EmbeddedBus) -> None:
    foreign = Message(INBOUND.name, "x", b"?", (("ce_type", b"com.example.mention"),))
    await bus.publish(
        [given_up(sold("tea")), given_up(sold("tea"), group="bank"), given_up(foreign)]
    )

    assert len(await letters(bus)) == 3
    assert [item.told.group for item in await letters(bus, Wanted(group="bank"))] == ["bank"]
    [mention] = await letters(bus, Wanted(group="shop", type="com.example.mention"))
    assert mention.original.topic == "rapport.inbound"


async def test_a_letter_is_viewed_without_personal_data_unless_they_are_asked_for(
    bus: EmbeddedBus, shop: Harness
) -> None:
    await bus.publish([given_up(encode(shop.event(received())))])

    [letter] = await letters(bus)
    hidden = view(letter)
    assert hidden["event"]["data"]["feedback_id"] == "f1"
    assert not any(secret in json.dumps(hidden) for secret in (SECRET, "Ana"))
    assert SECRET in json.dumps(view(letter, personal=True))


@pytest.mark.parametrize(
    ("topic", "member", "reason"),
    [
        (FEEDBACK.name, "unreadable", "the header ce_specversion is missing"),
        (INBOUND.name, "foreign", None),
    ],
)
async def test_of_what_cannot_be_read_or_others_wrote_only_the_size_is_told(
    bus: EmbeddedBus, topic: str, member: str, reason: str | None
) -> None:
    await bus.publish([given_up(Message(topic, SECRET, SECRET.encode(), ()))])

    [letter] = await letters(bus)
    hidden = view(letter)["event"][member]
    assert (hidden["bytes"], hidden["topic"], hidden["offset"]) == (15, topic, 7)
    assert hidden.get("reason") == reason
    assert SECRET not in json.dumps(view(letter))
    assert view(letter, personal=True)["event"][member]["value"] == SECRET


async def test_on_its_own_topic_a_letter_is_shown_as_the_event_that_somebody_gave_up(
    bus: EmbeddedBus, shop: Harness
) -> None:
    await bus.publish([given_up(encode(shop.event(received())))])

    [record] = await all_of(bus, DEAD_LETTERS.name)
    told = shown(record, personal=True)
    assert told["type"] == "rapport.event.dead_lettered.v1"
    assert SECRET not in json.dumps(told)


async def test_letters_are_found_by_their_places(bus: EmbeddedBus) -> None:
    await bus.publish([given_up(sold(str(item), f"t{item % 5}")) for item in range(50)])

    every = await letters(bus)
    chosen = [every[number] for number in (40, 3, 3, 17)]
    found = await find(bus, [letter.place for letter in chosen])
    assert found == [chosen[0], chosen[1], chosen[3]]


@pytest.mark.parametrize("place", ["99/0", "0/5", "0/-1", "-1/0"])
async def test_a_place_without_a_letter_is_named(bus: EmbeddedBus, place: str) -> None:
    with pytest.raises(NotFound, match=f"no dead letter {place}"):
        await find(bus, [Place.of(place)])


@pytest.mark.parametrize("text", ["", "3", "3/", "/7", "a/b", "3/7/1", "3-7"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Place.of(text)


# Sending back


async def test_a_record_goes_back_as_it_was_addressed_to_its_group(bus: EmbeddedBus) -> None:
    await bus.publish([sold("tea"), given_up(sold("tea"))])

    [letter] = await letters(bus)
    done = await redrive(bus, [letter.place])

    assert done.records == {("shop", "rapport.feedback"): 1}
    first, again = await all_of(bus, FEEDBACK.name)
    assert again.partition == first.partition
    assert same(again) == same(first)
    assert (redriven_for(first.headers), redriven_for(again.headers)) == (None, "shop")
    assert len(await letters(bus)) == 1


async def test_a_record_without_key_value_and_headers_goes_back_too(bus: EmbeddedBus) -> None:
    await bus.publish([given_up(Message(INBOUND.name, None, None, ()), group="intake")])

    await redrive_all(bus, Wanted())
    [record] = await all_of(bus, INBOUND.name)
    assert (record.key, record.value) == (None, None)
    assert tuple(record.headers) == (("ce_redrive", b"intake"),)


async def test_letters_that_say_the_same_go_back_once(bus: EmbeddedBus) -> None:
    """One that fails again and again does not grow with each time that all are sent back."""
    again = redriven(DeadLetter.of(placed(given_up(sold("tea")))))
    await bus.publish([given_up(sold("tea")), given_up(again, offset=90), given_up(sold("cake"))])
    await bus.publish([given_up(sold("tea"), group="bank")])

    done = await redrive_all(bus, Wanted())
    assert done.records == {("shop", "rapport.feedback"): 2, ("bank", "rapport.feedback"): 1}
    assert redriven_for(again.headers) == "shop"
    assert [name for name, _ in again.headers].count("ce_redrive") == 1


async def test_what_does_not_say_where_it_came_from_stays(bus: EmbeddedBus) -> None:
    strange = [
        Message(DEAD_LETTERS.name, "x", b"put here by somebody", ()),
        given_up(Message("somebody.elses", "x", b"", ())),
        given_up(Message(DEAD_LETTERS.name, "x", b"", ())),
        given_up(sold("tea"), group=""),
    ]
    await bus.publish([*strange, given_up(sold("cake"))])

    done = await redrive_all(bus, Wanted())
    assert (done.records.total(), done.left) == (1, 4)
    places = [letter.place for letter in await letters(bus)]
    with pytest.raises(PermanentError, match="does not say where it came from"):
        await redrive(bus, places)
    assert len(await all_of(bus, FEEDBACK.name)) == 1


async def test_a_record_that_was_too_large_to_be_kept_is_not_sent_back_empty(
    bus: EmbeddedBus,
) -> None:
    letter = given_up(sold("tea"))
    mark = (f"{PREFIX}left-out", b"key and value, 1000001 bytes")
    await bus.publish([letter._replace(key=None, value=None, headers=(mark, *letter.headers))])

    done = await redrive_all(bus, Wanted())
    assert (done.records.total(), done.left) == (0, 1)


async def test_many_letters_go_back_in_their_order(bus: EmbeddedBus) -> None:
    await bus.publish([given_up(sold(f"{item}", f"t{item % 3}")) for item in range(1_100)])

    assert (await redrive_all(bus, Wanted())).records.total() == 1_100
    sent = [record.value for record in await all_of(bus, FEEDBACK.name) if record.key == "t1"]
    assert sent == [sold(f"{item}", "t1").value for item in range(1, 1_100, 3)]


# Coming back


async def test_what_failed_is_done_once_its_cause_is_gone_and_no_more_than_once(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(till: Till, item: str, price: int) -> None:
        raise PermanentError("we are closed")

    with monkeypatch.context() as closed:
        closed.setattr(Till, "sell", refuse)
        await shop.deliver([sold("tea")])
    assert await shop.running.store.get(Till, "t1") is None
    letter = DeadLetter.of(shop.bus.records[-1])
    assert letter.told.reason == "we are closed"

    back = redriven(letter)
    await shop.deliver([back])
    await shop.deliver([back, back])

    till = await shop.running.store.get(Till, "t1")
    assert till is not None
    assert till.items == ["tea"]
    assert [record.topic for record in shop.bus.records].count(DEAD_LETTERS.name) == 1


async def test_what_still_cannot_be_read_is_given_up_again_by_its_group_alone(
    shop: Harness,
) -> None:
    poison = sold("tea")._replace(value=b"not json")
    for group in ("shop", "bank"):
        await shop.deliver(
            [poison._replace(headers=(*poison.headers, ("ce_redrive", group.encode())))]
        )
    [again] = [item for item in shop.bus.records if item.topic == DEAD_LETTERS.name]
    assert redriven(DeadLetter.of(again)).headers == (*poison.headers, ("ce_redrive", b"shop"))
