"""How far a replay is: a bar with a rate in a terminal, a line now and then elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rapport.standalone.replay import Summary

LINE_EVERY: Final = 2_000


@contextmanager
def showing_progress(console: Console, file: str) -> Iterator[Callable[[Summary], None]]:
    """Give a function that shows a summary of bringing `file` in as it grows."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("bringing in ...", total=_lines(file))
        yield lambda summary: bar.update(task, completed=summary.line, description=_words(summary))


def _lines(file: str) -> int | None:
    """Return how many lines a file has; None for standard input, which tells nobody."""
    if file == "-":
        return None
    with open(file, "rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))


def _plain(console: Console) -> Callable[[Summary], None]:
    said = 0

    def say(summary: Summary) -> None:
        nonlocal said
        if summary.done - said >= LINE_EVERY:
            said = summary.done
            console.print(_words(summary), highlight=False)

    return say


def _words(summary: Summary) -> str:
    return (
        f"{summary.done:,} items, {summary.rate:,.0f} a second "
        f"({summary.accepted:,} accepted, {summary.refused:,} refused, {summary.known:,} known)"
    )
