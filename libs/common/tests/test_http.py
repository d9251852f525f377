"""What every service's HTTP has in common, told with a small library."""

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, ClassVar

import httpx2
import pytest
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from structlog.testing import capture_logs

from rapport.common.aggregate import Aggregate
from rapport.common.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    Malformed,
    NotFound,
    PermanentError,
    TemporaryError,
)
from rapport.common.http import (
    BODY_LIMIT,
    PROBLEM,
    Command,
    Cursor,
    Front,
    Limit,
    Router,
    command,
    etag,
    may,
    operations,
    page,
)
from rapport.common.runtime import Host, Service
from rapport.common.store.port import Store
from rapport.common.strict_json import pointer_to
from rapport.common.testing import Harness, harness, token

SECRET = "the reader's secret"


class Book(Aggregate):
    """A book that can be lent, and whose title can be changed."""

    COLLECTION: ClassVar[str] = "books"

    title: str = ""
    lent: int = 0


class BookBody(BaseModel):
    """A book as it is sent."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=20)
    authors: list[str] = Field(max_length=3)
    pages: int = Field(gt=0)


router = Router(prefix="/library/v1")
trouble: list[Exception] = []


@router.post("/books", status_code=201)
async def describe(body: BookBody) -> dict[str, str]:
    return {"title": body.title}


@router.post("/scans")
async def scan(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@router.post("/books/{id}/loans")
async def lend(id: str, cmd: Annotated[Command, command("case.work")]) -> dict[str, Any]:
    def decide(book: Book | None) -> Book:
        book = book or Book(id=id, title=id)
        book.lent += 1
        return book

    book = await cmd.change(Book, id, decide)
    return {"lent": book.lent, "by": cmd.by.subject, "etag": etag(book)["ETag"]}


@router.post("/books/{id}/reviews")
async def review(body: BookBody, cmd: Annotated[Command, command("case.work")]) -> str:
    return body.title


@router.get("/books", dependencies=[may("case.read")])
async def find(request: Request, limit: Limit = 2, cursor: Cursor = None) -> dict[str, Any]:
    store: Store = request.app.state.resources
    return page(await store.find(Book, limit=limit, cursor=cursor), lambda book: book.id)


@router.get("/trouble")
async def get_into_trouble() -> None:
    raise trouble.pop()


def shelf(host: Host) -> Store:
    return host.store


LIBRARY = Service(
    name="library",
    title="A library",
    consumes=(),
    kinds=(Book,),
    declared=(),
    router=router,
    resources=shelf,
)


@pytest.fixture
async def library() -> AsyncIterator[Harness]:
    async with harness(LIBRARY) as under_test:
        yield under_test


@pytest.fixture
async def front(library: Harness) -> AsyncIterator[httpx2.AsyncClient]:
    """The whole application as a server has it, with limits, health and metrics."""

    async def missing() -> dict[str, str]:
        return await library.running.missing()

    app = Front({"library": library.running.app}, operations(missing))
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {token('ana')}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://rapport.test", headers=headers
    ) as client:
        yield client


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """Return the problem document that an answer must be."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    assert told["title"]
    return told


# Problem documents


async def test_an_invalid_body_has_an_entry_per_field_and_never_repeats_what_was_sent(
    library: Harness,
) -> None:
    body = {"title": SECRET * 2, "authors": ["a", 5], "pages": 0, SECRET: SECRET}
    told = problem(await library.call("POST", "/library/v1/books", json=body), 422)

    pointers = {entry["pointer"] for entry in told["errors"]}
    assert pointers == {"/title", "/authors/1", "/pages", f"/{SECRET}"}
    assert all(entry["reason"] for entry in told["errors"])
    assert SECRET not in "".join(entry["reason"] for entry in told["errors"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"title": "x"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"title": "a", "title": "b", "authors": [], "pages": 1}', 400),
        (b'{"title": "\\ud800", "authors": [], "pages": 1}', 400),
        (b"null", 422),
        (b'"text"', 422),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_problem_too(
    library: Harness, body: bytes, status: int
) -> None:
    answer = await library.call(
        "POST", "/library/v1/books", content=body, headers={"Content-Type": "application/json"}
    )
    problem(answer, status)


async def test_what_is_wrong_outside_the_body_is_named_with_its_place(library: Harness) -> None:
    told = problem(await library.call("GET", "/library/v1/books?limit=1000"), 422)
    assert [entry["pointer"] for entry in told["errors"]] == ["/query/limit"]


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (NotFound("there is no such book"), 404, "Not found"),
        (Conflict("it is lent"), 409, "Conflict"),
        (Malformed("this is no JSON"), 400, "Malformed request"),
        (PermanentError("never"), 422, "Cannot be done"),
    ],
)
async def test_each_error_is_told_with_its_own_status(
    library: Harness, error: PermanentError, status: int, title: str
) -> None:
    trouble.append(error)
    told = problem(await library.call("GET", "/library/v1/trouble"), status)
    assert told == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": error.reason,
    }


async def test_an_error_of_fields_names_them(library: Harness) -> None:
    trouble.append(Invalid("wrong", [FieldProblem("/a/0", "too old")]))
    told = problem(await library.call("GET", "/library/v1/trouble"), 422)
    assert told["errors"] == [{"pointer": "/a/0", "reason": "too old"}]


async def test_trouble_that_passes_says_when_to_try_again(library: Harness) -> None:
    trouble.append(TemporaryError("the store is away", delay=7))
    answer = await library.call("GET", "/library/v1/trouble")
    problem(answer, 503)
    assert answer.headers["retry-after"] == "7"


async def test_a_mistake_of_ours_tells_nothing_of_itself(library: Harness) -> None:
    trouble.append(RuntimeError(SECRET))
    library.http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=library.running.app, raise_app_exceptions=False),
        base_url="http://rapport.test",
    )
    with capture_logs() as logs:
        answer = await library.call("GET", "/library/v1/trouble")
    problem(answer, 500)
    assert SECRET not in answer.text
    assert [entry["event"] for entry in logs] == ["http.failed"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/library/v1/nowhere", 404), ("DELETE", "/library/v1/books", 405)],
)
async def test_what_is_not_there_is_a_problem(
    library: Harness, method: str, path: str, status: int
) -> None:
    answer = await library.call(method, path)
    problem(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((), ""), (("a", 0), "/a/0"), (("a/b", "c~d"), "/a~1b/c~0d"), (("",), "/")],
)
def test_pointers_are_escaped(steps: Iterable[int | str], expected: str) -> None:
    assert pointer_to(steps) == expected


# Who may


async def test_without_a_token_one_is_asked_for_and_a_role_may_not_suffice(
    library: Harness,
) -> None:
    answer = await library.http.get("/library/v1/books")
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"

    told = problem(await library.call("GET", "/library/v1/books", roles=["publisher"]), 403)
    assert "viewer" in told["detail"]


@pytest.mark.parametrize("roles", [None, ["viewer"]])
async def test_what_somebody_sends_who_may_not_is_not_even_read(
    library: Harness, roles: list[str] | None
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    headers = {} if roles is None else {"Authorization": f"Bearer {token('vic', *roles)}"}
    path = "/library/v1/books/b1/reviews"
    answer = await library.http.post(path, content=unread(), headers=headers)
    problem(answer, 401 if roles is None else 403)


# Commands


async def test_a_repeat_with_the_same_key_changes_nothing_another_key_or_caller_does(
    library: Harness,
) -> None:
    async def lend(key: str | None, as_: str = "ana", id: str = "b1") -> int:
        headers = {} if key is None else {"Idempotency-Key": key}
        path = f"/library/v1/books/{id}/loans"
        answer = await library.call("POST", path, as_=as_, headers=headers)
        assert answer.status_code == 200
        return int(answer.json()["lent"])

    assert [await lend("k") for _ in range(3)] == [1, 1, 1]
    assert await lend("another") == 2
    assert await lend("k", as_="ben") == 3
    assert await lend(None) == 4
    assert await lend(None) == 5
    assert await lend("k", id="b2") == 1


async def test_a_command_on_what_was_read_fails_where_it_has_changed(library: Harness) -> None:
    path = "/library/v1/books/b1/loans"

    async def lend(if_match: str) -> httpx2.Response:
        return await library.call("POST", path, headers={"If-Match": if_match})

    problem(await lend('"1"'), 412)
    read = (await library.call("POST", path)).json()["etag"]
    assert (await lend(read)).json()["lent"] == 2
    problem(await lend(read), 412)
    assert (await lend("2")).json()["lent"] == 3


@pytest.mark.parametrize("header", ["*", 'W/"1"', '"x"', '"-1"', '"1", "2"', '"²"'])
async def test_an_etag_that_is_none_of_ours_is_refused(library: Harness, header: str) -> None:
    answer = await library.call(
        "POST",
        "/library/v1/books/b1/loans",
        headers={"If-Match": header.encode("utf-8")},
    )
    assert problem(answer, 422)["errors"][0]["pointer"] == "/header/if-match"


@pytest.mark.parametrize("name", ["Idempotency-Key", "If-Match"])
async def test_headers_have_a_limit(library: Harness, name: str) -> None:
    answer = await library.call("POST", "/library/v1/books/b1/loans", headers={name: "1" * 300})
    problem(answer, 422)


# Pages


async def test_a_list_is_read_page_by_page(library: Harness) -> None:
    for id in ("a", "b", "c", "d", "e"):
        await library.call("POST", f"/library/v1/books/{id}/loans")
    read: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        asked = {"cursor": cursor} if cursor else {}
        answer = (await library.call("GET", "/library/v1/books", params=asked)).json()
        read.append(answer["items"])
        cursor = answer["next"]
    assert read == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("cursor", ["x", "e30", "%00", "a" * 400])
async def test_a_cursor_of_nobody_is_refused(library: Harness, cursor: str) -> None:
    told = problem(await library.call("GET", f"/library/v1/books?cursor={cursor}"), 422)
    assert told["errors"][0]["pointer"] == "/cursor"


# The front: limits, health, metrics


async def chunks(size: int, taken: list[int]) -> AsyncIterator[bytes]:
    """Send `size` bytes without saying how many, and keep how many were taken."""
    chunk = b"x" * 1024 * 1024
    for _ in range(size // len(chunk)):
        taken.append(len(chunk))
        yield chunk


async def test_a_body_within_the_limit_is_read(front: httpx2.AsyncClient) -> None:
    answer = await front.post("/library/v1/scans", content=b"x" * BODY_LIMIT)
    assert answer.json() == {"size": BODY_LIMIT}
    answer = await front.post("/library/v1/scans", content=chunks(BODY_LIMIT, []))
    assert answer.json() == {"size": BODY_LIMIT}


@pytest.mark.parametrize("path", ["/library/v1/scans", "/library/v1/books"])
async def test_a_body_over_the_limit_is_refused_by_its_length(
    front: httpx2.AsyncClient, path: str
) -> None:
    told = problem(await front.post(path, content=b"x" * (BODY_LIMIT + 1)), 413)
    assert told["detail"] == "the body is over 10 MiB"


@pytest.mark.parametrize("path", ["/library/v1/scans", "/library/v1/books"])
async def test_a_body_without_a_length_is_refused_once_it_is_over_the_limit(
    front: httpx2.AsyncClient, path: str
) -> None:
    taken: list[int] = []
    problem(await front.post(path, content=chunks(4 * BODY_LIMIT, taken)), 413)


@pytest.mark.parametrize("length", ["many", "-1", "1e9", ""])
async def test_a_length_that_is_no_number_changes_nothing(
    front: httpx2.AsyncClient, length: str
) -> None:
    answer = await front.post(
        "/library/v1/scans", content=b"xyz", headers={"Content-Length": length}
    )
    assert answer.json() == {"size": 3}


async def test_health_says_what_is_missing(front: httpx2.AsyncClient, library: Harness) -> None:
    assert (await front.get("/livez")).text == "ok"
    assert (await front.get("/readyz")).json() == {"ready": True, "missing": {}}

    await library.running.store.stop()
    answer = await front.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "missing": {"library.store": "the store is closed"},
    }
    assert (await front.get("/livez")).status_code == 200


async def test_requests_are_counted_by_service_method_and_status(
    front: httpx2.AsyncClient,
) -> None:
    async def counted(line: str) -> float:
        metrics = (await front.get("/metrics")).text.splitlines()
        found = [text for text in metrics if text.startswith(f"rapport_http_requests_total{line}")]
        return float(found[0].split()[-1]) if found else 0.0

    line = '{method="GET",service="library",status="404"}'
    before = await counted(line)
    await front.get("/library/v1/nowhere")
    assert await counted(line) == before + 1


async def test_paths_of_no_service_and_odd_paths_are_answered(front: httpx2.AsyncClient) -> None:
    for path in ("/", "/nowhere", "//library/v1/books", "/library"):
        assert (await front.get(path)).status_code == 404


async def test_the_document_of_the_interface_has_problems_as_its_errors(
    front: httpx2.AsyncClient,
) -> None:
    document = (await front.get("/library/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    answers = document["paths"]["/library/v1/books"]["post"]["responses"]
    assert answers["default"]["content"].keys() == {PROBLEM}
    schema = answers["default"]["content"][PROBLEM]["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][schema]["required"] == ["title", "status", "detail"]
