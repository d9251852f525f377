"""A bounded memory of what was asked lately: a courtesy, since correctness comes from ids."""

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class Memory(Generic[V]):
    """The last `limit` names, each with a value; the oldest makes way for a new one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def recall(self, name: str, value: V) -> V:
        """Return what was kept under `name`; where nothing was, keep `value` and return it."""
        kept = self._values.setdefault(name, value)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
        return kept
