"""What a bus holds, read from end to end: from the oldest record that is kept to the present ends.

A tail follows for ever; this stops. It leans on the readable half of the port alone.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

from rapport.common.bus.port import Position, Readable
from rapport.common.events.codec import Record


async def history(bus: Readable, topics: Sequence[str]) -> AsyncIterator[Sequence[Record]]:
    """Yield everything that is kept of `topics`, in order within each partition.

    What is published meanwhile is left out. Raises Expired where retention overtakes the reading.
    """
    ends = await bus.ends(topics)
    async for records in stretch(bus, await bus.starts(topics), ends):
        yield records


async def stretch(
    bus: Readable, starts: Mapping[Position, int], ends: Mapping[Position, int]
) -> AsyncIterator[Sequence[Record]]:
    """Yield the records from `starts` on and before `ends`.

    Each item is of one partition. Raises Expired where they have left the log.
    """
    left = {place: ends[place] for place, start in starts.items() if start < ends[place]}
    if not left:
        return
    after = {place: starts[place] - 1 for place in left}
    async for records in bus.tail(sorted({topic for topic, _ in left}), after, until=left):
        end = left.get((records[0].topic, records[0].partition), 0)
        if records[-1].offset < end:
            yield records
        elif within := [record for record in records if record.offset < end]:
            yield within
