"""Fetching: what a consumer gets, as our records, by partition and in order.

Somebody else's record may have anything in it. Bytes that are no text are replaced in a key; what
the client cannot take apart at all (the name of a header that is not UTF-8 is enough) comes as a
record without key, value and headers, so that it is dead-lettered with its place and those behind
it come next. The client loses what it has read when that happens, so it is told to read it again.
"""

from collections.abc import Mapping
from gzip import BadGzipFile
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError

from rapport.common.bus.kafka.brokers import Brokers
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Record

POLL_MS: Final = 500
WAIT_MS: Final = 100
"""How long a broker may wait for records: one request is under way to each, so a partition that is
resumed meanwhile waits that long, too."""
PATIENCE_MS: Final = 2_000
STEPS: Final = 1_000
PARTITION_BYTES: Final = 256 * 1024
FETCH_BYTES: Final = 8 * 1024 * 1024

SETTINGS: Final = {
    "auto_offset_reset": "none",
    "max_partition_fetch_bytes": PARTITION_BYTES,
    "fetch_max_bytes": FETCH_BYTES,
    "fetch_max_wait_ms": WAIT_MS,
}
"""Of a consumer whose records come through here."""

log = structlog.get_logger(__name__)

Fetched = Mapping[TopicPartition, list[Record]]
Unread = dict[TopicPartition, list[ConsumerRecord]]


class _Unreadable(Exception):
    """There is a record that the client cannot take apart."""


class _GivenOut(Exception):
    """The partitions were given out anew meanwhile."""


class Fetching:
    """Fetches with one consumer; `positions` has the next offset of each partition."""

    def __init__(self, consumer: AIOKafkaConsumer, brokers: Brokers) -> None:
        self._consumer = consumer
        self._brokers = brokers
        self.positions: dict[TopicPartition, int] = {}

    async def some(self) -> Fetched:
        """Return what has been fetched, or nothing after half a second.

        Raises KafkaError, or TemporaryError where the client itself is in trouble.
        """
        try:
            fetched = await self._got(timeout_ms=POLL_MS)
        except _Unreadable:
            return await self._one_by_one()
        return {place: self._records(place, found) for place, found in fetched.items()}

    def _records(self, place: TopicPartition, found: list[ConsumerRecord]) -> list[Record]:
        self.positions[place] = found[-1].offset + 1
        return [record_of(one) for one in found]

    async def _got(self, *places: TopicPartition, **how_much: int) -> Unread:
        """Return what the client has read; raises _Unreadable where it cannot.

        What else goes wrong with it is told by the same call, whatever the partition: a connection
        that is reset as something is written, a task of its own that has ended.
        """
        try:
            return dict(await self._consumer.getmany(*places, **how_much))
        except (BadGzipFile, CorruptRecordException) as error:
            raise _Unreadable from error
        except KafkaError:
            raise
        except (ConsumerStoppedError, RuntimeError, OSError) as error:
            raise TemporaryError(f"reading failed: {type(error).__name__}") from error
        except Exception as error:
            raise _Unreadable from error

    async def _one_by_one(self) -> Fetched:
        """Read each partition by itself, to find the one at fault.

        Where the partitions are given out anew meanwhile, nothing of it counts.
        """
        places, positions = self._consumer.assignment() - self._consumer.paused(), self.positions
        if not places <= positions.keys():
            raise TemporaryError("records that cannot be read came before their positions")
        self._rewind(*places)
        before = {place: positions[place] for place in places}
        records: dict[TopicPartition, list[Record]] = {}
        try:
            for place, end in (await self._brokers.ends(places)).items():
                if self.positions is positions and positions[place] < end:
                    records[place] = await self._carefully(place, end)
        except _GivenOut:
            return {}
        except (KafkaError, TemporaryError):
            if self.positions is positions:  # what was read is lost with this: it is read again
                positions |= before
                self._rewind(*places)
            raise
        return {place: some for place, some in records.items() if some}

    async def _carefully(self, place: TopicPartition, end: int) -> list[Record]:
        try:
            fetched = await self._alone(place)
        except _Unreadable:
            return await self._step_over(place, end)
        return self._records(place, fetched) if fetched else []

    async def _step_over(self, place: TopicPartition, end: int) -> list[Record]:
        """Read record by record until those that cannot be read are behind us."""
        self._rewind(place)
        records: list[Record] = []
        unread = 0
        while len(records) < STEPS and self.positions[place] < end:
            try:
                fetched = await self._alone(place, max_records=1)
            except _Unreadable:
                records.append(self._unreadable(place))
                unread += 1
                continue
            if not fetched:
                break
            records += self._records(place, fetched)
            if unread:
                break
        log.warning("bus.unreadable", topic=place.topic, partition=place.partition, records=unread)
        return records

    async def _alone(self, place: TopicPartition, **how_much: int) -> list[ConsumerRecord]:
        """Read from one partition; raises _GivenOut where it has another position by now."""
        positions = self.positions
        try:
            fetched = await self._got(place, timeout_ms=PATIENCE_MS, **how_much)
        except Exception:
            self._require(positions)
            raise
        self._require(positions)
        return fetched.get(place, [])

    def _require(self, positions: dict[TopicPartition, int]) -> None:
        if self.positions is not positions:
            self._rewind(*self.positions)
            raise _GivenOut

    def _unreadable(self, place: TopicPartition) -> Record:
        offset = self.positions[place]
        self.positions[place] += 1
        self._rewind(place)
        return Record(place.topic, place.partition, offset, 0, None, None, ())

    def _rewind(self, *places: TopicPartition) -> None:
        for place in places:
            self._consumer.seek(place, self.positions[place])


def record_of(found: ConsumerRecord) -> Record:
    """Return what the client has read as our record."""
    key, headers = found.key, found.headers
    for _, value in headers:
        if value is None:
            headers = tuple((name, value or b"") for name, value in headers)
            break
    return Record(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        None if key is None else key.decode(errors="replace"),
        found.value,
        headers,
    )
