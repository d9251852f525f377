"""`rapport events`: what happens, and what has happened, as JSON lines."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO, cast

import click
from rich.console import Console
from rich.progress import Progress

from rapport.common.bus.history import history
from rapport.common.bus.port import Readable
from rapport.common.events.codec import Record, event_type
from rapport.common.events.shown import published, shown
from rapport.common.events.topics import TOPICS
from rapport.common.telemetry import configure_logs
from rapport.standalone.operations.reach import reading
from rapport.standalone.terminal import data_dir_option, finish

LINE_EVERY: Final = 100_000

topics_option = click.option(
    "--topic",
    "topics",
    multiple=True,
    type=click.Choice(sorted(TOPICS)),
    metavar="TOPIC",
    help="Only this topic; can be repeated.",
)
types_option = click.option(
    "--type", "types", multiple=True, help="Only events of this type; can be repeated."
)
personal_option = click.option("--personal", is_flag=True, help="Show personal data, too.")


class _MomentType(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        try:
            return (
                value if isinstance(value, datetime) else datetime.fromisoformat(value).astimezone()
            )
        except (ValueError, OverflowError):
            self.fail("expected a time such as 2026-03-02 or 2026-03-02T08:00:00+01:00", param, ctx)


MOMENT = _MomentType()


@click.group()
def events() -> None:
    """Events, as JSON lines (CloudEvents, structured mode) without personal data.

    From the bus that RAPPORT_BUS names, or the log of the data directory, also while it is in use.
    A record that is no event is a line with `unreadable`: where it is, and why.
    """
    configure_logs("WARNING")


@events.command()
@topics_option
@types_option
@click.option("--from-start", is_flag=True, help="Begin with the oldest that is kept.")
@personal_option
@data_dir_option
def tail(
    topics: tuple[str, ...],
    types: tuple[str, ...],
    from_start: bool,
    personal: bool,
    data_dir: Path,
) -> None:
    """Follow what happens, until Ctrl-C."""

    async def run() -> None:
        chosen = topics or tuple(TOPICS)
        async with reading(data_dir) as bus:
            after = None
            if from_start:
                after = {place: at - 1 for place, at in (await bus.starts(chosen)).items()}
            async for records in bus.tail(chosen, after):
                for record in _of_types(records, types):
                    click.echo(_line(record, personal))

    finish(run)


@events.command()
@topics_option
@types_option
@click.option("--since", type=MOMENT, help="Only what was published then or later.")
@click.option("--until", type=MOMENT, help="Only what was published before.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="File that is written, whole or not at all; standard output unless given.",
)
@personal_option
@data_dir_option
def export(
    topics: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    output: str,
    personal: bool,
    data_dir: Path,
) -> None:
    """Write everything that is kept up to now, in order within each partition.

    Times are when an event was published; one without a zone is this machine's.
    """

    def is_wanted(record: Record) -> bool:
        at = published(record)
        return (since is None or at >= since) and (until is None or at < until)

    async def run() -> None:
        chosen = topics or tuple(TOPICS)
        written = 0
        async with reading(data_dir) as bus:
            total = await _kept(bus, chosen)
            with (
                _written(output) as file,
                _showing_progress(total, bar=output != "-") as progress,
            ):
                async for records in history(bus, chosen):
                    for record in filter(is_wanted, _of_types(records, types)):
                        file.write(_line(record, personal) + "\n")
                        written += 1
                    progress(len(records))
        click.echo(f"{written:,} events exported", err=True)

    finish(run)


@contextmanager
def _written(output: str) -> Iterator[TextIO]:
    """Open standard output, or a file that takes the place of the one there once all is written."""
    if output == "-":
        with click.open_file(output, "w", "utf-8") as stdout:
            yield cast("TextIO", stdout)
        return
    target = Path(output)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with part.open("x", encoding="utf-8") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _of_types(records: Sequence[Record], types: Sequence[str]) -> Iterator[Record]:
    return (record for record in records if not types or event_type(record.headers) in types)


def _line(record: Record, personal: bool) -> str:
    return json.dumps(shown(record, personal=personal), ensure_ascii=False)


async def _kept(bus: Readable, topics: Sequence[str]) -> int:
    """Return how many records there are."""
    return sum((await bus.ends(topics)).values()) - sum((await bus.starts(topics)).values())


@contextmanager
def _showing_progress(total: int, *, bar: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of so many more records: a bar, or a line now and then."""
    console = Console(stderr=True)
    if bar and console.is_terminal:
        with Progress(console=console, transient=True) as drawn:
            task = drawn.add_task("exporting ...", total=total)
            yield lambda more: drawn.update(task, advance=more)
        return
    read = 0

    def say(more: int) -> None:
        nonlocal read
        before, read = read, read + more
        if before // LINE_EVERY != read // LINE_EVERY:
            console.print(f"{read:,} of {total:,} records", highlight=False)

    yield say
