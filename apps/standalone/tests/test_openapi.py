"""One document of all APIs: names that meet are told apart, and it can be asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner
from fastapi import FastAPI
from pydantic import BaseModel

from rapport.common.http import Router
from rapport.common.runtime import Service
from rapport.standalone.cli import rapport
from rapport.standalone.openapi import document, offer
from rapport.standalone.system import SERVICES


class Same(BaseModel):
    """Means the same everywhere."""

    text: str


def service(name: str, kind: type) -> Service:
    """A service whose things have a grade of this type."""

    class Grade(BaseModel):
        value: kind  # type: ignore[valid-type]

    class Thing(BaseModel):
        grade: Grade
        same: Same

    router = Router(prefix=f"/{name}/v1")

    @router.get("/things")
    def things() -> Thing:
        raise NotImplementedError

    return replace(SERVICES["routing"], name=name, title=name, router=router)


def answered(merged: dict[str, Any], path: str) -> str:
    """Return the name of the schema of what a path answers."""
    content = merged["paths"][path]["get"]["responses"]["200"]["content"]
    reference: str = content["application/json"]["schema"]["$ref"]
    return reference.rpartition("/")[2]


def test_what_means_something_else_in_another_service_has_a_name_of_its_own() -> None:
    merged = document([service("books", int), service("films", str)])
    schemas = merged["components"]["schemas"]
    assert answered(merged, "/books/v1/things") == "Thing"
    assert answered(merged, "/films/v1/things") == "FilmsThing"
    assert schemas["FilmsThing"]["properties"]["grade"]["$ref"].endswith("/FilmsGrade")
    assert schemas["Grade"]["properties"]["value"]["type"] == "integer"
    assert schemas["FilmsGrade"]["properties"]["value"]["type"] == "string"


def test_what_means_the_same_is_there_once() -> None:
    schemas = document([service("books", int), service("films", int)])["components"]["schemas"]
    assert [name for name in schemas if name.startswith("Films")] == []


async def test_it_can_be_asked_for() -> None:
    app = FastAPI(openapi_url=None)
    offer(app, SERVICES.values())
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rapport") as client:
        first, second = [await client.get("/openapi.json") for _ in range(2)]
    assert first.json() == second.json() == document(SERVICES.values())


def test_it_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    result = CliRunner().invoke(rapport, ["schema", "openapi", str(file)])
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text("utf-8")) == document(SERVICES.values())
