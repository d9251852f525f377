"""The narrative: clock time, who, what; live in a terminal, plain lines anywhere else.

Lines are of a few kinds, told apart by their mark: what people do, what the system does by itself,
what arrived outside, and whether an expectation came true. Texts are shown as they are, in any
script, and never read as markup. In a terminal a status line stays at the foot.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

INDENT: Final = " " * 8

MARKS: Final = {
    "people": ("·", "bold"),
    "itself": ("»", "magenta"),
    "outside": ("→", "green"),
    "true": ("✓", "green"),
    "false": ("✗", "bold red"),
}
STYLES: Final = dict(MARKS.values())


class Narrator:
    """Tells the story on a console; `pause` is the time in seconds to read each line."""

    def __init__(self, console: Console, pause: float) -> None:
        self._console = console
        self._pause = pause
        self._status: dict[str, str] = {}

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Keep the status line at the foot while the block runs, where there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, transient=True, get_renderable=self._foot):
            yield

    async def title(self, company: str, story: str) -> None:
        """Begin."""
        heading = Text(f"A day at {company}", "bold")
        if self._console.is_terminal:
            self._print(Panel(story, title=heading, title_align="left", padding=(1, 2)))
        else:
            self._print(heading)
            self._print(Text(story))
        await self._rest()

    async def chapter(self, title: str, story: str) -> None:
        """Begin a part of the day."""
        self._print(Text())
        if self._console.is_terminal:
            self._print(Rule(Text(title, "bold cyan"), style="cyan", align="left"))
        else:
            self._print(Text(f"== {title} =="))
        await self._tell(Text(story, "dim"))

    async def says(self, at: datetime, who: str, where: str, text: str) -> None:
        """Somebody outside says something, in their own words."""
        await self._line("people", at, Text.assemble((who, "bold"), f" ({where})"))
        await self._more(Text(f"“{text.strip()}”", "yellow"))

    async def does(self, at: datetime, who: str, what: str) -> None:
        """Somebody inside does something."""
        await self._line("people", at, Text.assemble((who, "bold"), f" {what}"))

    async def quotes(self, lines: Sequence[str]) -> None:
        """Show words of somebody inside, paragraph by paragraph."""
        for line in filter(None, (line.strip() for line in lines)):
            await self._more(Text(line, "yellow"))

    async def detail(self, text: str) -> None:
        """Say more about the line above."""
        await self._more(Text(text, "dim"))

    async def itself(self, at: datetime, what: str) -> None:
        """The system does something by itself."""
        await self._line("itself", at, Text(what))

    async def outside(self, at: datetime, what: str) -> None:
        """Something arrives outside."""
        await self._line("outside", at, Text(what))

    async def checked(self, is_true: bool, what: str) -> None:
        """Say whether an expectation came true."""
        mark, style = MARKS["true" if is_true else "false"]
        margin = Text.assemble(INDENT[:-2], (f"{mark} ", style))
        await self._tell(self._after(margin, Text(what, style)))

    async def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show figures in columns; the first column is of words."""
        table = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False)
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place else "left", header_style="dim")
        for row in rows:
            table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
        self._print(Text())
        self._console.print(table)
        await self._rest()

    def show(self, status: Mapping[str, str]) -> None:
        """Keep these figures in the status line."""
        self._status.update(status)

    def _foot(self) -> Text:
        parts = [f"{name} {value}" for name, value in self._status.items()]
        return Text("  ·  ".join(parts), "reverse")

    async def _line(self, kind: str, at: datetime, text: Text) -> None:
        mark, style = MARKS[kind]
        margin = Text.assemble((f"{at:%H:%M}", "cyan"), " ", (mark, style), " ")
        await self._tell(self._after(margin, text))

    async def _more(self, text: Text) -> None:
        await self._tell(self._after(Text(INDENT), text))

    def _after(self, margin: Text, text: Text) -> Text | Table:
        """Put `text` behind a margin; in a terminal all its lines stay right of it."""
        if not self._console.is_terminal:
            return margin + text
        row = Table.grid()
        row.add_column(width=len(INDENT), no_wrap=True)
        row.add_column()
        row.add_row(margin, text)
        return row

    async def _tell(self, line: Text | Table) -> None:
        self._print(line)
        await self._rest()

    def _print(self, line: Text | Table | Rule | Panel) -> None:
        self._console.print(line, soft_wrap=not self._console.is_terminal, highlight=False)

    async def _rest(self) -> None:
        if self._pause:
            await asyncio.sleep(self._pause)

    async def end(self, checked: int, false: Sequence[str]) -> None:
        """Say how it ended."""
        self._print(Text())
        if not false:
            self._print(Text(f"All {checked} expectations came true.", "bold green"))
            return
        self._print(Text(f"{len(false)} of {checked} expectations did not come true:", "bold red"))
        for what in false:
            self._print(Text(f"  {what}"))
