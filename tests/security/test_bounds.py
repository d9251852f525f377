"""What may be sent has bounds, and a field that nobody asked for is refused, never passed over.

Both are said in the OpenAPI documents, so both are read there, for every route that there is; then
each route with a body is sent what a sender might like to decide and must not.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from rapport.common.http import create_app
from rapport.intake.domain import SUBMITTED

from .cast import bearer, signed
from .conftest import Door
from .test_access import routers

Json = dict[str, Any]

LONGEST_PAGE: Final = 200
BOUNDED: Final = {"maxLength", "pattern", "enum", "const", "format"}
CHECKED_OTHERWISE: Final = {
    ("/notification/v1/subscriptions/{id}", "when"): "as a whole, by its length as JSON",
    ("/intake/v1/feedback/batch", ""): "NDJSON: by the size of a body",
    ("/intake/v1/hooks/{mapping}", ""): "somebody else's JSON, of any form",
    ("/intake/v1/events", ""): "CloudEvents, which may have attributes of their own",
}
"""Parts of bodies whose bounds JSON Schema does not tell; the tests of their services do."""

FORBIDDEN: Final = {
    "id": "1",
    "by": "eve",
    "owner_id": "eve",
    "person": "p1",
    "client": "web-shop",
    "version": 9,
    "received_at": "2026-03-02T08:00:00Z",
    "state": "closed",
    "exercise": "drill",
    "roles": ["admin"],
    "recipient": "p1",
    "secrets": ["whsec_AAAA"],
    "schema": 9,
    "outbox": [],
}
"""What is decided by us alone; nobody's body has a field of these names."""


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield each operation of an OpenAPI document with its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def documents() -> dict[str, Json]:
    """Return every service's OpenAPI document."""
    return {name: create_app(name, name, router).openapi() for name, router in routers().items()}


class Reading:
    """Goes through a schema of one document and finds each of its parts."""

    def __init__(self, document: Json) -> None:
        self._schemas = document["components"]["schemas"]

    def parts(
        self, schema: Json, place: str = "", met: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, Json]]:
        """Yield each part of a schema with its place, each model once on the way down to it."""
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in met:
            return
        if name:
            yield from self.parts(self._schemas[name], place, (*met, name))
            return
        yield place, schema
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self.parts(choice, place, met)
        for field, part in schema.get("properties", {}).items():
            yield from self.parts(part, f"{place}/{field}", met)
        for part in (schema.get("items"), schema.get("additionalProperties")):
            if isinstance(part, dict):
                yield from self.parts(part, f"{place}/*", met)


def sent(name: str, document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield each part of each body that a service takes: path, place, schema."""
    reading = Reading(document)
    for _, path, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for place, part in reading.parts(content["schema"]):
                if (path, place.strip("/").partition("/")[0]) not in CHECKED_OTHERWISE:
                    yield path, place, part


@pytest.mark.parametrize(("name", "document"), documents().items())
def test_every_list_is_read_in_pages(name: str, document: Json) -> None:
    reading = Reading(document)
    for method, path, operation in operations(document):
        answer = operation["responses"].get("200", {}).get("content", {})
        schema = answer.get("application/json", {}).get("schema", {})
        fields = {place for place, _ in reading.parts(schema)}
        asked = {given["name"]: given["schema"] for given in operation.get("parameters", ())}
        if method == "get" and {"/items", "/next"} <= fields:
            assert asked["limit"]["maximum"] <= LONGEST_PAGE, path
            assert asked["limit"]["minimum"] == 1, path


@pytest.mark.parametrize(("name", "document"), documents().items())
def test_every_text_list_and_table_that_may_be_sent_has_a_limit(name: str, document: Json) -> None:
    for path, place, part in sent(name, document):
        match part.get("type"):
            case "string":
                assert part.keys() & BOUNDED, (path, place)
            case "array":
                assert "maxItems" in part, (path, place)
            case "object":
                names = part.get("propertyNames", {})
                is_table = isinstance(part.get("additionalProperties"), dict)
                assert not is_table or "maxProperties" in part or names, (path, place)


@pytest.mark.parametrize(("name", "document"), documents().items())
def test_every_body_refuses_what_it_does_not_know(name: str, document: Json) -> None:
    for path, place, part in sent(name, document):
        if "properties" in part:
            assert part.get("additionalProperties") is False, (path, place)


async def test_nobody_decides_what_is_ours_to_decide(door: Door) -> None:
    document = door.app.openapi()
    for method, path, operation in operations(document):
        if "requestBody" not in operation or (path, "") in CHECKED_OTHERWISE:
            continue
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        ours = {f"/{name}" for name in FORBIDDEN}
        ours -= {place for place, _ in Reading(document).parts(schema)}
        answer = await door.http.request(
            method, path.replace("{", "").replace("}", ""), json=FORBIDDEN, headers=bearer(signed())
        )
        assert answer.status_code == 422, path
        assert ours <= {problem["pointer"] for problem in answer.json()["errors"]}, path


@pytest.mark.parametrize("door", ["intake"], indirect=True)
async def test_a_cloud_event_brings_nothing_that_is_ours_to_decide(door: Door) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": SUBMITTED}
    data = {"kind": "question", "channel": "web", "text": "When?"} | FORBIDDEN
    headers = bearer(signed()) | {"content-type": "application/cloudevents+json"}
    answer = await door.http.post(
        "/intake/v1/events", content=json.dumps(event | {"data": data}), headers=headers
    )
    assert answer.status_code == 422
    told = {problem["pointer"] for problem in answer.json()["errors"]}
    assert told == {f"/{name}" for name in FORBIDDEN}
