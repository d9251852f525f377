"""The store: aggregates and facts, each write atomic, with the same promises on SQLite and MongoDB."""

from rapport.common.store.port import Change, Page, Range, Store, Tally, Where

__all__ = ["Change", "Page", "Range", "Store", "Tally", "Where"]
