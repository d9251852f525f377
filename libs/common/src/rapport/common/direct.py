"""Direct routes: the few busiest ones are answered ahead of the framework's layers.

The framework's routing, dependencies and body parsing take longer than what intake does with a
request, so a route that must be fast is a plain function from request to response. It is declared
on a router like all others, where the framework documents it, and it fails like all others: the
application's own handlers turn what it raises into a response.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from rapport.common.door import Door
from rapport.common.whole_answers import answered_at_once

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request as it is and returns the response.

    The endpoint reads and checks everything itself, the caller's token included: what the route's
    `dependencies` declare is only its documentation. A path without parameters is answered ahead
    of the framework.
    """

    def get_route_handler(self) -> Endpoint:
        """Return the endpoint as it is."""
        return self.endpoint


class Application(FastAPI):
    """FastAPI, with direct routes found by method and path before anything else happens.

    Its `door`, if it has one, is what the server asks even before that.
    """

    def __init__(self, door: Door | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.door = door
        self._direct: dict[tuple[str, str], Endpoint] = {}
        self._templates: dict[int, str] = {}

    def find_direct_routes(self) -> None:
        """Look for direct routes among all that has been included."""
        for context in iter_route_contexts(self.routes):
            route = context.original_route
            self._templates[id(route)] = context.path or ""
            if isinstance(route, DirectRoute) and context.path and not route.param_convertors:
                for method in route.methods or ():
                    self._direct[method, context.path] = route.endpoint

    def template(self, scope: Scope) -> str | None:
        """Return the path, with parameters by name, of the route that took a request."""
        if (scope["method"], scope["path"]) in self._direct:
            path: str = scope["path"]
            return path
        return self._templates.get(id(scope["route"])) if "route" in scope else None

    def direct(self, scope: Scope) -> Endpoint | None:
        """Return the endpoint of the direct route that an HTTP request asks for, if it is one."""
        return self._direct.get((scope["method"], scope["path"]))

    async def answer(
        self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send
    ) -> int | None:
        """Answer a request to a direct route; return the status, None where nobody is left."""
        scope["app"] = self
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except ClientDisconnect:
            return None
        except Exception as error:
            response = await self._handler_of(error)(request, error)
        if not answered_at_once(scope, response):
            await response(scope, receive, send)
        return response.status_code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        endpoint = self.direct(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            await self.answer(endpoint, scope, receive, send)

    def _handler_of(self, error: Exception) -> ErrorHandler:
        handlers: dict[Any, Any] = dict(self.exception_handlers)
        found: ErrorHandler = next(
            handlers[kind] for kind in type(error).__mro__ if kind in handlers
        )
        return found
