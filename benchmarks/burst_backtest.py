"""Back-test of burst detection on real recordings: what it catches, how soon, at what noise.

`python -m benchmarks.burst_backtest FOLDER` plays two public sets through the detector.
`FOLDER/nab` holds mentions of brands with labelled anomalies (Numenta Anomaly Benchmark): recall
over the labelled windows, alarms outside them per day, lead before the labelled moment.
`FOLDER/crisislex` holds posts around crises whose onset is known (CrisisLex T26): delay after the
onset, posts seen by then, lead before the busiest hour of the first day. A set that is absent is
named as absent; with neither the exit status is 2.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rapport.analytics.domain.burst import BIN, Alarm, BurstPolicy, Detector, bin_of

ONSETS = {
    "2012_Venezuela_refinery": datetime(2012, 8, 25, 5, 41, tzinfo=UTC),
    "2013_Glasgow_helicopter_crash": datetime(2013, 11, 29, 22, 22, tzinfo=UTC),
    "2013_Savar_building_collapse": datetime(2013, 4, 24, 2, 57, tzinfo=UTC),
    "2013_Spain_train_crash": datetime(2013, 7, 24, 18, 41, tzinfo=UTC),
    "2013_West_Texas_explosion": datetime(2013, 4, 18, 0, 50, 38, tzinfo=UTC),
}
"""When each crisis began, UTC."""

KNOWN_SILENCE = timedelta(days=2)
"""Listening time before a crisis set's first post: the sets begin hours before the onset."""

PLAYED = timedelta(days=1)
"""How much of a crisis is played after its onset."""

Bin = tuple[datetime, int]


@dataclass(frozen=True)
class Label:
    """One anomaly that people marked: its moment and the window around it that counts as a hit."""

    moment: datetime
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Recording:
    """Mentions of one brand per bin, with what people marked in it."""

    name: str
    bins: Sequence[Bin]
    labels: Sequence[Label]


@dataclass(frozen=True)
class Crisis:
    """The posts about one crisis, in order of time, and when it began."""

    name: str
    posts: Sequence[datetime]
    onset: datetime


@dataclass(frozen=True)
class BrandScore:
    """How the alarms of one recording, or of several together, meet its labels."""

    name: str
    days: float
    labels: int
    alarms: int
    false_alarms: int
    leads: Sequence[timedelta]
    """For each label that was hit, how long before its moment the first alarm came."""

    @property
    def recall(self) -> float:
        """The share of labels that were hit."""
        return len(self.leads) / self.labels

    @property
    def precision(self) -> float:
        """The share of alarms that fall into a labelled window; unlabelled bursts count against."""
        return 1 - self.false_alarms / self.alarms if self.alarms else 1.0

    @property
    def false_alarms_a_day(self) -> float:
        """Alarms outside every labelled window, per day and series."""
        return self.false_alarms / self.days


@dataclass(frozen=True)
class CrisisScore:
    """How soon one crisis was noticed."""

    name: str
    hours_before: float
    """Hours of posts before the onset."""
    false_alarms: int
    """Alarms in those hours."""
    delay: timedelta | None
    """From the onset to the first alarm; None when there was none within a day."""
    posts_seen: int
    """Posts from the onset to that alarm."""
    tenth_post: timedelta
    """From the onset to the tenth post: the floor that was found for any method."""
    lead: timedelta | None
    """From that alarm to the start of the busiest hour of the first day."""


def read_nab(folder: Path) -> list[Recording]:
    """Read the brand recordings and their labels; the time stamps are UTC."""
    moments = _by_file_name(folder / "combined_labels.json")
    windows = _by_file_name(folder / "combined_windows.json")
    return [
        Recording(
            name=path.stem.removeprefix("Twitter_volume_"),
            bins=_bins_of_counts(path),
            labels=_labels(moments[path.name], windows[path.name]),
        )
        for path in sorted(folder.glob("Twitter_volume_*.csv"))
    ]


def read_crises(folder: Path) -> list[Crisis]:
    """Read the time stamps of every post of the crises whose onset is known."""
    return [
        Crisis(name, sorted(_post_times(folder / f"{name}-tweetids_entire_period.csv")), onset)
        for name, onset in ONSETS.items()
    ]


def play(detector: Detector, bins: Sequence[Bin], policy: BurstPolicy) -> list[Alarm]:
    """Advance the detector through live bins; the alarms that it raised."""
    findings = (
        finding for start, count in bins for finding in detector.advance(start, count, policy)
    )
    return [finding for finding in findings if isinstance(finding, Alarm)]


def score_brand(recording: Recording, alarms: Sequence[Alarm]) -> BrandScore:
    """Compare the alarms with the labels; alarms of one window count as one hit."""
    moments = [alarm.at for alarm in alarms]
    first_hits = [
        (label, next((at for at in moments if label.start <= at <= label.end), None))
        for label in recording.labels
    ]
    return BrandScore(
        name=recording.name,
        days=len(recording.bins) * BIN / timedelta(days=1),
        labels=len(recording.labels),
        alarms=len(alarms),
        false_alarms=sum(
            not any(label.start <= at <= label.end for label in recording.labels) for at in moments
        ),
        leads=[label.moment - at for label, at in first_hits if at],
    )


def together(scores: Sequence[BrandScore]) -> BrandScore:
    """The scores of several recordings as one."""
    return BrandScore(
        name="together",
        days=sum(score.days for score in scores),
        labels=sum(score.labels for score in scores),
        alarms=sum(score.alarms for score in scores),
        false_alarms=sum(score.false_alarms for score in scores),
        leads=[lead for score in scores for lead in score.leads],
    )


def score_crisis(crisis: Crisis, policy: BurstPolicy) -> CrisisScore:
    """Play a crisis up to a day after its onset, after two days of known silence."""
    detector = Detector.listening_since(crisis.posts[0] - KNOWN_SILENCE)
    alarms = play(detector, _bins_of_posts(crisis), policy)
    first = next((alarm.at for alarm in alarms if alarm.at > crisis.onset), None)
    after = [post for post in crisis.posts if crisis.onset <= post < crisis.onset + PLAYED]
    return CrisisScore(
        name=crisis.name,
        hours_before=(crisis.onset - crisis.posts[0]) / timedelta(hours=1),
        false_alarms=sum(alarm.at <= crisis.onset for alarm in alarms),
        delay=first - crisis.onset if first else None,
        posts_seen=sum(post < first for post in after) if first else 0,
        tenth_post=after[9] - crisis.onset,
        lead=_busiest_hour(after) - first if first else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of the sets that are there."""
    parser = argparse.ArgumentParser(description="Back-test burst detection on real recordings.")
    parser.add_argument("folder", type=Path, help="the folder that holds nab/ and crisislex/")
    folder = parser.parse_args(arguments).folder
    policy = BurstPolicy()
    nab, crisislex = folder / "nab", folder / "crisislex"
    for absent in (path for path in (nab, crisislex) if not path.is_dir()):
        print(f"ABSENT: {absent}: nothing was measured on it", file=sys.stderr)
    if nab.is_dir():
        print("\n".join(report_brands(read_nab(nab), policy)), end="\n\n")
    if crisislex.is_dir():
        print("\n".join(report_crises(read_crises(crisislex), policy)))
    return 0 if nab.is_dir() or crisislex.is_dir() else 2


def report_brands(recordings: Sequence[Recording], policy: BurstPolicy) -> Iterator[str]:
    """The table of the brand recordings, with the cost of a bin and the size of the state."""
    yield "Brand mentions (NAB): alarms against labelled windows"
    yield "series     days  labels  recall  alarms  precision  false/day  median lead"
    scores, sizes, bins, begin = [], [], 0, perf_counter()
    for recording in recordings:
        detector = Detector()
        scores.append(score_brand(recording, play(detector, recording.bins, policy)))
        sizes.append(len(detector.model_dump_json()))
        bins += len(recording.bins)
    microseconds = (perf_counter() - begin) / bins * 1e6
    for score in [*scores, together(scores)]:
        lead = _minutes(_median(score.leads))
        yield (
            f"{score.name:9} {score.days:5.1f}  {score.labels:6}  {score.recall:6.2f}"
            f"  {score.alarms:6}  {score.precision:9.2f}  {score.false_alarms_a_day:9.2f}"
            f"  {lead:>11}"
        )
    yield f"{bins} bins, {microseconds:.0f} us each; state at most {max(sizes)} bytes"


def report_crises(crises: Sequence[Crisis], policy: BurstPolicy) -> Iterator[str]:
    """The table of the crises."""
    yield "Crises (CrisisLex T26): from the onset to the first alarm"
    yield (
        "crisis                         hours before  false    delay  posts seen"
        "  tenth post  before the busiest hour"
    )
    scores = [score_crisis(crisis, policy) for crisis in crises]
    for score in scores:
        yield (
            f"{score.name:30} {score.hours_before:12.1f}  {score.false_alarms:5}"
            f"  {_minutes(score.delay):>7}  {score.posts_seen:10}"
            f"  {_minutes(score.tenth_post):>10}  {_minutes(score.lead):>23}"
        )
    delays = [score.delay for score in scores if score.delay]
    within = sum(delay <= timedelta(hours=1) for delay in delays)
    yield f"{within} of {len(scores)} within an hour; median delay {_minutes(_median(delays))}"


def _by_file_name(path: Path) -> dict[str, list[Any]]:
    return {name.rsplit("/", 1)[-1]: marks for name, marks in json.loads(path.read_text()).items()}


def _labels(moments: Sequence[str], windows: Sequence[tuple[str, str]]) -> list[Label]:
    marked = [_utc(moment) for moment in moments]
    spans = [(_utc(start), _utc(end)) for start, end in windows]
    return [
        Label(next(moment for moment in marked if start <= moment <= end), start, end)
        for start, end in spans
    ]


def _bins_of_counts(path: Path) -> list[Bin]:
    with path.open(newline="") as lines:
        return [
            (bin_of(_utc(row["timestamp"])), int(float(row["value"])))
            for row in csv.DictReader(lines)
        ]


def _bins_of_posts(crisis: Crisis) -> list[Bin]:
    end = crisis.onset + PLAYED
    return sorted(Counter(bin_of(post) for post in crisis.posts if post < end).items())


def _post_times(path: Path) -> Iterator[datetime]:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        next(rows)
        for row in rows:
            yield datetime.strptime(row[0], "%a %b %d %H:%M:%S %z %Y").astimezone(UTC)


def _busiest_hour(posts: Sequence[datetime]) -> datetime:
    hours = Counter(post.replace(minute=0, second=0, microsecond=0) for post in posts)
    return max(hours, key=hours.__getitem__)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _median(durations: Sequence[timedelta]) -> timedelta | None:
    if not durations:
        return None
    return timedelta(seconds=median(duration.total_seconds() for duration in durations))


def _minutes(duration: timedelta | None) -> str:
    return f"{duration / timedelta(minutes=1):.0f} min" if duration is not None else "-"


if __name__ == "__main__":
    sys.exit(main())
