"""The event contract as documents: current, explained, and compatible with what others lean on."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rapport.common.events import CATALOGUE
from rapport.common.events.documents import (
    broken_by,
    documents,
    export,
    incompatibilities,
    json_schema,
)

DOCUMENTS = Path(__file__).parents[3] / "docs" / "events"
OURS = sorted(type for type in CATALOGUE if type.startswith("rapport."))


def test_the_committed_documents_are_current() -> None:
    committed = {path.name: path.read_text("utf-8") for path in DOCUMENTS.glob("*.json")}
    assert committed == documents(), "run `make docs`"


def test_an_export_leaves_alone_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    assert export(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"package.json", *documents()}


def test_no_event_breaks_those_who_read_the_committed_form() -> None:
    assert list(broken_by(DOCUMENTS)) == []


@pytest.mark.parametrize("type", OURS)
def test_every_event_is_explained_and_its_schema_is_one(type: str) -> None:
    declared = CATALOGUE[type]
    assert declared.__doc__
    assert not declared.__doc__.startswith(declared.__name__ + "(")
    Draft202012Validator.check_schema(json_schema(declared))


OLD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "kind": {"$ref": "#/$defs/Kind"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
    },
    "required": ["id"],
    "$defs": {
        "Kind": {"type": "string", "enum": ["a", "b"]},
        "Line": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    new = deepcopy(OLD)
    place = new
    for step in path[:-1]:
        place = place[step]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return new


def test_adding_is_compatible() -> None:
    assert list(incompatibilities(OLD, changed("properties", "more", to={"type": "string"}))) == []
    assert list(incompatibilities(OLD, changed("$defs", "Kind", "enum", to=["a", "b", "c"]))) == []
    assert list(incompatibilities(OLD, changed("properties", "id", "title", to="Id"))) == []


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (changed("properties", "id", to=None), "/id is gone"),
        (changed("properties", "id", "type", to="integer"), "/id changed from string to integer"),
        (changed("required", to=["id", "kind"]), "/kind became required"),
        (changed("$defs", "Kind", "enum", to=["a"]), "/kind lost the word 'b'"),
        (
            changed("$defs", "Line", "properties", "text", to=None),
            "/lines/items/text is gone",
        ),
        (
            changed("properties", "size", to={"type": "integer"}),
            "/size changed from integer or null to integer",
        ),
    ],
)
def test_what_breaks_a_reader_is_named(new: dict[str, Any], reason: str) -> None:
    assert list(incompatibilities(OLD, new)) == [reason]
