"""What `rapport` can be told, one function per command."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from rapport.common.auth import ROLES, Signer
from rapport.common.errors import NotFound, RapportError
from rapport.common.events.documents import export
from rapport.common.serving import main as run_service
from rapport.common.serving import run_on_loop, until_stopped
from rapport.common.telemetry import configure_logs
from rapport.intake.settings import Settings as IntakeSettings
from rapport.standalone.demo import load
from rapport.standalone.demo import run as run_demo
from rapport.standalone.progress import showing_progress
from rapport.standalone.readers import read_file
from rapport.standalone.replay import choose_mapping
from rapport.standalone.replay import replay as bring_in
from rapport.standalone.system import PEOPLE, SERVICES, role_tokens, system

console = Console()

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder that everything is kept in.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def rapport() -> None:
    """Rapport connects customer support with public relations."""


@rapport.command()
@data_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on.")
def up(data_dir: Path, host: str, port: int) -> None:
    """Run the whole system in this process."""
    configure_logs("WARNING")

    async def run() -> None:
        async with system(data_dir, host=host, port=port) as running:
            tokens = role_tokens(running)
            click.echo(f"Rapport answers at {running.url}  (data in {data_dir}, Ctrl-C stops)\n")
            click.echo("A token for each role, to try things with:")
            for role, token in tokens.items():
                click.echo(f"  {role:<10} {PEOPLE[role]:<9} {token}")
            click.echo("\nTry:\n" + _curl_lines(running.url, tokens))
            await until_stopped()
            click.echo("stopping ...")

    _finish(run)


@rapport.command()
@click.argument("service", type=click.Choice(sorted(SERVICES)))
def serve(service: str) -> None:
    """Run one service in this process, on the bus and store that the environment names."""
    run_service(SERVICES[service])


@rapport.command()
@click.option(
    "--scenario",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A story of your own (YAML); ours unless given.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 10),
    help="Seconds to read each line; 0.05 in a terminal, 0 elsewhere, unless given.",
)
def demo(scenario: Path | None, pause: float | None) -> None:
    """Play a day at a company through the real system, with a clock that jumps."""
    configure_logs("ERROR")

    async def play() -> None:
        reading_time = (0.05 if console.is_terminal else 0.0) if pause is None else pause
        if not await run_demo(load(scenario), console, reading_time):
            sys.exit(1)

    _finish(play)


@rapport.command()
@click.option("--subject", required=True, help="Who the token is for.")
@click.option("--roles", required=True, help=f"Comma-separated, of {', '.join(ROLES)}.")
@click.option("--days", default=30.0, show_default=True, help="How long it is good.")
@data_dir_option
def token(subject: str, roles: str, days: float, data_dir: Path) -> None:
    """Print a token for SUBJECT, signed with the data directory's key."""
    wanted = [role.strip() for role in roles.split(",") if role.strip()]
    try:
        click.echo(Signer.open(data_dir / "keys").mint(subject, wanted, days=days))
    except RapportError as error:
        raise click.ClickException(error.reason) from None


@rapport.command()
@click.argument("file")
@click.option("--mapping", "mapping_name", required=True, help="A mapping's name, or its file.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the system.")
@click.option("--token", "bearer", help="A publisher's token; by default one is minted.")
@click.option("--limit", type=click.IntRange(1), help="How many records to read at most.")
@click.option("--as-live", is_flag=True, help="Let old items happen now, with clocks and all.")
@click.option(
    "--refusals",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("refusals.csv"),
    show_default=True,
    help="Where refused items are told, with line, field and reason.",
)
@data_dir_option
def replay(
    file: str,
    mapping_name: str,
    url: str,
    bearer: str | None,
    limit: int | None,
    as_live: bool,
    refusals: Path,
    data_dir: Path,
) -> None:
    """Bring FILE (CSV, JSON lines or JSON; - is standard input) in through a mapping.

    Items of the past are counted and nothing else, unless --as-live moves them to now.
    """

    async def run() -> None:
        mapping = choose_mapping(mapping_name, IntakeSettings.load().mapping_dir)
        sender = bearer or _own_token(data_dir)
        with showing_progress(console, file) as progress:
            summary = await bring_in(
                read_file(file),
                mapping,
                url=url,
                token=sender,
                refusals=refusals,
                as_live=as_live,
                limit=limit,
                progress=progress,
            )
        click.echo(
            f"{summary.accepted:,} accepted, {summary.refused:,} refused, "
            f"{summary.known:,} already known; "
            f"{summary.seconds:.1f} s, {summary.rate:,.0f} a second"
        )
        if summary.refused:
            click.echo(f"What was refused, and why: {refusals}")

    _finish(run)


@rapport.group()
def schema() -> None:
    """The event contract as documents."""


@schema.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema_export(folder: Path) -> None:
    """Write JSON Schemas and the AsyncAPI document to FOLDER, unless that breaks old readers."""
    broken = export(folder)
    for reason in broken:
        click.echo(reason, err=True)
    if broken:
        raise click.ClickException("the contract changed incompatibly; nothing was written")


def _own_token(data_dir: Path) -> str:
    """Return a publisher's token of the installation in `data_dir`."""
    if not (data_dir / "keys").is_dir():
        raise NotFound(f"{data_dir} holds no installation: give --data-dir or --token")
    return Signer.open(data_dir / "keys").mint("replay", ["publisher"])


def _curl_lines(url: str, tokens: dict[str, str]) -> str:
    complaint = (
        '{"kind": "complaint", "channel": "web", "product": "kettle", '
        '"text": "The kettle broke after two days. I want my money back."}'
    )
    return "\n".join(
        (
            f"  curl -s {url}/intake/v1/feedback -H 'Authorization: Bearer {tokens['publisher']}' "
            f"-H 'Content-Type: application/json' -d '{complaint}'",
            f"  curl -s {url}/routing/v1/cases -H 'Authorization: Bearer {tokens['agent']}'",
            f"  curl -s {url}/analytics/v1/kpis -H 'Authorization: Bearer {tokens['viewer']}'",
        )
    )


def _finish(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end; our own errors and a taken port end with one line and status 1."""
    try:
        run_on_loop(run())
    except RapportError as error:
        raise click.ClickException(error.reason) from None
    except OSError as error:
        raise click.ClickException(
            ": ".join(filter(None, [error.filename, error.strerror]))
        ) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
