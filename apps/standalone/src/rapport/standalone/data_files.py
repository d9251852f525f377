"""The files of a data directory: that they are of one moment, and how to copy them while in use.

The log says how far each service has come, its store what came of it. A store that is older than
its log has lost what the log takes for done; one that is newer has told what the log has never
heard. So a copy takes every file's right to write, begins to read each while all writing stands
still, lets writing go on, and then copies what it sees. That is what a process leaves that is
killed at that moment, and every start can do with it.

The files of a copy carry one mark, so those of different copies are not taken for one installation.
A store that is new beside them gets it, too.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from rapport.common.bus.log import open_to_read, trouble
from rapport.common.errors import Conflict, NotFound, PermanentError

LOG: Final = "bus.db"
KEYS: Final = "keys"
PATIENCE_SECONDS: Final = 30.0
"""How long somebody may be writing to one file before it can be copied."""

_MARK: Final = slice(68, 72)
"""Where SQLite keeps a file's application id, which is 0 unless somebody has set it."""


def log_of(data_dir: Path) -> Path:
    """Return the file of the log."""
    return data_dir / LOG


def store_of(data_dir: Path, service: str) -> Path:
    """Return the file of a service's store."""
    return data_dir / f"{service}.db"


def check_files(data_dir: Path, services: Iterable[str]) -> None:
    """Raise PermanentError where the files in `data_dir` are not those of one installation.

    A new directory has none; a new service has no store yet.
    """
    log_file = log_of(data_dir)
    stores = {name: store_of(data_dir, name) for name in services}
    there = [path for path in (log_file, *stores.values()) if path.exists()]
    if there and log_file not in there:
        raise PermanentError(f"{data_dir}: {LOG} is missing beside the stores that go with it")
    marks = {path.name: _mark(path) for path in there}
    if len(set(marks.values())) > 1:
        strangers = [name for name, mark in marks.items() if mark != marks[LOG]]
        raise PermanentError(
            f"{data_dir}: {', '.join(strangers)} and {LOG} are of different copies; "
            "take all files of one"
        )
    if there and (missing := [name for name, path in stores.items() if path not in there]):
        _refuse_lost(data_dir, missing)


def mark_new_stores(data_dir: Path, services: Iterable[str]) -> None:
    """Let the stores that are yet to be made carry the mark of the log, if it is there and has one.

    Needs the log's lock. Raises TemporaryError where a file cannot be written.
    """
    log_file = log_of(data_dir)
    mark = int.from_bytes(_mark(log_file)) if log_file.exists() else 0
    if mark == 0:
        return
    with trouble(data_dir):
        for path in (store_of(data_dir, name) for name in services):
            if not path.exists():
                _make_marked(path, mark)


def copy_files(data_dir: Path, target: Path, services: Iterable[str]) -> None:
    """Copy an installation to `target`, whole or not at all, also while it runs.

    Raises NotFound where there is none, Conflict where `target` exists, and TemporaryError where a
    file cannot be read or written; writers wait for some milliseconds.
    """
    files = [log_of(data_dir), *(store_of(data_dir, name) for name in services)]
    files = [path for path in files if path.exists()]
    if log_of(data_dir) not in files:
        raise NotFound(f"{data_dir} holds no installation")
    if target.exists():
        raise Conflict(f"{target} exists")
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with trouble(target.parent):
            unfinished.mkdir(parents=True, mode=0o700)
            _copy_databases(files, unfinished)
            shutil.copytree(data_dir / KEYS, unfinished / KEYS)
            os.rename(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _copy_databases(files: Iterable[Path], folder: Path) -> None:
    mark = 1 + secrets.randbelow(2**31 - 1)
    with ExitStack() as reading:
        sources = {
            path: reading.enter_context(closing(_connect(path, PATIENCE_SECONDS))) for path in files
        }
        _begin_to_read(sources)
        for path, source in sources.items():
            with closing(_connect(folder / path.name)) as copy:
                source.backup(copy)
                _set_mark(copy, mark)


def _begin_to_read(sources: Mapping[Path, sqlite3.Connection]) -> None:
    """Let each begin to read its file, all at one moment: while nobody can write to any."""
    with ExitStack() as nobody_writes:
        for path in sources:
            holder = nobody_writes.enter_context(closing(_connect(path, PATIENCE_SECONDS)))
            holder.execute("BEGIN IMMEDIATE")
        for source in sources.values():
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _connect(path: Path, patience: float = 0.0) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience, isolation_level=None)


def _make_marked(path: Path, mark: int) -> None:
    """Make an empty database that has the mark as soon as it is there."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with closing(_connect(unfinished)) as database:
        _set_mark(database, mark)
    os.rename(unfinished, path)


def _set_mark(database: sqlite3.Connection, mark: int) -> None:
    database.execute(f"PRAGMA application_id = {mark}")


def _mark(path: Path) -> bytes:
    with trouble(path.parent), path.open("rb") as file:
        return file.read(_MARK.stop)[_MARK] or bytes(4)


def _refuse_lost(data_dir: Path, missing: Iterable[str]) -> None:
    """Raise PermanentError where the log knows how far a service has come that has no store."""
    with closing(open_to_read(log_of(data_dir))) as connection, trouble(data_dir):
        known = {group for (group,) in connection.execute("SELECT consumers FROM positions")}
    if lost := sorted(known.intersection(missing)):
        names = ", ".join(store_of(data_dir, name).name for name in lost)
        raise PermanentError(f"{data_dir}: {names} is missing beside the {LOG} that goes with it")
