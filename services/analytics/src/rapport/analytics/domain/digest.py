"""Digests: what support heard in a period, by topic, product and region, against the period before.

A digest is compiled after the end of every period in which, or before which, something was heard:
the first silence is news, silence after silence is not. Its lines are the 50 with the most negative
messages; `change` is a share of the period before (0.25 is a quarter more), None where that heard
nothing of the kind.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Final, NamedTuple

from pydantic import ConfigDict, RootModel, StringConstraints

from rapport.analytics.domain.facts import Heard
from rapport.analytics.domain.periods import Period, Periodic, Rhythm
from rapport.common.aggregate import Fact
from rapport.common.events.analytics import DigestCompiled, DigestLine
from rapport.common.events.ids import derived_id
from rapport.common.events.topics import ANALYTICS, Topic
from rapport.common.events.vocabulary import ComplaintType

LINES: Final = 50
SAMPLES: Final = 3

DigestName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class DigestPolicy(RootModel[dict[DigestName, Rhythm]]):
    """The digests by name, each with its rhythm."""

    model_config = ConfigDict(frozen=True)


class Matter(NamedTuple):
    """What a line of a digest is about."""

    topic: ComplaintType
    product: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Volume:
    """How many messages there were, and how many of them negative."""

    count: int
    negative: int


@dataclass(frozen=True, slots=True)
class Account:
    """What was heard in a period, what in the one before, and the worst of it, worst first."""

    by_kind: Mapping[str, int] = field(default_factory=dict)
    matters: Mapping[Matter, Volume] = field(default_factory=dict)
    before: Mapping[Matter, int] = field(default_factory=dict)
    worst: Sequence[Heard] = ()

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard, neither then nor before."""
        return not self.matters and not self.before


class DigestSchedule(Periodic):
    """Compiles one digest, period by period."""

    COLLECTION: ClassVar[str] = "digest_schedules"
    TOPIC: ClassVar[Topic | None] = ANALYTICS

    def compile(self, rhythm: Rhythm, account: Account) -> None:
        """Say what was heard in the period that has ended, and go on to the next."""
        if self.end is not None and not account.is_silent:
            self.emit(digest(self.id, Period(self.start, self.end), account))
        self.turn(rhythm)


class Digest(Fact):
    """A digest as it was compiled."""

    COLLECTION: ClassVar[str] = "digests"
    ORDER: ClassVar[str] = "end"
    FIELDS: ClassVar[tuple[str, ...]] = ("name",)
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("name", "end"),)

    compiled: DigestCompiled

    @property
    def name(self) -> str:
        """Which digest it is."""
        return self.compiled.digest

    @property
    def end(self) -> datetime:
        """The end of its period."""
        return self.compiled.end


def digest(name: str, period: Period, account: Account) -> DigestCompiled:
    """Return the digest of a period."""
    matters = sorted(account.matters.items(), key=_most_negative_first)[:LINES]
    samples = _samples(account.worst)
    return DigestCompiled(
        digest_id=derived_id("digest", name, period.start.isoformat()),
        digest=name,
        start=period.start,
        end=period.end,
        total=sum(heard.count for heard in account.matters.values()),
        by_kind=dict(account.by_kind),
        lines=tuple(
            DigestLine(
                topic=matter.topic,
                product=matter.product,
                region=matter.region,
                count=heard.count,
                negative=heard.negative,
                change=_change(heard.count, account.before.get(matter, 0)),
                samples=samples.get(matter, ()),
            )
            for matter, heard in matters
        ),
    )


def _most_negative_first(item: tuple[Matter, Volume]) -> tuple[int, int, str, str, str]:
    matter, heard = item
    return -heard.negative, -heard.count, matter.topic, matter.product or "", matter.region or ""


def _change(count: int, before: int) -> float | None:
    return None if before == 0 else (count - before) / before


def _samples(worst: Iterable[Heard]) -> dict[Matter, tuple[str, ...]]:
    """The first few cases of each matter."""
    cases: defaultdict[Matter, dict[str, None]] = defaultdict(dict)
    for heard in worst:
        if heard.complaint_type is not None:
            cases[Matter(heard.complaint_type, heard.product, heard.region)][heard.case_id] = None
    return {matter: tuple(found)[:SAMPLES] for matter, found in cases.items()}
