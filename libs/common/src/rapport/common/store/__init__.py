"""The store: aggregates and facts, written atomically, with the same promises on every database."""

from rapport.common.store.port import Change, Page, Range, Store, Tally, Where

__all__ = ["Change", "Page", "Range", "Store", "Tally", "Where"]
