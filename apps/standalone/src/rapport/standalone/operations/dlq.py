"""`rapport dlq`: what could not be handled, why, and once more."""

import json
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from rapport.common.bus.dead_letters import (
    Place,
    Wanted,
    dead_letters,
    find,
    summary,
    view,
)
from rapport.common.bus.port import Readable
from rapport.common.errors import RapportError
from rapport.common.telemetry import configure_logs
from rapport.standalone.operations.api import Redrive, Redriven
from rapport.standalone.operations.reach import URL, reading, redrive
from rapport.standalone.terminal import console, data_dir_option, finish

group_option = click.option("--group", help="Only what this consumer group gave up.")
type_option = click.option("--type", "type", help="Only events of this type.")


class _PlaceType(click.ParamType[Place]):
    name = "place"

    def convert(self, value: Any, param: Any, ctx: Any) -> Place:
        try:
            return value if isinstance(value, Place) else Place.of(value)
        except RapportError as error:
            self.fail(error.reason, param, ctx)


PLACE = _PlaceType()


@click.group()
def dlq() -> None:
    """Dead letters: records that a service could not handle.

    On the bus that RAPPORT_BUS names, or in the log of the data directory, also while it is in use.
    """
    configure_logs("WARNING")


@dlq.command("list")
@group_option
@type_option
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest only."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@data_dir_option
def list_letters(
    group: str | None, type: str | None, limit: int, as_json: bool, data_dir: Path
) -> None:
    """List what was given up, the newest last."""

    async def run() -> None:
        async with reading(data_dir) as bus:
            count, newest = await _newest(bus, Wanted(group, type), limit)
        if as_json:
            for letter in newest:
                click.echo(json.dumps(letter, ensure_ascii=False))
            return
        if newest:
            console.print(_table(newest))
        more = f", the newest {limit:,} are shown (--limit)" if count > limit else ""
        click.echo(f"{count:,} dead letter{'' if count == 1 else 's'}{more}")

    finish(run)


@dlq.command()
@click.argument("place", type=PLACE)
@click.option("--personal", is_flag=True, help="Show personal data, too.")
@data_dir_option
def show(place: Place, personal: bool, data_dir: Path) -> None:
    """Show the dead letter at PLACE (as 3/17), without personal data."""

    async def run() -> None:
        async with reading(data_dir) as bus:
            [letter] = await find(bus, [place])
        click.echo(json.dumps(view(letter, personal=personal), ensure_ascii=False, indent=2))

    finish(run)


@dlq.command("redrive")
@click.argument("places", type=PLACE, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them, or all of a group or type.")
@group_option
@type_option
@click.option("--url", help=f"Of the running system; {URL} where the log is in use.")
@click.option("--token", help="An admin's token for it; by default one is minted.")
@data_dir_option
def redrive_letters(
    places: tuple[Place, ...],
    everything: bool,
    group: str | None,
    type: str | None,
    url: str | None,
    token: str | None,
    data_dir: Path,
) -> None:
    """Send the dead letters at PLACES, or --all, back to the groups that gave them up.

    Only that group gets a record again, with the ids it had; a repeat changes nothing. What fails
    once more is a dead letter once more.
    """
    if everything == bool(places):
        raise click.UsageError("name PLACES, or --all")
    if places and (group or type):
        raise click.UsageError("--group and --type go with --all")
    try:
        wanted = Redrive(
            places=[str(place) for place in places], all=everything, group=group, type=type
        )
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None

    async def run() -> None:
        _tell(await redrive(wanted, data_dir, url, token))

    finish(run)


async def _newest(bus: Readable, wanted: Wanted, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many letters there are, and the newest of them, the very newest last."""
    count = 0
    kept: list[tuple[int, Place, dict[str, Any]]] = []
    async for letter in dead_letters(bus, wanted):
        count += 1
        entry = (letter.record.timestamp, letter.place, summary(letter))
        if len(kept) < limit:
            heappush(kept, entry)
        else:
            heappushpop(kept, entry)
    return count, [told for _, _, told in sorted(kept)]


def _table(letters: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("place", no_wrap=True)
    table.add_column("at", no_wrap=True)
    table.add_column("group", no_wrap=True)
    for name in ("type", "cause", "reason"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        cells = (
            letter["place"],
            letter["at"][:19],
            letter["group"],
            letter["type"] or f"(no event) {letter['topic']}",
            letter["cause"].rpartition(".")[2],
            letter["reason"],
        )
        table.add_row(*(Text(_printable(cell)) for cell in cells))
    return table


def _printable(text: str) -> str:
    """Return a stranger's text without what would steer a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _tell(done: Redriven) -> None:
    total = sum(target.records for target in done.items)
    click.echo(f"{total:,} sent back")
    for target in done.items:
        click.echo(f"  {target.records:,} to {target.group} on {target.topic}")
    if done.left:
        click.echo(f"{done.left:,} stay: their origin or content is not in them")
