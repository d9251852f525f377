"""What tells about a person is left out wherever it is shown."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from rapport.common.events import CATALOGUE
from rapport.common.events.documents import json_schema
from rapport.common.events.envelope import Personal, Value, without_personal
from rapport.common.matching import Conditions
from rapport.common.telemetry import hide_personal

SECRET = "ana@example.org"


class Person(Value):
    town: str = "Bath"
    mail: Annotated[str | None, Personal(of="contact")] = SECRET


class Party(Value):
    host: Person | None = Person()
    guests: tuple[Person, ...] = (Person(), Person(town="Ulm"))
    by_seat: dict[int, list[Person]] = Field({1: [Person()]})
    shy: frozenset[Person] = frozenset({Person()})
    nobody: Person | None = None
    rules: Conditions = Conditions.model_validate({"kind": ["praise", None]})
    toast: Annotated[dict[str, str], Personal(of="author")] = Field({"to": SECRET})


def test_marked_fields_are_left_out_at_any_depth() -> None:
    assert without_personal(Party()) == {
        "host": {"town": "Bath"},
        "guests": [{"town": "Bath"}, {"town": "Ulm"}],
        "by_seat": {"1": [{"town": "Bath"}]},
        "shy": [{"town": "Bath"}],
        "nobody": None,
        "rules": {"kind": ["praise", None]},
    }


@pytest.mark.parametrize("model", [Party(), Conditions.model_validate({"town": "Bath"})])
def test_models_can_be_logged(model: BaseModel) -> None:
    logged = hide_personal(None, "info", {"party": model, "more": [model]})
    assert "Bath" in str(logged)
    assert SECRET not in str(logged)


def _marks(schema: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(schema, dict):
        if "x-personal" in schema:
            yield place
        for name, part in schema.items():
            yield from _marks(part, (*place, name))
    elif isinstance(schema, list):
        for part in schema:
            yield from _marks(part, (*place, "[]"))


def test_every_mark_of_the_contract_is_where_it_is_looked_for() -> None:
    for declared in CATALOGUE.values():
        for place in _marks(json_schema(declared)):
            assert place[-2] == "properties", f"{declared.TYPE}: {'/'.join(place)}"
