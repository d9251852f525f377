"""What an event costs when a million cases are stored, against the same with ten thousand.

It is the whole line of `line`, on two installations side by side. The large one is the small one
many times over: what is stored of a case is copied within SQLite, each copy under an id of its own
and an interval earlier, which takes minutes where saving it all would take hours. The copies' ids
lie between those of the originals, evenly, as ids do.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.harness import Row, print_table
from benchmarks.line import compared
from benchmarks.stored import fill
from rapport.analytics.domain.burst.bins import BIN
from rapport.common.serving import run_on_loop
from rapport.common.store.sqlite.table import Table, quoted
from rapport.standalone.system import SERVICES

FEW: Final = int(os.environ.get("FEW", "10000"))
MANY: Final = int(os.environ.get("MANY", "1000000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))

SECOND: Final = 1_000_000
BIN_MICROSECONDS: Final = BIN // timedelta(microseconds=1)
DIGITS: Final = "234567abcdefghijklmnopqrstuvwxyz"
"""What ids are written with, in their order."""

LENGTH: Final = 26
KEPT: Final = 4
"""Characters of an id in front of a copy's number: enough to tell all originals apart."""

FAST: Final = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000")


def multiply(few: Path, many: Path, times: int) -> None:
    """Make `many` an installation that has stored `times` what `few` has."""
    shutil.copytree(few, many)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = [pool.submit(_multiply, many, name, times) for name in SERVICES]
        for job in jobs:
            job.result()


def _multiply(folder: Path, name: str, times: int) -> None:
    with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as connection:
        for pragma in FAST:
            connection.execute(f"PRAGMA {pragma}")
        for kind in SERVICES[name].kinds:
            table = Table(kind)
            [count] = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            if count >= FEW:
                _multiply_table(connection, table, times)
        connection.execute("PRAGMA journal_mode = WAL")


def _multiply_table(connection: sqlite3.Connection, table: Table, times: int) -> None:
    """Copy rows without the indexes, which are made anew afterwards: that is quicker."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
    names = ", ".join(map(quoted, columns))
    values = ", ".join(_value(table, column, columns) for column in columns)
    connection.execute("BEGIN")
    for index in _indexes(connection, table):
        connection.execute(f"DROP INDEX {quoted(index)}")
    connection.execute(
        f"""INSERT INTO {table.name} ({names})
        WITH RECURSIVE copies (number) AS
            (SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < ?)
        SELECT {values} FROM (SELECT * FROM {table.name} ORDER BY id) CROSS JOIN copies""",
        [times - 1],
    )
    table.prepare(connection)
    connection.execute("COMMIT")


def _value(table: Table, column: str, columns: list[str]) -> str:
    """Say what a column of a copy holds."""
    earlier = f"- number * {FEW * SECOND}"
    match column:
        case "id" | "case_id":
            return _copy(column)
        case "document" if "case_id" in columns:
            told = f"replace(document, case_id, {_copy('case_id')})"
            return f"replace({told}, id, {_copy('id')})"
        case "document":
            return f"replace(document, id, {_copy('id')})"
        case "bin":
            return f"(at {earlier}) - (at {earlier}) % {BIN_MICROSECONDS}"
        case table.kind.ORDER if column in ("at", "began_at") or column.endswith("_at"):
            return f"{quoted(column)} {earlier}"
        case _:
            return quoted(column)


def _indexes(connection: sqlite3.Connection, table: Table) -> Iterator[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql <> ''"
    yield from [name for (name,) in connection.execute(query, [table.collection])]


def _copy(column: str) -> str:
    """Say what the id of a copy is: the copy's number stands behind the first characters."""
    high, low = (
        f"substr('{DIGITS}', {digit} + 1, 1)"
        for digit in (f"number / {len(DIGITS)}", f"number % {len(DIGITS)}")
    )
    rest = f"substr({column}, {KEPT + 1}, {LENGTH - KEPT - 2})"
    return f"substr({column}, 1, {KEPT}) || {high} || {low} || {rest}"


def run() -> list[Row]:
    """Return the row of the report, and print how the line spends its time."""
    with TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        fill({few: FEW})
        multiply(few, many, MANY // FEW)
        return run_on_loop(compared((FEW, few), (MANY, many), ROUNDS))


if __name__ == "__main__":
    print_table(run())
