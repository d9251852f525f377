"""What every command shares: the data directory, the way it ends, whose word it has."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from rapport.common.auth import Signer
from rapport.common.errors import NotFound, RapportError
from rapport.common.serving import run_on_loop
from rapport.common.settings import Settings
from rapport.standalone.data_files import KEYS
from rapport.standalone.system import signer_of

console = Console()

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder that everything is kept in.",
)


def own_token(data_dir: Path, subject: str, role: str) -> str:
    """Return a token of the installation in `data_dir`; raises NotFound where there is none."""
    return own_signer(data_dir).mint(subject, [role])


def own_signer(data_dir: Path) -> Signer:
    """Return what signs for the installation in `data_dir`; raises NotFound where there is none."""
    if not (data_dir / KEYS / "sign.json").exists():
        raise NotFound(f"{data_dir} holds no installation: name one with --data-dir")
    return signer_of(data_dir, Settings.load())


def finish(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end; our own errors and a taken port end with one line and status 1."""
    try:
        run_on_loop(run())
    except RapportError as error:
        raise click.ClickException(error.reason) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        sys.exit(1)
    except OSError as error:
        raise click.ClickException(
            ": ".join(filter(None, [error.filename, error.strerror]))
        ) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
