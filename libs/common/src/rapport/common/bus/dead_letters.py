"""Dead letters, to look at and to send back to the group that gave them up.

Sending back publishes the record on its own topic again, as it was, addressed to that one group;
the others pass over it. Its ids are the same, so what was done before is not done again, and a
letter can be sent back any number of times. The letter itself stays until retention takes it.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Self

from rapport.common.bus.history import history, stretch
from rapport.common.bus.port import Bus, Expired, Position, Readable
from rapport.common.errors import Invalid, NotFound, PermanentError
from rapport.common.events.codec import Message, Record, pack
from rapport.common.events.dead_letters import PREFIX, REDRIVE, EventDeadLettered, told
from rapport.common.events.shown import published, shown
from rapport.common.events.topics import DEAD_LETTERS, TOPICS

BATCH: Final = 500
LEFT_OUT: Final = f"{PREFIX}left-out"


class Place(NamedTuple):
    """Where a dead letter is: a partition of the dead letters' topic and an offset, as `3/17`."""

    partition: int
    offset: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a place; raises Invalid for what is none."""
        partition, _, offset = text.partition("/")
        try:
            return cls(int(partition), int(offset))
        except ValueError:
            raise Invalid("a dead letter's place is a partition and an offset, as 3/17") from None

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was given up, and what its headers tell of that."""

    record: Record
    told: EventDeadLettered

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read a record of the dead letters' topic."""
        return cls(record, told(record).data)

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.record.partition, self.record.offset)

    @property
    def at(self) -> datetime:
        """When it was given up."""
        return published(self.record)

    @property
    def original(self) -> Record:
        """The record as it was, and where it was."""
        told, headers = self.told, self.record.headers
        return self.record._replace(
            topic=told.topic,
            partition=told.partition,
            offset=told.offset,
            headers=tuple(item for item in headers if not item[0].startswith(PREFIX)),
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters: those of a group, of an event type; None is any."""

    group: str | None = None
    type: str | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        told = letter.told
        return self.group in (None, told.group) and self.type in (None, told.event_type)


@dataclass(slots=True)
class SentBack:
    """How many records went back, by group and topic; and how many letters stayed.

    Those do not say whence they came, or do not have their record whole.
    """

    records: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: int = 0


async def dead_letters(bus: Readable, wanted: Wanted | None = None) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters that are kept, up to the present ends, in order per partition."""
    wanted = wanted or Wanted()
    async for records in history(bus, [DEAD_LETTERS.name]):
        for letter in map(DeadLetter.of, records):
            if letter in wanted:
                yield letter


async def find(bus: Readable, places: Iterable[Place]) -> list[DeadLetter]:
    """Return the dead letters at `places`, each once, in that order.

    Raises NotFound, naming the place, where there is none or none any more.
    """
    places = list(dict.fromkeys(places))
    topics = [DEAD_LETTERS.name]
    starts, ends = await bus.starts(topics), await bus.ends(topics)
    offsets: dict[Position, list[int]] = defaultdict(list)
    for place in places:
        position = (DEAD_LETTERS.name, place.partition)
        if not starts.get(position, 0) <= place.offset < ends.get(position, 0):
            raise _not_found(place)
        offsets[position].append(place.offset)
    first = {position: min(some) for position, some in offsets.items()}
    last = {position: max(some) + 1 for position, some in offsets.items()}
    found: dict[Place, DeadLetter] = {}
    try:
        async for records in stretch(bus, first, last):
            here = {Place(record.partition, record.offset): record for record in records}
            found |= {place: DeadLetter.of(here[place]) for place in places if place in here}
    except Expired as error:
        raise NotFound(error.reason) from None
    for place in places:
        if place not in found:
            raise _not_found(place)
    return [found[place] for place in places]


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return where a letter is, what it was and why it was given up, ready for JSON."""
    told = letter.told
    return {
        "place": str(letter.place),
        "at": letter.at.isoformat(),
        "group": told.group,
        "topic": told.topic,
        "partition": told.partition,
        "offset": told.offset,
        "type": told.event_type,
        "id": told.event_id,
        "cause": told.cause,
        "reason": told.reason,
    }


def view(letter: DeadLetter, *, personal: bool = False) -> dict[str, Any]:
    """Return a letter with its event, personal data hidden unless they are asked for."""
    return summary(letter) | {"event": shown(letter.original, personal=personal)}


def redriven(letter: DeadLetter) -> Message:
    """Return the record as it was, addressed to the group that gave it up.

    Raises PermanentError where the letter does not say which group and topic that were, or does
    not have the record as it was.
    """
    group, topic = letter.told.group, letter.told.topic
    if any(name == LEFT_OUT for name, _ in letter.record.headers):
        raise PermanentError(f"dead letter {letter.place} was too large to be kept whole")
    if not group or topic not in TOPICS or topic == DEAD_LETTERS.name:
        raise PermanentError(f"dead letter {letter.place} does not say where it came from")
    original = letter.original
    headers = [item for item in original.headers if item[0] != REDRIVE]
    return Message(topic, original.key, original.value, (*headers, (REDRIVE, group.encode())))


async def redrive_all(bus: Bus, wanted: Wanted) -> SentBack:
    """Send back every dead letter that is wanted; letters that say the same go once."""
    done = SentBack()
    known: set[bytes] = set()
    batch: list[tuple[str, Message]] = []
    async for letter in dead_letters(bus, wanted):
        try:
            message = redriven(letter)
        except PermanentError:
            done.left += 1
            continue
        digest = _digest(message)
        if digest not in known:
            known.add(digest)
            batch.append((letter.told.group, message))
        if len(batch) == BATCH:
            await _publish(bus, batch, done)
            batch = []
    await _publish(bus, batch, done)
    return done


async def redrive(bus: Bus, places: Iterable[Place]) -> SentBack:
    """Send back the dead letters at `places`, none of them where one cannot go.

    Raises NotFound as `find` does, PermanentError as `redriven` does.
    """
    done = SentBack()
    letters = await find(bus, places)
    await _publish(bus, [(letter.told.group, redriven(letter)) for letter in letters], done)
    return done


async def _publish(bus: Bus, batch: Sequence[tuple[str, Message]], done: SentBack) -> None:
    await bus.publish([message for _, message in batch])
    done.records.update((group, message.topic) for group, message in batch)


def _digest(message: Message) -> bytes:
    packed = pack(message.headers)
    parts = (message.topic, message.key, message.value, packed.names, packed.values)
    return blake2b(repr(parts).encode(), digest_size=16).digest()


def _not_found(place: Place) -> NotFound:
    return NotFound(f"there is no dead letter {place}")
