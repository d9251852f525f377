"""The real servers that some benchmarks run on: one that the environment names, else one's own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_FOLDER: Final = Path(__file__).parents[1] / "deploy" / "local"


@contextmanager
def kafka() -> Iterator[str | None]:
    """Lend a broker: its address, or None after a word on what is missing."""
    with _lent("kafka", "RAPPORT_TEST_KAFKA", "{}") as address:
        yield address


@contextmanager
def mongodb() -> Iterator[str | None]:
    """Lend a server of MongoDB's protocol: its URI, or None after a word on what is missing."""
    with _lent("mongodb", "RAPPORT_TEST_MONGODB", "mongodb://{}/?{options}") as uri:
        yield uri


@contextmanager
def _lent(name: str, variable: str, form: str) -> Iterator[str | None]:
    if named := os.environ.get(variable):
        yield named
        return
    sys.path.append(str(_FOLDER))
    servers = import_module("servers")
    with TemporaryDirectory() as folder:
        try:
            server = getattr(servers, name)(Path(folder), getattr(servers, f"fetch_{name}")())
            server.start()
        except servers.ServersError as error:
            print(f"skipped, there is no {name}: {error}", file=sys.stderr)
            yield None
            return
        try:
            yield form.format(server.address, options=servers.MONGODB_OPTIONS)
        finally:
            server.stop()
