"""What intake reads: mappings from files, and the status of messages from its store."""

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rapport.common.errors import Invalid
from rapport.common.store.port import Store
from rapport.intake.domain import Mapping, id_prefix_of, parse_mapping, reference_of
from rapport.intake.domain.status import CaseStatus, FeedbackStatus, State


def load_mappings(folder: Path | None = None) -> dict[str, Mapping]:
    """Return mappings by name: those in `folder`, then the built-in ones that it does not replace.

    Raises Invalid with file, line and field of each mistake.
    """
    built_in = files("rapport.intake").joinpath("mappings")
    mappings: dict[str, Mapping] = {}
    for place in (built_in,) if folder is None else (folder, built_in):
        if not place.is_dir():
            raise Invalid(f"there is no folder {place}")
        for file in sorted(place.iterdir(), key=str):
            if file.name.endswith(".yaml"):
                mapping = load_mapping(file)
                mappings.setdefault(mapping.name, mapping)
    return mappings


def load_mapping(file: Traversable) -> Mapping:
    """Return the mapping in `file`; raises Invalid as `load_mappings` does."""
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"{file}: is not UTF-8") from None
    return parse_mapping(text, str(file))


class Statuses:
    """The named questions about where messages stand."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, name: str) -> FeedbackStatus | None:
        """Return the status of the message with this id or reference, None if it is not known."""
        prefix = id_prefix_of(name)
        if prefix is None:
            return await self._store.get(FeedbackStatus, name)
        found = await self._store.find(FeedbackStatus, {"reference": reference_of(prefix)}, limit=1)
        return found.items[0] if found.items else None

    async def of_its_case(self, message: FeedbackStatus) -> CaseStatus | None:
        """Return what became of a message's case, None while that never was resolved."""
        if message.state is not State.ROUTED or message.case_id is None:
            return None
        return await self._store.get(CaseStatus, message.case_id)

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of these messages that the log is known to hold."""
        return set(await self._store.get_many(FeedbackStatus, ids))
