"""The store on SQLite: one file per service, no server, every promise of the port kept."""

from rapport.common.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
