"""Topics on the brokers: created and corrected at deploy time, and only checked by services.

What is created is what the catalogue says, and a group gets an offset on each partition before it
first reads it, so that no reader ever has to guess where to begin. A partition count is never
changed: the order per key would break. The broker's own time is each record's timestamp, so that no
foreign clock decides how long a record is kept. How long that is, operators may set for each topic.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import chain
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    CommitFailedError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from rapport.common.bus.kafka.brokers import REQUEST_SECONDS, Brokers, closed, together
from rapport.common.errors import PermanentError, TemporaryError
from rapport.common.events.topics import Topic

BATCH_LIMIT: Final = 1_048_588
"""Bytes of a batch that brokers take: the port's limits, and what the batch itself adds."""

NEEDED: Final = {
    "cleanup.policy": "delete",
    "max.message.bytes": str(BATCH_LIMIT),
    "message.timestamp.type": "LogAppendTime",
}
"""The settings that services rely on."""

RETENTION: Final = "retention.ms"
SET_HERE: Final = 1
"""The source of a topic's own settings, in what brokers say of them."""

APPLY: Final = "run `rapport topics apply`"
OFFSETS_SECONDS: Final = 30.0
"""How long a coordinator may take to be there: it comes with the first group."""

TRIES: Final = 50
PAUSE_SECONDS: Final = 0.2

log = structlog.get_logger(__name__)

Groups = Mapping[str, Sequence[str]]
Config = dict[str, str]


class Found(NamedTuple):
    """A topic as it is: all its settings, and those that were set for it."""

    partitions: int
    config: Config
    own: Config


class Checked(NamedTuple):
    """What is not as declared, in words: mistakes, and retentions, which operators may choose."""

    wrong: list[str]
    retentions: list[str]


async def apply(
    servers: str,
    client: Mapping[str, Any],
    topics: Mapping[str, Topic],
    groups: Groups,
    replication: int = 1,
) -> list[str]:
    """Create what is missing, correct what differs, give new groups their offsets.

    `groups` are the groups with the topics that each reads. A retention that was set for a topic
    stays. Returns, in words, what was done and which other retentions stay; can be repeated, and
    run beside services at work. Raises PermanentError for what cannot be corrected, after all else
    has been done; TemporaryError where the brokers cannot be used.
    """
    brokers = Brokers(servers, client)
    await brokers.require_version()
    try:
        done = await _create(brokers, topics, replication)
        found = await _describe(brokers, topics)
        done += await _correct(brokers, topics, found)
        done += _kept(topics, found)
        wrong = _wrong_partitions(topics, found)
        seeding = (_seed(brokers, name, _places(topics, read)) for name, read in groups.items())
        for more, trouble in await together(seeding):
            done += more
            wrong += trouble
    finally:
        await brokers.close()
    if wrong:
        raise PermanentError("; ".join(wrong))
    return done


async def check(
    servers: str,
    client: Mapping[str, Any],
    topics: Mapping[str, Topic],
    groups: Groups | None = None,
) -> Checked:
    """Return what is not as it should be, and whose retention is not as declared.

    Raises TemporaryError where the brokers cannot be used.
    """
    brokers = Brokers(servers, client)
    await brokers.require_version()
    try:
        found = await _describe(brokers, topics)
        wrong = _mistakes(topics, found)
        if not wrong:
            for group, names in (groups or {}).items():
                if lacking := await _without_offset(brokers, group, _places(topics, names)):
                    wrong.append(f"{group} has no offset on {_names(lacking)}")
    finally:
        await brokers.close()
    return Checked(wrong, _retentions(topics, found))


async def require(brokers: Brokers, topics: Mapping[str, Topic]) -> None:
    """Raise PermanentError naming what is missing or wrong; log other retentions than declared."""
    found = await _describe(brokers, topics)
    if wrong := _mistakes(topics, found):
        raise PermanentError(f"{'; '.join(wrong)}: {APPLY}")
    if others := _retentions(topics, found):
        log.info("topics.other_retentions", found=others)


async def require_offsets(brokers: Brokers, group: str, places: Sequence[TopicPartition]) -> None:
    """Raise PermanentError where a group has no offset and the log does not begin at its start."""
    starts = await brokers.starts(await _without_offset(brokers, group, places))
    if lost := [place for place, start in starts.items() if start > 0]:
        raise no_offsets(group, lost)


def no_offsets(group: str, places: Sequence[TopicPartition]) -> PermanentError:
    """Return the error of a group that would have to guess where to begin."""
    return PermanentError(
        f"{group} has no offset on {_names(places)}, which has lost its beginning: "
        f"stop the group and {APPLY}"
    )


def _mistakes(topics: Mapping[str, Topic], found: Mapping[str, Found]) -> list[str]:
    """Return, in words, which topics are missing or are not as services need them."""
    wrong = [f"{name} is missing" for name in topics if name not in found]
    wrong += _wrong_partitions(topics, found)
    for name, topic in found.items():
        wrong += _differences(name, topic, NEEDED)
    return wrong


def _retentions(topics: Mapping[str, Topic], found: Mapping[str, Found]) -> list[str]:
    """Return, in words, which topics keep their records for another time than is declared."""
    return [
        difference
        for name, topic in found.items()
        for difference in _differences(name, topic, _retention(topics[name]))
    ]


def _kept(topics: Mapping[str, Topic], found: Mapping[str, Found]) -> list[str]:
    """Return, in words, which of other retentions than declared were set for the topic."""
    chosen = {name: topic for name, topic in found.items() if RETENTION in topic.own}
    return [f"{difference}, and keeps it" for difference in _retentions(topics, chosen)]


def _differences(name: str, found: Found, wanted: Config) -> list[str]:
    return [
        f"{name} has {setting} {found.config.get(setting)}, not {value}"
        for setting, value in _differing(found, wanted).items()
    ]


def _differing(found: Found, wanted: Config) -> Config:
    return {
        setting: value for setting, value in wanted.items() if found.config.get(setting) != value
    }


def _retention(topic: Topic) -> Config:
    return {RETENTION: str(topic.retention // timedelta(milliseconds=1))}


def _wanted(topic: Topic, found: Found) -> Config:
    """Return what a topic is to have; for how long it keeps records, only if nobody set that."""
    return NEEDED if RETENTION in found.own else NEEDED | _retention(topic)


def _wrong_partitions(topics: Mapping[str, Topic], found: Mapping[str, Found]) -> list[str]:
    return [
        f"{name} has {topic.partitions} partitions, not {topics[name].partitions}, "
        "which cannot be changed without breaking the order"
        for name, topic in found.items()
        if topic.partitions != topics[name].partitions
    ]


async def _create(brokers: Brokers, topics: Mapping[str, Topic], replication: int) -> list[str]:
    there = await _partitions(brokers, topics)
    missing = [name for name in topics if name not in there]
    in_sync = {"min.insync.replicas": str(max(1, replication - 1))}
    wanted = [
        NewTopic(
            name,
            topics[name].partitions,
            replication,
            topic_configs=NEEDED | _retention(topics[name]) | in_sync,
        )
        for name in missing
    ]
    if not wanted:
        return []
    with brokers.trouble():
        async with brokers.admin() as admin:
            answer = await admin.create_topics(wanted)
    done = []
    for name, code, message in answer.topic_errors:
        if code == TopicAlreadyExistsError.errno:
            continue
        if code:
            raise PermanentError(f"{name} cannot be created: {message or for_code(code).__name__}")
        done.append(f"{name} was created with {topics[name].partitions} partitions")
    await _until_led(brokers, [topics[name] for name in missing])
    return done


async def _until_led(brokers: Brokers, topics: Iterable[Topic]) -> None:
    """Wait until every partition of new topics can be used."""
    places = [
        TopicPartition(item.name, number) for item in topics for number in range(item.partitions)
    ]
    for _ in range(TRIES):
        try:
            await brokers.ends(places)
        except TemporaryError:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    raise TemporaryError("the new topics cannot be used yet")


async def _partitions(brokers: Brokers, topics: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of those topics that there are.

    All topics are asked for: a broker may create one that is asked for by name.
    """
    wanted = set(topics)
    with brokers.trouble():
        async with brokers.admin() as admin:
            described = await admin.describe_topics()
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if topic["topic"] in wanted and topic["error_code"] != UnknownTopicOrPartitionError.errno
    }


async def _describe(brokers: Brokers, topics: Iterable[str]) -> dict[str, Found]:
    """Return those topics that there are."""
    counts = await _partitions(brokers, topics)
    if not counts:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    with brokers.trouble():
        async with brokers.admin() as admin:
            answers = await admin.describe_configs(resources)
    found = {}
    for code, message, _, name, entries in chain.from_iterable(a.resources for a in answers):
        if code:
            raise PermanentError(
                f"the settings of {name} cannot be read: {message or for_code(code).__name__}"
            )
        config = {key: value for key, value, *_ in entries}
        own = {key: value for key, value, _, source, *_ in entries if source == SET_HERE}
        found[name] = Found(counts[name], config, own)
    return found


async def _correct(
    brokers: Brokers, topics: Mapping[str, Topic], found: Mapping[str, Found]
) -> list[str]:
    """Set what differs; a topic's other settings stay, which the request alone would forget."""
    resources, done = [], []
    for name, topic in found.items():
        wanted = _wanted(topics[name], topic)
        if differing := _differing(topic, wanted):
            config = topic.own | wanted
            resources.append(ConfigResource(ConfigResourceType.TOPIC, name, config))
            done += [f"{name} has {setting} {value} now" for setting, value in differing.items()]
    if not resources:
        return []
    with brokers.trouble():
        async with brokers.admin() as admin:
            answers = await admin.alter_configs(resources)
    for code, message, _, name in chain.from_iterable(answer.resources for answer in answers):
        if code:
            raise PermanentError(f"{name} cannot be changed: {message or for_code(code).__name__}")
    return done


async def _seed(
    brokers: Brokers, group: str, places: Sequence[TopicPartition]
) -> tuple[list[str], list[str]]:
    """Let a group begin where the log does, if it has not begun; say what was done, or cannot be.

    Offsets of a group at work are its members' alone. They begin by themselves where the log is
    whole, as that of a new topic is.
    """
    starts = await brokers.starts(await _without_offset(brokers, group, places))
    if not starts:
        return [], []
    async with _outsider(brokers, group, places) as consumer:
        try:
            with brokers.trouble():
                async with asyncio.timeout(REQUEST_SECONDS):
                    await consumer.commit(starts)
        except TemporaryError as error:
            if not isinstance(error.__cause__, CommitFailedError):
                raise
            if lost := [place for place, start in starts.items() if start > 0]:
                return [], [str(no_offsets(group, lost))]
            return [f"{group} is at work and begins {_names(starts)} by itself"], []
    return [f"{group} begins {_names(starts)}"], []


@asynccontextmanager
async def _outsider(
    brokers: Brokers, group: str, places: Sequence[TopicPartition]
) -> AsyncIterator[AIOKafkaConsumer]:
    """Return a consumer that commits for a group without being one of its members."""
    consumer = await brokers.consumer(group_id=group, auto_offset_reset="none")
    try:
        consumer.assign(places)
        consumer.pause(*places)
        yield consumer
    finally:
        await closed(consumer)


async def _without_offset(
    brokers: Brokers, group: str, places: Sequence[TopicPartition]
) -> list[TopicPartition]:
    committed = await brokers.committed(group, OFFSETS_SECONDS)
    return [place for place in places if place not in committed]


def _places(topics: Mapping[str, Topic], names: Iterable[str]) -> list[TopicPartition]:
    return [
        TopicPartition(name, number) for name in names for number in range(topics[name].partitions)
    ]


def _names(places: Iterable[TopicPartition]) -> str:
    return ", ".join(sorted({place.topic for place in places}))
