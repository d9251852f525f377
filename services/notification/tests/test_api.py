"""Notification over HTTP: versions, repeats, pages, and what is refused, as problem documents."""

import re
from typing import Any

import pytest

from rapport.common.testing import MORNING, Harness

from .cast import declared, linked, opened, released, stakeholder, subscribe
from .servers import SmtpSink

BASE = "/notification/v1"
SUBSCRIPTION = {"to": ["pia"], "events": ["case.opened"]}
CONTACT = {
    "stakeholder": "pia",
    "direction": "out",
    "channel": "phone",
    "purpose": "press enquiry",
    "occurred_at": MORNING.isoformat(),
    "outcome": "answered",
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("stakeholders/pia", {"name": "Pia"}),
        ("subscriptions/s", SUBSCRIPTION),
        ("preferences/p", {"opted_out": ["survey"]}),
    ],
)
async def test_an_update_is_refused_where_somebody_was_faster(
    notification: Harness, path: str, body: dict[str, Any]
) -> None:
    first = await notification.call("PUT", f"{BASE}/{path}", json=body)
    assert first.headers["ETag"] == '"1"'
    mine = {"If-Match": first.headers["ETag"]}
    assert (
        await notification.call("PUT", f"{BASE}/{path}", json=body, headers=mine)
    ).status_code == 200
    late = await notification.call("PUT", f"{BASE}/{path}", json=body, headers=mine)
    assert late.status_code == 412
    assert late.headers["content-type"] == "application/problem+json"
    shown = await notification.call("GET", f"{BASE}/{path}")
    assert shown.headers["ETag"] == '"2"'


async def test_a_repeat_with_the_same_key_is_one_contact(notification: Harness) -> None:
    headers = {"Idempotency-Key": "call-1"}
    answers = [
        await notification.call("POST", f"{BASE}/interactions", json=CONTACT, headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    found = await notification.call("GET", f"{BASE}/interactions?stakeholder=pia")
    assert len(found.json()["items"]) == 1


async def test_press_officers_put_their_contacts_on_record(notification: Harness) -> None:
    answer = await notification.call("POST", f"{BASE}/interactions", json=CONTACT, roles=["pr"])
    assert (answer.status_code, answer.json()["by"]) == (201, "ana")


async def test_lists_come_in_pages(notification: Harness) -> None:
    for number in range(5):
        await stakeholder(notification, f"s{number}")
        await subscribe(notification, f"s{number}", **SUBSCRIPTION)
    for kind in ("stakeholders", "subscriptions"):
        assert await everything(notification, f"{BASE}/{kind}?limit=2") == [
            f"s{number}" for number in range(5)
        ]


async def everything(notification: Harness, path: str) -> list[str]:
    found, cursor = [], None
    while True:
        page = (
            await notification.call("GET", path + (f"&cursor={cursor}" if cursor else ""))
        ).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return found


async def test_filters_hold_together(notification: Harness, sink: SmtpSink) -> None:
    """Each of a list's filters counts, whatever the others are."""
    await notification.given(declared(), linked("c1", "cora@home.example"), released())
    await stakeholder(notification, "pia", addresses=[{"channel": "stream", "to": "pia"}])
    await subscribe(notification, "s", to=["pia"], events=["crisis.stood_down", "case.opened"])
    await notification.given(opened("c9"))

    async def count(query: str) -> int:
        return len((await notification.call("GET", f"{BASE}/{query}")).json()["items"])

    assert await count("communications?purpose=statement&crisis_id=k1") == 1
    assert await count("communications?purpose=alert&crisis_id=k1") == 0
    assert await count("interactions?stakeholder=pia&case_id=c9") == 1
    assert await count("interactions?stakeholder=pia&case_id=c1") == 0
    assert await count("notifications?crisis_id=k1&state=delivered") == 1
    assert await count("notifications?recipient=pia&state=failed") == 0


async def test_a_group_has_a_name_and_members(notification: Harness) -> None:
    await stakeholder(notification, "pia", groups=["pr"])
    put = await notification.call(
        "PUT", f"{BASE}/stakeholder-groups/pr", json={"title": {"en": "Press office"}}
    )
    assert put.json() == {"id": "pr", "title": {"en": "Press office"}, "members": 1}
    assert (await notification.call("DELETE", f"{BASE}/stakeholder-groups/pr")).status_code == 204
    assert (await notification.call("GET", f"{BASE}/stakeholder-groups")).json()["items"] == []


async def test_something_is_said_to_groups(notification: Harness) -> None:
    board = [{"channel": "stream", "to": "board"}]
    await stakeholder(notification, "pia", groups=["pr"], language="fa", addresses=board)
    words = {"en": {"subject": "Hello\r\nBcc: all", "text": "Come.\u202e"}}
    made = await notification.call(
        "POST", f"{BASE}/communications", json={"groups": ["pr"], "wordings": words}
    )
    assert made.status_code == 201
    path = f"{BASE}/communications/{made.json()['id']}"
    assert (await notification.call("GET", path)).json()["stage"] == "done"
    counted = await notification.call("GET", f"{path}/coverage")
    assert counted.json() == {"notifications": {"delivered": 1}, "crisis": None}
    sent = notification.bus.records
    assert not any(b"\\u202e" in (item.value or b"") for item in sent)


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("PUT", "stakeholders/x", "agent"),
        ("DELETE", "stakeholders/x", "viewer"),
        ("POST", "stakeholders/x/secrets", "agent"),
        ("GET", "stakeholders", "viewer"),
        ("GET", "preferences/x", "viewer"),
        ("PUT", "subscriptions/x", "agent"),
        ("POST", "communications", "agent"),
        ("POST", "interactions", "viewer"),
        ("GET", "interactions", "viewer"),
        ("GET", "notifications", "publisher"),
        ("GET", "stream", "publisher"),
    ],
)
async def test_who_may_not_is_told_so(
    notification: Harness, method: str, path: str, role: str
) -> None:
    answer = await notification.call(method, f"{BASE}/{path}", roles=[role], json={})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    nobody = await notification.http.request(method, f"{BASE}/{path}")
    assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "stakeholders/x"),
        ("DELETE", "stakeholders/x"),
        ("DELETE", "stakeholder-groups/x"),
        ("GET", "preferences/x"),
        ("GET", "subscriptions/x"),
        ("DELETE", "subscriptions/x"),
        ("GET", "communications/x"),
        ("GET", "communications/x/coverage"),
        ("POST", "notifications/x/acknowledgement"),
    ],
)
async def test_what_is_not_there_is_not_found(
    notification: Harness, method: str, path: str
) -> None:
    answer = await notification.call(method, f"{BASE}/{path}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not found")


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("PUT", "stakeholders/x", {"addresses": [{"channel": "pigeon", "to": "x"}]},
         "/addresses/0/channel"),
        ("PUT", "stakeholders/x", {"name": "x" * 201}, "/name"),
        ("PUT", "stakeholders/-x", {}, "/path/id"),
        ("PUT", "subscriptions/x", SUBSCRIPTION | {"at": "08:00+03:30"}, "/at"),
        ("PUT", "subscriptions/x", SUBSCRIPTION | {"events": ["case.eaten"]}, "/events/0"),
        ("PUT", "subscriptions/x", SUBSCRIPTION | {"when": {"kind": ["x" * 8_000]}}, "/when"),
        ("PUT", "preferences/x", {"opted_out": ["everything"]}, "/opted_out/0"),
        ("POST", "communications", {"groups": [], "wordings": {}}, "/groups"),
        ("POST", "communications",
         {"groups": ["pr"], "wordings": {"en": {"subject": "", "text": "x"}}},
         "/wordings/en/subject"),
        ("POST", "interactions", CONTACT | {"occurred_at": "2026-03-02T08:00:00"}, "/occurred_at"),
        ("GET", "notifications?state=lost", None, "/query/state"),
        ("GET", "stakeholders?limit=0", None, "/query/limit"),
        ("GET", "stakeholders?cursor=x", None, "/cursor"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_with_its_field(
    notification: Harness, method: str, path: str, body: Any, pointer: str
) -> None:
    answer = await notification.call(method, f"{BASE}/{path}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "eaten" not in answer.text


def test_a_time_of_day_is_documented_as_it_is_told(notification: Harness) -> None:
    schemas = notification.running.app.openapi()["components"]["schemas"]
    for view in ("SubscriptionBody", "SubscriptionView"):
        assert re.fullmatch(schemas[view]["properties"]["at"]["pattern"], "08:00:00")
        assert "format" not in schemas[view]["properties"]["at"]


async def test_a_moment_beyond_all_calendars_is_refused_with_its_field(
    notification: Harness,
) -> None:
    answer = await notification.call(
        "POST",
        "/notification/v1/interactions",
        json={
            "stakeholder": "pia",
            "direction": "in",
            "channel": "phone",
            "purpose": "call",
            "occurred_at": "9999-12-31T23:59:59-14:00",
            "outcome": "noted",
        },
    )
    assert answer.status_code == 422
    assert [problem["pointer"] for problem in answer.json()["errors"]] == ["/occurred_at"]
