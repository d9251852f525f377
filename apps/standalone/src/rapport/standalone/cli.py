"""What `rapport` can be told, one function per command."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from rapport.common import tracing
from rapport.common.auth import ROLES
from rapport.common.errors import TemporaryError
from rapport.common.events.documents import export
from rapport.common.serving import main as run_service
from rapport.common.serving import stop_asked, until_stopped
from rapport.common.settings import Settings
from rapport.common.telemetry import configure_logs
from rapport.intake.settings import Settings as IntakeSettings
from rapport.standalone.data_files import copy_files
from rapport.standalone.demo import load
from rapport.standalone.demo import run as run_demo
from rapport.standalone.openapi import write as write_openapi
from rapport.standalone.operations.dlq import dlq
from rapport.standalone.operations.events import events
from rapport.standalone.processes import (
    PORTS,
    apply_topics,
    check_topics,
    first_end,
    prefixed,
    processes,
)
from rapport.standalone.progress import showing_progress
from rapport.standalone.readers import read_file
from rapport.standalone.replay import choose_mapping
from rapport.standalone.replay import replay as bring_in
from rapport.standalone.system import PEOPLE, SERVICES, role_tokens, system
from rapport.standalone.terminal import (
    console,
    data_dir_option,
    finish,
    own_signer,
    own_token,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def rapport() -> None:
    """Rapport connects customer support with public relations."""


rapport.add_command(dlq)
rapport.add_command(events)


@rapport.command()
@data_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on.")
def up(data_dir: Path, host: str, port: int) -> None:
    """Run the whole system in this process."""

    async def run() -> None:
        settings = Settings.load()
        is_set = "log_level" in settings.model_fields_set
        configure_logs(settings.log_level if is_set else "WARNING")
        tracing.configure()
        async with system(data_dir, host=host, port=port) as running:
            click.echo(f"Rapport answers at {running.url}  (data in {data_dir}, Ctrl-C stops)\n")
            click.echo(_try_it(running.urls, role_tokens(running)))
            await until_stopped()
            click.echo("stopping ...")

    try:
        finish(run)
    finally:
        tracing.shutdown()


@rapport.command("up-local")
@data_dir_option
def up_local(data_dir: Path) -> None:
    """Run a process per service here, over the servers that the environment names."""

    async def run() -> None:
        stopped = stop_asked()
        async with processes(data_dir, ports=PORTS, tell=prefixed) as running:
            for name, url in running.urls.items():
                click.echo(f"  {name:<13} {url}/{name}/docs")
            click.echo(f"(keys in {data_dir}, Ctrl-C drains and stops)\n")
            click.echo(_try_it(running.urls, role_tokens(running)))
            if failed := await first_end(running, stopped):
                raise TemporaryError(f"{failed} has ended; the others are stopped, too")
            click.echo("stopping ...")

    finish(run)


@rapport.group()
def topics() -> None:
    """Kafka's topics, as the one catalogue has them."""


@topics.command("apply")
@click.option("--replication", default=1, show_default=True, help="Copies of each partition.")
def topics_apply(replication: int) -> None:
    """Create what is missing, correct what can be, and give new groups their first offsets.

    For how long a topic keeps its records stays as it was set for it.
    """

    async def run() -> None:
        for done in await apply_topics(Settings.load(), replication):
            click.echo(done)
        click.echo("the topics are as the services need them")

    finish(run)


@topics.command("check")
def topics_check() -> None:
    """Tell what is not as declared; status 1 if that is more than how long records are kept."""

    async def run() -> None:
        found = await check_topics(Settings.load())
        for difference in (*found.wrong, *found.retentions):
            click.echo(difference, err=True)
        if found.wrong:
            sys.exit(1)
        click.echo("the topics are as the services need them")

    finish(run)


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
@click.option("--bus", help="Play it on a process per service, over this bus (kafka://...).")
@click.option("--store", help="The store of those processes (mongodb://...).")
def demo(scenario: Path | None, pause: float | None, bus: str | None, store: str | None) -> None:
    """Play a day at a company through the real system, with a clock that jumps."""
    servers = None
    if bus is not None or store is not None:
        if not bus or not store:
            raise click.UsageError("--bus and --store go together")
        servers = {"bus": bus, "store": store}
    configure_logs("ERROR")

    async def play() -> None:
        reading_time = (0.05 if console.is_terminal else 0.0) if pause is None else pause
        if not await run_demo(load(scenario), console, reading_time, servers):
            sys.exit(1)

    finish(play)


@rapport.command()
@click.argument("target", type=click.Path(path_type=Path))
@data_dir_option
def backup(target: Path, data_dir: Path) -> None:
    """Copy the data directory, keys and all, to TARGET; also while `rapport up` runs on it."""

    async def run() -> None:
        copy_files(data_dir, target, SERVICES)
        click.echo(f"{target} holds what {data_dir} held at one moment, and its keys")

    finish(run)


@rapport.command()
@click.option("--subject", required=True, help="Who the token is for.")
@click.option("--roles", required=True, help=f"Comma-separated, of {', '.join(ROLES)}.")
@click.option(
    "--days",
    type=click.FloatRange(0, 3_660, min_open=True),
    default=30.0,
    show_default=True,
    help="How long it is good.",
)
@data_dir_option
def token(subject: str, roles: str, days: float, data_dir: Path) -> None:
    """Print a token for SUBJECT, signed with the data directory's key."""
    wanted = [role.strip() for role in roles.split(",") if role.strip()]

    async def run() -> None:
        click.echo(own_signer(data_dir).mint(subject, wanted, days=days))

    finish(run)


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

    if Path(file).exists() and refusals.exists() and refusals.samefile(file):
        raise click.UsageError("--refusals names FILE itself")

    async def run() -> None:
        mapping = choose_mapping(mapping_name, IntakeSettings.load().mapping_dir)
        sender = bearer or own_token(data_dir, "replay", "publisher")
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

    finish(run)


@rapport.group()
def schema() -> None:
    """The contracts as documents: events, and HTTP."""


@schema.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema_export(folder: Path) -> None:
    """Write JSON Schemas and the AsyncAPI document to FOLDER, unless that breaks old readers."""
    broken = export(folder)
    for reason in broken:
        click.echo(reason, err=True)
    if broken:
        raise click.ClickException("the contract changed incompatibly; nothing was written")


@schema.command("openapi")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def schema_openapi(file: Path) -> None:
    """Write one OpenAPI document of all five services to FILE."""
    write_openapi(file, SERVICES.values())


def _try_it(urls: Mapping[str, str], tokens: Mapping[str, str]) -> str:
    """Return a token for each role, and three curl lines that work."""
    complaint = (
        '{"kind": "complaint", "channel": "web", "product": "kettle", '
        '"text": "The kettle broke after two days. I want my money back."}'
    )
    sent = f" -H 'Content-Type: application/json' -d '{complaint}'"
    return "\n".join(
        (
            "A token for each role, to try things with:",
            *(f"  {role:<10} {PEOPLE[role]:<9} {token}" for role, token in tokens.items()),
            "\nTry:",
            _curl(urls["intake"], "/intake/v1/feedback", tokens["publisher"]) + sent,
            _curl(urls["routing"], "/routing/v1/cases", tokens["agent"]),
            _curl(urls["analytics"], "/analytics/v1/kpis", tokens["viewer"]),
        )
    )


def _curl(url: str, path: str, token: str) -> str:
    return f"  curl -s {url}{path} -H 'Authorization: Bearer {token}'"
