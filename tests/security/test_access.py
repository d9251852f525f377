"""Who may do what over HTTP: every route, every role, and every way to have no good token.

The table below is a second opinion: it says for each route what it is meant to need. A route that
it does not know fails here, and so does one that needs something else. `PERMISSIONS` says which
roles that is; what the routes really do is asked of the running services, request by request.
"""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final, NamedTuple

from fastapi import APIRouter
from fastapi.routing import iter_route_contexts

from rapport.common.auth import PERMISSIONS, ROLES, needs_of
from rapport.common.http import PROBLEM, create_app, operations
from rapport.standalone.operations.api import router as operating
from rapport.standalone.system import SERVICES

from .cast import KEY, STRANGER, bearer, signed
from .conftest import OPERATIONS, Door

ROUTES: Final = {
    "feedback.submit": """
        POST /intake/v1/feedback
        POST /intake/v1/feedback/batch
        POST /intake/v1/events
        POST /intake/v1/hooks/{mapping}
    """,
    "feedback.read": "GET /intake/v1/feedback/{name}",
    "case.read": """
        GET /routing/v1/cases
        GET /routing/v1/cases/{id}
        GET /routing/v1/cases/{id}/history
    """,
    "case.work": """
        POST /routing/v1/cases/{id}/acceptance
        POST /routing/v1/cases/{id}/replies
        POST /routing/v1/cases/{id}/referral
        POST /routing/v1/cases/{id}/referral/return
        POST /routing/v1/cases/{id}/handover
        POST /routing/v1/cases/{id}/handover/acceptance
        POST /routing/v1/cases/{id}/handover/decline
        POST /routing/v1/cases/{id}/escalation
        POST /routing/v1/cases/{id}/resolution
        POST /routing/v1/cases/{id}/closure
        POST /routing/v1/cases/{id}/reopening
        POST /routing/v1/cases/{id}/notes
    """,
    "case.assign": "POST /routing/v1/cases/{id}/assignment",
    "crisis.read": """
        GET /routing/v1/crises
        GET /routing/v1/crises/{id}
    """,
    "crisis.propose": "POST /routing/v1/crises",
    "crisis.lead": """
        POST /routing/v1/crises/{id}/declaration
        POST /routing/v1/crises/{id}/dismissal
        POST /routing/v1/crises/{id}/updates
        POST /routing/v1/crises/{id}/decisions
        POST /routing/v1/crises/{id}/cases
        POST /routing/v1/crises/{id}/stand-down
        POST /routing/v1/crises/{id}/review
    """,
    "stakeholder.read": """
        GET /notification/v1/stakeholders
        GET /notification/v1/stakeholders/{id}
        GET /notification/v1/stakeholder-groups
        GET /notification/v1/preferences/{recipient}
        GET /notification/v1/subscriptions
        GET /notification/v1/subscriptions/{id}
        GET /notification/v1/interactions
    """,
    "stakeholder.write": """
        PUT /notification/v1/stakeholders/{id}
        POST /notification/v1/stakeholders/{id}/secrets
        DELETE /notification/v1/stakeholders/{id}
        PUT /notification/v1/stakeholder-groups/{id}
        DELETE /notification/v1/stakeholder-groups/{id}
        PUT /notification/v1/preferences/{recipient}
        PUT /notification/v1/subscriptions/{id}
        DELETE /notification/v1/subscriptions/{id}
    """,
    "interaction.write": "POST /notification/v1/interactions",
    "communication.read": """
        GET /notification/v1/communications
        GET /notification/v1/communications/{id}
        GET /notification/v1/communications/{id}/coverage
        GET /notification/v1/allowances
        GET /notification/v1/notifications
    """,
    "communication.write": "POST /notification/v1/communications",
    "notification.acknowledge": "POST /notification/v1/notifications/{id}/acknowledgement",
    "stream.read": "GET /notification/v1/stream",
    "knowledge.read": """
        GET /knowledge/v1/articles
        GET /knowledge/v1/articles/{id}
        GET /knowledge/v1/key-messages
        GET /knowledge/v1/key-messages/{id}
        GET /knowledge/v1/statements
        GET /knowledge/v1/statements/{id}
        GET /knowledge/v1/search
        GET /knowledge/v1/suggestions
    """,
    "article.write": """
        POST /knowledge/v1/articles
        PUT /knowledge/v1/articles/{id}
        DELETE /knowledge/v1/articles/{id}
    """,
    "key_message.write": """
        POST /knowledge/v1/key-messages
        PUT /knowledge/v1/key-messages/{id}
        DELETE /knowledge/v1/key-messages/{id}
    """,
    "statement.write": """
        POST /knowledge/v1/statements
        PUT /knowledge/v1/statements/{id}
        POST /knowledge/v1/statements/{id}/submission
    """,
    "statement.approve": """
        POST /knowledge/v1/statements/{id}/approvals
        POST /knowledge/v1/statements/{id}/rejection
    """,
    "statement.release": "POST /knowledge/v1/statements/{id}/release",
    "figures.read": """
        GET /analytics/v1/kpis
        GET /analytics/v1/signals
        GET /analytics/v1/digests
    """,
    "measurement.write": "POST /analytics/v1/measurements",
    "dead_letter.redrive": "POST /operations/v1/dead-letters/redrive",
}
"""Action -> the routes that need it, and nothing else."""

NOT_A_ROUTE: Final = {"statement.break_glass": "a reason in the body of a release"}
"""Actions that are asked for on top of a route's own."""

OPEN: Final = {
    "/livez",
    "/metrics",
    "/readyz",
    *(f"/{name}/docs" for name in (*SERVICES, OPERATIONS)),
}
"""What anybody may see who can reach the port, besides the OpenAPI documents."""


class Place(NamedTuple):
    """A method and a path with its parameters by name."""

    method: str
    path: str

    @property
    def url(self) -> str:
        """A path that this is the route of."""
        return self.path.replace("{", "").replace("}", "")


def routers() -> Mapping[str, APIRouter]:
    """Return the routes of each service, and those for operators."""
    return {name: service.router for name, service in SERVICES.items()} | {OPERATIONS: operating}


def needed() -> Mapping[Place, list[str]]:
    """Return what each route says that it needs; nothing where it is open to anybody."""
    apps = {name: create_app(name, name, router) for name, router in routers().items()}

    async def ready() -> dict[str, str]:
        return {}

    return {
        Place(method, context.path or ""): [needs.action for needs in needs_of(dependant)]
        if (dependant := getattr(context.original_route, "dependant", None))
        else []
        for app in (*apps.values(), operations(ready))
        for context in iter_route_contexts(app.routes)
        for method in sorted((context.methods or set()) - {"HEAD"})
    }


def meant() -> Iterator[tuple[Place, str]]:
    """Yield each route of the table with the action that it needs."""
    for action, routes in ROUTES.items():
        for line in filter(None, map(str.strip, routes.splitlines())):
            yield Place(*line.split(" ")), action


def test_every_route_needs_what_it_is_meant_to_need() -> None:
    found = {place: actions for place, actions in needed().items() if actions}
    assert found == {place: [action] for place, action in meant()}


def test_only_what_anybody_may_see_is_open() -> None:
    documents = {f"/{name}/openapi.json" for name in routers()}
    assert {place.path for place, actions in needed().items() if not actions} == OPEN | documents


def test_every_action_is_needed_somewhere() -> None:
    assert PERMISSIONS.keys() == {*ROUTES, *NOT_A_ROUTE}


def unsigned() -> str:
    """Return a token of the algorithm `none`."""
    return f"{_headed('none')}."


def signed_with_what_everybody_knows() -> str:
    """Return a token of HS256, whose secret is our public key."""
    text = _headed("HS256")
    public = KEY.as_pem(private=False)
    return f"{text}.{_base64(hmac.digest(public, text.encode(), 'sha256'))}"


def _headed(alg: str) -> str:
    _, claims, _ = signed().split(".")
    head = json.dumps({"alg": alg, "typ": "JWT", "kid": KEY.kid})
    return f"{_base64(head.encode())}.{claims}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def other_claims() -> str:
    """Return a token whose claims were changed after it was signed."""
    head, _, signature = signed().split(".")
    return f"{head}.{signed(sub='admin').split('.')[1]}.{signature}"


BAD: Final[Mapping[str, str | None]] = {
    "none": None,
    "empty": "Bearer ",
    "another scheme": f"Basic {signed()}",
    "no token": "Bearer Quittenbaum",
    "expired": f"Bearer {signed(exp=int(time.time()) - 60)}",
    "never expires": f"Bearer {signed(without='exp')}",
    "not valid yet": f"Bearer {signed(nbf=int(time.time()) + 600)}",
    "another issuer": f"Bearer {signed(iss='https://login.example.org')}",
    "another audience": f"Bearer {signed(aud='billing')}",
    "nobody's": f"Bearer {signed(without='sub')}",
    "of no role": f"Bearer {signed(without='roles')}",
    "of an unknown role": f"Bearer {signed(roles=['root'])}",
    "alg none": f"Bearer {unsigned()}",
    "HS256 with the public key": f"Bearer {signed_with_what_everybody_knows()}",
    "a stranger's key by our key's id": f"Bearer {signed(STRANGER)}",
    "a key that it brings along": f"Bearer {signed(STRANGER, header={'jwk': STRANGER.as_dict()})}",
    "a key from elsewhere": f"Bearer {signed(STRANGER, header={'jku': 'https://example.org/'})}",
    "other claims": f"Bearer {other_claims()}",
}
"""Authorization headers that are worth nothing."""


def routes_of(door: Door) -> list[tuple[Place, str]]:
    """Return the routes of one service with the action that each needs."""
    return [(place, action) for place, action in meant() if place.path.startswith(f"/{door.name}/")]


async def unread() -> AsyncIterator[bytes]:
    """A body that nobody is to read."""
    raise AssertionError("a stranger's body was read")
    yield b""


async def test_nothing_is_done_or_even_read_for_whoever_has_no_good_token(
    door: Door,
) -> None:
    for place, _ in routes_of(door):
        for what, authorization in BAD.items():
            headers = {} if authorization is None else {"Authorization": authorization}
            body = None if place.method in ("GET", "DELETE") else unread()
            answer = await door.http.request(place.method, place.url, headers=headers, content=body)
            assert (answer.status_code, what) == (401, what), place
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == PROBLEM
            assert "Quittenbaum" not in answer.text


async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    door: Door,
) -> None:
    tokens = {role: signed(roles=[role]) for role in ROLES}
    for place, action in routes_of(door):
        for role, token in tokens.items():
            headers = bearer(token) | {"Last-Event-ID": "no place"}
            body = None if place.method in ("GET", "DELETE") else b"no JSON"
            answer = await door.http.request(place.method, place.url, headers=headers, content=body)
            assert (answer.status_code == 403) == (role not in PERMISSIONS[action]), (place, role)
            assert answer.status_code != 401, (place, role)
            assert answer.status_code < 500, (place, role, answer.text)
            if answer.status_code == 403:
                assert answer.json()["detail"].startswith(f"{action} needs one of the roles: ")
