"""Cases over HTTP: who may do what, what is refused and how, how lists are read."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from rapport.common.events.cases import (
    CaseAccepted,
    CaseHandoverAccepted,
    CaseHandoverDeclined,
    CaseOpened,
    CaseOwnerChanged,
    CaseReferralReturned,
    CaseReplyRequested,
)
from rapport.common.events.clocks import ClockStarted
from rapport.common.events.feedback import Contact
from rapport.common.testing import MORNING, Harness, harness
from rapport.routing.service import SERVICE

from .told import feedback, praise

CASES = "/routing/v1/cases"
OWNER = "jun"


@pytest.fixture
async def routing() -> AsyncIterator[Harness]:
    """Case c1 is a complaint about a kettle that jun of quality owns."""
    async with harness(SERVICE) as running:
        await running.given(feedback())
        yield running


class Desk:
    """Somebody's calls on case c1."""

    def __init__(self, routing: Harness, name: str, *roles: str) -> None:
        self._routing = routing
        self._name = name
        self._roles = roles

    async def tries(self, action: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Post to an action of the case; return the status and the answer."""
        response = await self._routing.call(
            "POST", f"{CASES}/c1/{action}", as_=self._name, roles=self._roles, json=body
        )
        return response.status_code, response.json()

    async def does(self, action: str, **body: Any) -> dict[str, Any]:
        """The same, and it is done."""
        status, answer = await self.tries(action, **body)
        assert status < 300, answer
        return answer


def agent(routing: Harness, name: str) -> Desk:
    return Desk(routing, name, "agent")


def lead(routing: Harness) -> Desk:
    return Desk(routing, "omid", "lead")


def refused(answer: tuple[int, dict[str, Any]], status: int, *pointers: str) -> None:
    """Assert that an answer is a problem document about these fields."""
    got, problem = answer
    assert got == problem["status"] == status, problem
    assert problem["detail"]
    assert [entry["pointer"] for entry in problem.get("errors", [])] == list(pointers)


# Who may do what


async def test_only_its_owner_accepts_a_case(routing: Harness) -> None:
    refused(await agent(routing, "kim").tries("acceptance"), 403)
    refused(await lead(routing).tries("acceptance"), 403)
    shown = await agent(routing, OWNER).does("acceptance")
    assert shown["state"] == "accepted"
    await agent(routing, OWNER).does("acceptance")
    assert routing.published(CaseAccepted).data.by == OWNER


async def test_an_agent_acts_on_what_they_own_or_handle_and_a_lead_on_all(
    routing: Harness,
) -> None:
    refused(await agent(routing, "tom").tries("notes", text="hm"), 403)
    await lead(routing).does("notes", text="hm")
    await agent(routing, OWNER).does("referral", to="contracts")
    await agent(routing, "tom").does("notes", text="The warranty covers it.")
    shown = await agent(routing, "tom").does("referral/return", outcome="covered")
    assert (shown["handler"], len(shown["notes"])) == (OWNER, 2)
    assert routing.published(CaseReferralReturned).data.outcome == "covered"
    refused(await agent(routing, "tom").tries("notes", text="hm"), 403)


async def test_a_viewer_sees_and_does_nothing_and_a_publisher_does_not_even_see(
    routing: Harness,
) -> None:
    seen = await routing.call("GET", f"{CASES}/c1", roles=["viewer"])
    assert seen.status_code == 200
    refused(await Desk(routing, OWNER, "viewer").tries("acceptance"), 403)
    assert (await routing.call("GET", CASES, roles=["publisher"])).status_code == 403
    assert (await routing.http.get(CASES)).status_code == 401


async def test_only_a_lead_assigns_and_only_to_somebody_known(routing: Harness) -> None:
    refused(await agent(routing, OWNER).tries("assignment", owner="kim"), 403)
    refused(await lead(routing).tries("assignment", owner="nobody"), 422, "/owner")
    refused(await lead(routing).tries("assignment", owner=OWNER), 409)
    shown = await lead(routing).does("assignment", owner="tom", reason="knows her")
    assert (shown["owner"], shown["team"], shown["state"]) == ("tom", "contracts", "open")
    changed = routing.published(CaseOwnerChanged).data
    assert (changed.owner, changed.previous, changed.reason) == ("tom", OWNER, "knows her")


async def test_an_assignment_opens_what_was_only_noted(routing: Harness) -> None:
    await routing.given(praise(feedback_id="f2", case_id="c2"))
    refused(await _on_c2(routing, "replies", {"text": "Thank you!"}), 409)
    status, shown = await _on_c2(routing, "assignment", {"owner": "ana"})
    assert (status, shown["state"], shown["team"]) == (200, "open", "support")
    assert routing.all(CaseOpened)[-1].data.rule == "by hand"
    assert routing.all(ClockStarted)[-1].data.owner == "ana"


async def _on_c2(routing: Harness, action: str, body: dict[str, Any]) -> tuple[int, Any]:
    response = await routing.call("POST", f"{CASES}/c2/{action}", json=body)
    return response.status_code, response.json()


async def test_a_handover_is_answered_by_the_person_it_is_offered_to(routing: Harness) -> None:
    refused(await agent(routing, OWNER).tries("handover", to="nobody"), 422, "/to")
    refused(await agent(routing, OWNER).tries("handover", to=OWNER), 422, "/to")
    refused(await agent(routing, "kim").tries("handover/acceptance"), 409)
    await agent(routing, OWNER).does("handover", to="kim", reason="my shift ends")
    refused(await agent(routing, OWNER).tries("handover", to="navid"), 409)
    refused(await lead(routing).tries("handover/acceptance"), 403)
    refused(await agent(routing, "navid").tries("handover/decline"), 403)
    await agent(routing, "kim").does("handover/decline", reason="I am ill")
    assert routing.published(CaseHandoverDeclined).data.owner == OWNER
    await agent(routing, OWNER).does("handover", to="kim")
    shown = await agent(routing, "kim").does("handover/acceptance")
    assert (shown["owner"], shown["state"], shown["handover"]) == ("kim", "accepted", None)
    assert routing.published(CaseHandoverAccepted).data.previous == OWNER


async def test_a_case_climbs_to_the_lead_the_manager_and_no_further(routing: Harness) -> None:
    await agent(routing, OWNER).does("escalation", reason="she calls every hour")
    shown = await agent(routing, OWNER).does("escalation")
    assert (shown["escalation"], shown["owner"]) == (2, OWNER)
    refused(await agent(routing, OWNER).tries("escalation"), 409)


# What is refused


async def test_a_reply_by_e_mail_needs_an_address(routing: Harness) -> None:
    await routing.given(feedback(feedback_id="f2", case_id="c2", contact=Contact()))
    refused(await _on_c2(routing, "replies", {"text": "Sorry.", "via": "email"}), 422, "/via")
    status, reply = await _on_c2(routing, "replies", {"text": "Sorry.", "via": "elsewhere"})
    assert (status, reply["state"]) == (202, "requested")
    assert routing.published(CaseReplyRequested).data.via == "elsewhere"


@pytest.mark.parametrize(
    ("action", "body", "pointers"),
    [
        ("replies", {}, ["/text"]),
        ("replies", {"text": "", "via": "pigeon"}, ["/text", "/via"]),
        ("replies", {"text": " \n\u200b"}, ["/text"]),
        ("replies", {"text": "a" * 20_001}, ["/text"]),
        ("replies", {"text": "Sorry.", "mood": "good"}, ["/mood"]),
        ("referral", {"to": "nobody"}, ["/to"]),
        ("referral", {"to": OWNER}, ["/to"]),
        ("referral", {"to": "kim", "return_by": "2026-03-02T07:00:00Z"}, ["/return_by"]),
        ("referral", {"to": "kim", "return_by": "2026-03-05T07:00:00"}, ["/return_by"]),
        ("resolution", {}, ["/resolution"]),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(
    routing: Harness, action: str, body: dict[str, Any], pointers: list[str]
) -> None:
    before = routing.types()
    refused(await lead(routing).tries(action, **body), 422, *pointers)
    assert routing.types() == before


@pytest.mark.parametrize(
    ("actions", "refused_then"),
    [
        ([], ["referral/return", "handover/acceptance", "reopening"]),
        (
            ["closure"],
            ["acceptance", "assignment", "referral", "handover", "escalation", "closure"],
        ),
        (["referral"], ["referral"]),
        (["resolution"], ["resolution", "referral"]),
    ],
)
async def test_what_its_state_forbids_is_a_conflict(
    routing: Harness, actions: list[str], refused_then: list[str]
) -> None:
    desk = Desk(routing, OWNER)
    bodies = {
        "assignment": {"owner": "kim"},
        "referral": {"to": "press"},
        "handover": {"to": "kim"},
        "resolution": {"resolution": "replaced"},
    }
    for action in actions:
        await desk.does(action, **bodies.get(action, {}))
    for action in refused_then:
        refused(await desk.tries(action, **bodies.get(action, {})), 409)


@pytest.mark.parametrize("path", ["c0", "c0/history"])
async def test_what_is_not_there_is_not_found(routing: Harness, path: str) -> None:
    assert (await routing.call("GET", f"{CASES}/{path}")).status_code == 404
    response = await routing.call("POST", f"{CASES}/c0/notes", json={"text": "hm"})
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 404


async def test_half_a_character_is_refused(routing: Harness) -> None:
    response = await routing.call(
        "POST",
        f"{CASES}/c1/notes",
        content=b'{"text": "\\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    refused((response.status_code, response.json()), 400, "/text")


async def test_deceiving_characters_are_taken_out(routing: Harness) -> None:
    shown = await lead(routing).does("notes", text="call \u202eher\u202c\x00 back")
    assert shown["notes"][0]["text"] == "call her back"


# Repeats and versions


async def test_a_repeat_with_the_same_key_does_nothing_twice(routing: Harness) -> None:
    replies = [
        await routing.call(
            "POST",
            f"{CASES}/c1/replies",
            json={"text": "Sorry."},
            headers={"Idempotency-Key": "k-1"},
        )
        for _ in range(2)
    ]
    assert replies[0].json() == replies[1].json()
    assert routing.published(CaseReplyRequested)


async def test_a_stale_version_is_refused(routing: Harness) -> None:
    seen = await routing.call("GET", f"{CASES}/c1")
    for expected in (200, 412):
        response = await routing.call(
            "POST",
            f"{CASES}/c1/notes",
            json={"text": "hm"},
            headers={"If-Match": seen.headers["etag"]},
        )
        assert response.status_code == expected


# Lists


async def test_cases_are_listed_the_newest_first_page_by_page(routing: Harness) -> None:
    for number in range(2, 6):
        await routing.advance(minutes=1)
        await routing.given(feedback(feedback_id=f"f{number}", case_id=f"c{number}"))
    listed: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = (await routing.call("GET", CASES, params=query)).json()
        listed += [item["id"] for item in answer["items"]]
        if answer["next"] is None:
            break
        query["cursor"] = answer["next"]
    assert listed == ["c5", "c4", "c3", "c2", "c1"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"state": "closed"}, ["c2"]),
        ({"state": ["open", "noted"]}, ["c1", "c3"]),
        ({"owner": OWNER}, ["c1"]),
        ({"handler": "press"}, ["c1"]),
        ({"product": "pan"}, ["c2"]),
        ({"complaint_type": "product_quality"}, ["c1", "c2"]),
        ({"severity": "low"}, ["c3"]),
        ({"crisis_id": "k1"}, []),
        ({"product": "kettle", "state": "noted"}, ["c3"]),
    ],
)
async def test_cases_are_found_by_what_they_are(
    routing: Harness, query: dict[str, Any], found: list[str]
) -> None:
    await routing.given(feedback(feedback_id="f2", case_id="c2", product="pan"))
    await routing.given(praise(feedback_id="f3", case_id="c3"))
    await routing.call("POST", f"{CASES}/c2/closure")
    await lead(routing).does("referral", to="press")
    answer = (await routing.call("GET", CASES, params=query)).json()
    assert sorted(item["id"] for item in answer["items"]) == found


async def test_a_list_refuses_what_it_does_not_know(routing: Harness) -> None:
    for query in ({"state": "lost"}, {"limit": 0}, {"cursor": "x"}, {"severity": "huge"}):
        response = await routing.call("GET", CASES, params=query)
        assert response.status_code == 422
        assert response.json()["errors"]


async def test_the_history_is_read_page_by_page(routing: Harness) -> None:
    await agent(routing, OWNER).does("acceptance")
    path = f"{CASES}/c1/history"
    first = (await routing.call("GET", path, params={"limit": 3})).json()
    rest = (await routing.call("GET", path, params={"cursor": first["next"]})).json()
    types = [item["type"].split(".")[-2] for item in first["items"] + rest["items"]]
    assert types == ["classified", "opened", "started", "accepted"]
    assert rest["items"][0]["data"] == {"case_id": "c1", "by": OWNER}


async def test_a_case_is_shown_with_what_those_who_work_on_it_need(routing: Harness) -> None:
    shown = (await routing.call("GET", f"{CASES}/c1")).json()
    assert shown["contact"]["email"] == "rita@example.com"
    assert shown["messages"][0]["text"] == shown["excerpt"]
    assert shown["clock"]["state"] == "running"
    assert shown["clock"]["due_at"] == (MORNING + timedelta(hours=24)).isoformat().replace(
        "+00:00", "Z"
    )
    assert not {"version", "seen", "sequences", "correlation"} & shown.keys()


async def test_the_openapi_document_tells_every_answer(routing: Harness) -> None:
    document = (await routing.call("GET", "/routing/openapi.json")).json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            success = next(code for code in operation["responses"] if code.startswith("2"))
            schema = operation["responses"][success]["content"]["application/json"]["schema"]
            assert "$ref" in schema, path
