"""Whatever is sent to any path, by anybody: no failure, no secret, nothing undocumented.

Requests are made by schemathesis from the OpenAPI document of each service, half of them as it
allows and half as it does not, and go to a whole installation over HTTP. So that they reach more
than the doorstep, ids are often those of something that is there, and personal fields often hold
what a person could have written. Who calls changes with each request.

RAPPORT_TEST_FUZZ is how many requests each service gets, RAPPORT_TEST_SEED what they are made from.
"""

import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import BaseSchema, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rapport.common.auth import ROLES
from rapport.common.http import PROBLEM, Problem
from rapport.intake.repository import load_mappings
from rapport.standalone.system import SERVICES

from .installation import Installation, installed, until

REQUESTS: Final = int(os.environ.get("RAPPORT_TEST_FUZZ", "200"))
SEED: Final = int(os.environ.get("RAPPORT_TEST_SEED", "1"))
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

WORD: Final = "Quittenbaum"
"""Part of everything personal that is sent: where it shows, something has leaked."""

PERSONAL: Final = {
    "name": f"Zita {WORD}",
    "email": f"{WORD.lower()}@example.org",
    "phone": "+49 30 7700661234",
    "text": f"My name is {WORD}, and the kettle broke after two days.",
    "subject": f"The kettle of {WORD}",
    "summary": f"{WORD} called.",
    "resolution": f"{WORD} got another one.",
    "remedy_sought": f"Send {WORD} another one",
}
LEAKS: Final = (WORD.lower(), "7700661234")
TRACES: Final = ("Traceback (most recent", 'File "', "site-packages")
SHARE: Final = 0.6
"""How often something that makes sense takes the place of what was made up."""

Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

CONTACT: Final = {name: PERSONAL[name] for name in ("name", "email", "phone")}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation in which something has happened."""
    with installed(tmp_path_factory.mktemp("fuzzed")) as up:
        furnish(up)
        yield up


def furnish(up: Installation) -> None:
    """Let there be something of everything that a path can name."""
    for number in range(3):
        complaint = {"kind": "complaint", "channel": "email", "source_ref": str(number)}
        said = {"text": PERSONAL["text"], "contact": CONTACT}
        up.call("POST", "/intake/v1/feedback", json=complaint | said)
    until(lambda: len(up.items("/routing/v1/cases")) == 3, "cases")
    crisis = {"title": "Kettles break", "criteria": {"product": "kettle"}}
    up.call("POST", "/routing/v1/crises", json=crisis)
    words = {"subject": "Kettles", "text": "We look into it."}
    reader = {"name": PERSONAL["name"], "groups": ["press"]}
    address = {"channel": "email", "to": PERSONAL["email"]}
    draft = {"purpose": "holding", "groups": ["press"], "source_language": "en"}
    for path, body in {
        "/notification/v1/stakeholders/zita": reader | {"addresses": [address]},
        "/notification/v1/stakeholder-groups/press": {"title": {"en": "Press"}},
        "/notification/v1/subscriptions/all": {"to": ["zita"], "events": ["case.opened"]},
        "/notification/v1/preferences/somebody": {"opted_out": ["survey"]},
        "/knowledge/v1/articles/kettles": {"title": {"en": "Kettles"}, "text": {"en": "They."}},
        "/knowledge/v1/key-messages/kettles": {"text": {"en": "They are safe."}},
        "/knowledge/v1/statements/kettles": draft | {"wordings": {"en": words}},
    }.items():
        up.call("PUT", path, json=body)
    said_to = {"groups": ["press"], "wordings": {"en": words}}
    up.call("POST", "/notification/v1/communications", json=said_to)
    until(lambda: up.items("/notification/v1/notifications"), "a notification")


class Caller:
    """Somebody with every role in turn, who makes sense of what was made up."""

    def __init__(self, up: Installation) -> None:
        self._up = up
        self._random = random.Random(SEED)
        single = [up.token(role) for role in ROLES]
        self._tokens = [token for one in single for token in (up.token(), one)]
        self._http = requests.Session()
        self._known: dict[str, list[str]] = {}
        self.made = 0

    def call(self, case: Case) -> schemathesis.Response:
        """Make the request of `case`, in the next role, and return the answer."""
        case.path_parameters = {
            name: self._id(case.operation.path, value)
            for name, value in case.path_parameters.items()
        }
        if self._often():
            case.headers.pop("if-match", None)
        case.body = self._likely(case.body)
        token = self._tokens[self.made % len(self._tokens)]
        self.made += 1
        answer = case.call(
            session=self._http, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        return answer

    def _often(self) -> bool:
        return self._random.random() < SHARE

    def _id(self, path: str, value: Any) -> Any:
        known = self._known_at(path.partition("/{")[0])
        return self._random.choice(known) if known and self._often() else value

    def _known_at(self, collection: str) -> list[str]:
        """Return the ids of what there was when the collection was first asked for."""
        if collection not in self._known:
            found = [] if "{" in collection else self._ask(collection)
            self._known[collection] = found
        return self._known[collection]

    def _ask(self, collection: str) -> list[str]:
        if collection.endswith("/hooks"):
            return sorted(load_mappings())
        if collection.endswith("/preferences"):
            return ["somebody"]
        if collection.endswith("/feedback"):
            return []
        return [item["id"] for item in self._up.items(collection)]

    def _likely(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._likely(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {name: self._likely_field(name, self._likely(item)) for name, item in value.items()}

    def _likely_field(self, name: Any, value: Any) -> Any:
        if not self._often():
            return value
        if name in PERSONAL and isinstance(value, str | None):
            return PERSONAL[name]
        if name == "occurred_at":
            return datetime.now(UTC).isoformat()
        if name in ("owner", "to") and isinstance(value, str):
            return self._random.choice(["ana", "lin", "ben"])
        if name == "case_id":
            return self._random.choice(self._known_at("/routing/v1/cases"))
        return value


def check(case: Case, answer: schemathesis.Response) -> None:
    """Fail for an answer that is none of those documented, or says too much."""
    if answer.status_code == 503:
        assert answer.headers.get("retry-after"), "503 does not say when to try again"
    else:
        assert answer.status_code < 500, "it has failed"
    case.validate_response(
        answer,
        checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
    )
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == [PROBLEM]
        assert Problem.model_validate_json(answer.content).status == answer.status_code
        assert not leaked(answer.text), "it says too much"


def leaked(text: str) -> list[str]:
    """Return what of nobody's business is in a text."""
    lower = text.lower()
    return [word for word in (*LEAKS, *map(str.lower, TRACES)) if word in lower]


def operations(schema: BaseSchema) -> list[Operation]:
    """Return what a document offers, but the live stream, whose answer has no end."""
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return [operation for operation in found if not operation.path.endswith("/stream")]


def made_up(
    operation: Operation, mode: GenerationMode, times: int
) -> Callable[[Callable[[Case], None]], None]:
    """Return what calls a function with so many requests, the same ones for the same seed."""

    def run(receive: Callable[[Case], None]) -> None:
        @seed(SEED)
        @settings(
            max_examples=times,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def each(case: Case) -> None:
            receive(case)

        each()

    return run


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_makes_a_service_fail_or_say_too_much(
    installation: Installation, service: str
) -> None:
    schema = schemathesis.openapi.from_url(f"{installation.url}/{service}/openapi.json")
    offered = operations(schema)
    caller = Caller(installation)

    wrong: dict[str, str] = {}

    def receive(case: Case) -> None:
        answer = caller.call(case)
        try:
            check(case, answer)
        except (AssertionError, FailureGroup) as error:
            how = f"{error}\n{case.as_curl_command()}\n{answer.text[:2000]}"
            wrong.setdefault(f"{case.operation.label} {answer.status_code}", how)

    while caller.made < REQUESTS:
        times = -(-REQUESTS // (len(offered) * len(MODES)))
        for operation in offered:
            for mode in MODES:
                made_up(operation, mode, times)(receive)

    assert not wrong, "\n\n".join(f"{what}: {how}" for what, how in wrong.items())
    assert leaked(installation.said) == []
