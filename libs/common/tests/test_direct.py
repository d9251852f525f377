"""Direct routes: answered ahead of the framework, documented and failing like all others."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from rapport.common.direct import DirectRoute
from rapport.common.errors import Conflict
from rapport.common.http import create_app


class Note(BaseModel):
    """What is written down."""

    words: str


def documented(body: Note, loud: Annotated[bool, Header()] = False) -> None:
    """What `write` reads, for the documentation."""
    raise AssertionError("what is documentation only is never called")


notes = APIRouter(prefix="/notes/v1", route_class=DirectRoute)


@notes.post("/notes", status_code=202, dependencies=[Depends(documented)], response_model=Note)
async def write(request: Request) -> Response:
    """Write a note."""
    body = await request.body()
    if body == b"twice":
        raise Conflict("it is written already")
    if body == b"oops":
        raise ZeroDivisionError
    if body == b"gone":
        raise ClientDisconnect
    return Response(f"{'route' in request.scope} {request.app.title} {body.decode()}", 202)


@notes.get("/notes/{name}")
async def read(request: Request) -> Response:
    """Read a note."""
    return Response(request.path_params["name"])


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter()
    router.include_router(notes)
    app = create_app("notes", "Notes", router)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://notes.test") as client:
        yield client


async def test_it_is_answered_ahead_of_the_framework(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/notes/v1/notes", content=b"not even JSON")
    assert (answer.status_code, answer.text) == (202, "False Notes not even JSON")


async def test_with_parameters_the_framework_finds_it(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/notes/v1/notes/milk")).text == "milk"


async def test_another_method_is_the_frameworks_to_refuse(http: httpx2.AsyncClient) -> None:
    answer = await http.delete("/notes/v1/notes")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


@pytest.mark.parametrize(("body", "status"), [(b"twice", 409), (b"oops", 500)])
async def test_it_fails_as_all_routes_do(
    http: httpx2.AsyncClient, body: bytes, status: int
) -> None:
    answer = await http.post("/notes/v1/notes", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_nobody_is_answered_who_has_gone(http: httpx2.AsyncClient) -> None:
    with pytest.raises(AssertionError):  # the transport's: no response was started
        await http.post("/notes/v1/notes", content=b"gone")


async def test_it_is_documented_like_all_others(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/notes/openapi.json")).json()
    operation = document["paths"]["/notes/v1/notes"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Note"}
    assert [parameter["name"] for parameter in operation["parameters"]] == ["loud"]
    assert set(operation["responses"]) == {"202", "default"}
