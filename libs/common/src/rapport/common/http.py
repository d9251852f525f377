"""HTTP, once for all services: problem documents, commands, pages, health, metrics, limits.

Every error is an RFC 9457 problem document; an invalid body has one entry per field (JSON pointer
and reason) and never repeats what was sent. A command takes an optional `Idempotency-Key`, which
becomes its cause, so a repeat changes nothing, and an optional `If-Match` with the version that was
read.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Annotated, Any, Final, TypeVar

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapport.common import tracing
from rapport.common.aggregate import Aggregate
from rapport.common.auth import Principal, Verifier, may, needs_of
from rapport.common.clock import Clock
from rapport.common.direct import Application
from rapport.common.door import Door
from rapport.common.engine import Engine
from rapport.common.errors import (
    FieldProblem,
    Invalid,
    PreconditionFailed,
    RapportError,
    TemporaryError,
    TooLarge,
)
from rapport.common.events.ids import derived_id, random_id
from rapport.common.store.port import Page
from rapport.common.strict_json import MAX_PROBLEMS, parse_json, pointer_to
from rapport.common.telemetry import REQUEST_SECONDS, REQUESTS

PROBLEM: Final = "application/problem+json"
BODY_LIMIT: Final = 10 * 1024 * 1024
_PROBLEMS: Final = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Item = TypeVar("Item")
A = TypeVar("A", bound=Aggregate)

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """RFC 9457; `errors` names each refused field."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def problem_of(error: RapportError) -> Problem:
    """Return the problem document of one of our errors."""
    entries = None
    if isinstance(error, Invalid) and error.problems:
        entries = [{"pointer": item.pointer, "reason": item.reason} for item in error.problems]
    return Problem(title=error.title, status=error.status, detail=error.reason, errors=entries)


def problem_response(error: RapportError) -> Response:
    """Return the HTTP answer of one of our errors."""
    headers = {}
    if isinstance(error, TemporaryError):
        headers["Retry-After"] = str(max(1, round(error.delay)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        problem_of(error).model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type=PROBLEM,
        headers=headers,
    )


async def _on_rapport_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RapportError)
    return problem_response(error)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        FieldProblem(
            pointer_to(item["loc"][1:] if item["loc"][0] == "body" else item["loc"]), item["msg"]
        )
        for item in error.errors()[:MAX_PROBLEMS]
    ]
    return problem_response(Invalid("the request does not fit", problems))


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, _Refused):
        return problem_response(error.error)
    problem = Problem(title=str(error.detail), status=error.status_code, detail=str(error.detail))
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status_code,
        media_type=PROBLEM,
        headers=dict(error.headers or {}),
    )


class _Refused(HTTPException):
    """One of our errors on its way through FastAPI, which lets only its own kind pass."""

    def __init__(self, error: RapportError) -> None:
        super().__init__(error.status, error.title)
        self.error = error


class _StrictRequest(Request):
    """A request whose JSON is read as strictly as feedback is; see `strict_json`."""

    async def body(self) -> bytes:
        """Return the body; refuses one over the limit."""
        try:
            return await super().body()
        except RapportError as error:
            raise _Refused(error) from None

    async def json(self) -> Any:
        """Return the body's JSON; refuses what is none, repeats a key or has half characters."""
        try:
            return parse_json(await self.body())
        except RapportError as error:
            raise _Refused(error) from None


class _StrictRoute(APIRoute):
    """A route that knows its caller before it reads what they send."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        needed = tuple(needs_of(self.dependant))

        async def strictly(request: Request) -> Response:
            for needs in needed:
                await needs.check(request)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class Router(APIRouter):
    """What services add their routes to: bodies are read strictly."""

    def __init__(self, **given: Any) -> None:
        super().__init__(route_class=_StrictRoute, **given)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    route = request.scope.get("route")
    log.error("http.failed", route=getattr(route, "path", "none"), exc_info=error)
    problem = Problem(title="Internal error", status=500, detail="unexpected; it has been logged")
    return Response(problem.model_dump_json(exclude_none=True), 500, media_type=PROBLEM)


@dataclass(frozen=True, slots=True)
class Command:
    """A caller's wish to change something: who, when, and what makes a repeat harmless."""

    cause: str
    by: Principal
    at: datetime
    engine: Engine
    if_match: int | None = None

    async def change(
        self,
        kind: type[A],
        id: str,
        decide: Callable[[A | None], A | None],
        *,
        exercise: str | None = None,
    ) -> A:
        """Apply `decide` to the aggregate; see `Engine.change` for what it raises."""

        def checked(aggregate: A | None) -> A | None:
            if self.if_match is not None and (
                aggregate is None or aggregate.version != self.if_match
            ):
                raise PreconditionFailed("it has changed since you read it")
            return decide(aggregate)

        return await self.engine.change(
            kind, id, checked, cause=self.cause, at=self.at, exercise=exercise
        )


def command(action: str) -> Any:
    """Return the dependency of a route that changes something; it gives the Command."""

    async def build(
        request: Request,
        by: Annotated[Principal, may(action)],
        idempotency_key: Annotated[
            str | None,
            Header(max_length=200, description="A repeat with this key changes nothing."),
        ] = None,
        if_match: Annotated[
            str | None, Header(max_length=40, description="The ETag that was read.")
        ] = None,
    ) -> Command:
        engine: Engine = request.app.state.engine
        cause = (
            derived_id("command", by.subject, request.method, request.url.path, idempotency_key)
            if idempotency_key
            else random_id()
        )
        return Command(cause, by, engine.clock.now(), engine, _version(if_match))

    return Depends(build)


def _version(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    text = if_match.strip().strip('"')
    if not text.isdecimal():
        raise Invalid("the request does not fit", [FieldProblem("/header/if-match", "not an ETag")])
    return int(text)


def etag(aggregate: Aggregate) -> dict[str, str]:
    """Return the headers that name the version of what is shown."""
    return {"ETag": f'"{aggregate.version}"'}


Limit = Annotated[int, Query(ge=1, le=200, description="How many items at most.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]


def page(found: Page[Any], show: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a page as every list is answered: `{"items": [...], "next": cursor or null}`."""
    return {"items": [show(item) for item in found.items], "next": found.next}


class _Interface(Application):
    """A service's application; its document tells errors as they are answered."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"]["default"]["content"] = _PROBLEMS
        return document


def create_app(
    name: str, title: str, router: APIRouter, *, at_once: int | None = None, **state: Any
) -> FastAPI:
    """Return a service's application with the routes of `router`.

    `at_once` is how many POST requests are let in at the same time, where there is a bound.
    `state` (engine, verifier, resources, ready) is what dependencies find on `app.state`.
    """
    app = _Interface(
        door=None if at_once is None else _door(name, at_once),
        title=title,
        version="1",
        openapi_url=f"/{name}/openapi.json",
        docs_url=f"/{name}/docs",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={"default": {"model": Problem, "description": "What was wrong."}},
    )
    for key, value in state.items():
        setattr(app.state, key, value)
    _answer_with_problems(app)
    app.include_router(router)
    app.find_direct_routes()
    return app


def _door(name: str, at_once: int) -> Door:
    refusal = problem_response(TemporaryError(f"{name} has more on its hands than it can take"))
    lines = [b"%b: %b\r\n" % header for header in refusal.raw_headers]
    head = b"HTTP/1.1 503 Service Unavailable\r\n%b\r\n" % b"".join(lines)
    return Door(name, at_once, head + bytes(refusal.body))


def _answer_with_problems(app: FastAPI) -> None:
    app.add_exception_handler(RapportError, _on_rapport_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


Ready = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is missing, by name; nothing missing means ready."""


Rest = Callable[[], Awaitable[dict[str, Any]]]
"""Returns whether nothing is on its way, and when something falls due next."""


def operations(ready: Ready, rest: Rest | None = None) -> FastAPI:
    """Return the application for those who operate: /livez, /readyz and /metrics.

    `rest` is what demos and drills, which move the clock, ask at /rest.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _answer_with_problems(app)

    @app.get("/livez")
    async def livez() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        missing = await ready()
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    if rest is not None:

        @app.get("/rest")
        async def at_rest() -> JSONResponse:
            return JSONResponse(await rest())

    return app


class Front:
    """The outermost application: picks the service by the path's first part, limits and measures.

    A body over 10 MiB is refused with 413 before it is read whole.
    """

    def __init__(self, services: dict[str, ASGIApp], other: ASGIApp) -> None:
        self._services = services
        self._other = other
        self._meters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._doors = {
            name.encode(): app.door
            for name, app in services.items()
            if isinstance(app, Application) and app.door is not None
        }

    def door(self, method: bytes, target: bytes) -> Door | None:
        """Return the door that a request goes through: who only asks goes through none."""
        return self._doors.get(target[1:].partition(b"/")[0]) if method == b"POST" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        started = perf_counter()
        service = scope["path"][1:].partition("/")[0]
        app = self._services.get(service)
        if app is None:
            service, app = "other", self._other
        status = 500
        span = self._begin_span(service, scope) if tracing.is_on() else None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        length = _content_length(scope)
        try:
            if length is None:
                await app(scope, limited(receive), sending)
            elif length <= BODY_LIMIT:
                if isinstance(app, Application) and (endpoint := app.direct(scope)):
                    status = await app.answer(endpoint, scope, receive, send) or status
                else:
                    await app(scope, receive, sending)
            else:
                await problem_response(_too_large())(scope, receive, sending)
        finally:
            count, seconds = self._meter(service, scope["method"], status)
            count.inc()
            seconds.observe(perf_counter() - started)
            if span is not None:
                span.end(status, app.template(scope) if isinstance(app, Application) else None)

    def _begin_span(self, service: str, scope: Scope) -> tracing.ServedRequest | None:
        """Begin the span of a request to a service; those who operate are no story."""
        if service not in self._services:
            return None
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        return tracing.begin_request(service, method, scope)

    def _meter(self, service: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """Return what measures such requests; looking a metric up by its labels takes longer."""
        if method not in METHODS:
            method = "other"
        meter = self._meters.get((service, method, status))
        if meter is None:
            meter = (
                REQUESTS.labels(service, method, str(status)),
                REQUEST_SECONDS.labels(service, method),
            )
            self._meters[service, method, status] = meter
        return meter


def _content_length(scope: Scope) -> int | None:
    """Return how long the request says its body is, which the server then holds it to."""
    length: bytes = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else None


def limited(receive: Receive) -> Receive:
    """Return `receive` that raises TooLarge once a body without a length passes the limit."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > BODY_LIMIT:
            raise _too_large()
        return message

    return counted


def _too_large() -> TooLarge:
    return TooLarge(f"the body is over {BODY_LIMIT // 1024 // 1024} MiB")


def engine_clock(request: Request) -> Clock:
    """Dependency: the service's clock."""
    engine: Engine = request.app.state.engine
    return engine.clock


__all__ = [
    "Command",
    "Cursor",
    "Front",
    "Limit",
    "Principal",
    "Problem",
    "Verifier",
    "command",
    "create_app",
    "etag",
    "may",
    "operations",
    "page",
    "problem_of",
    "problem_response",
]
