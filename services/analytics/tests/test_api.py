"""What analytics answers to questions that are wrong, and to measurements."""

from typing import Any

import pytest

from rapport.common.events.analytics import MeasurementRecorded
from rapport.common.testing import Harness

from . import happenings as told
from .happenings import figures

KPIS = "/analytics/v1/kpis"
MEASUREMENTS = "/analytics/v1/measurements"


def pointers(problem: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"by": "planet"}, "/query/by"),
        ({"interval": "decade"}, "/query/interval"),
        ({"time_zone": "Mars/Olympus"}, "/query/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "/query/time_zone"),
        ({"from": "yesterday"}, "/query/from"),
        ({"to": "2026-13-01"}, "/query/to"),
        ({"from": "0001-01-01", "time_zone": "Asia/Tehran"}, "/query/from"),
        ({"to": "9999-12-31T23:59:59Z"}, "/query/to"),
        ({"from": "2026-03-02", "to": "2026-03-02"}, "/query/from"),
        ({"from": "2026-03-03", "to": "2026-03-02"}, "/query/from"),
        ({"cursor": "the next one"}, "/query/cursor"),
        ({"limit": "0"}, "/query/limit"),
        ({"limit": "201"}, "/query/limit"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    analytics: Harness, query: dict[str, str], pointer: str
) -> None:
    response = await analytics.call("GET", KPIS, params=query)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert pointers(response.json()) == [pointer]


@pytest.mark.parametrize("path", ["signals?state=loud", "signals?limit=0", "digests?limit=1000"])
async def test_lists_refuse_what_they_do_not_know(analytics: Harness, path: str) -> None:
    response = await analytics.call("GET", f"/analytics/v1/{path}")

    assert response.status_code == 422
    assert len(response.json()["errors"]) == 1


@pytest.mark.parametrize("path", ["signals", "digests"])
async def test_a_cursor_of_another_list_is_refused(analytics: Harness, path: str) -> None:
    response = await analytics.call("GET", f"/analytics/v1/{path}", params={"cursor": "nonsense"})

    assert response.status_code == 422


@pytest.mark.parametrize("path", ["kpis", "signals", "digests"])
async def test_figures_are_for_those_inside(analytics: Harness, path: str) -> None:
    async def status(*roles: str) -> int:
        response = await analytics.call("GET", f"/analytics/v1/{path}", roles=roles)
        return response.status_code

    assert await status("viewer") == 200
    assert await status("publisher") == 403
    assert (await analytics.http.get(f"/analytics/v1/{path}")).status_code == 401


async def test_figures_come_in_pages_of_periods(analytics: Harness) -> None:
    query = {"from": "2026-03-01", "to": "2026-03-08", "interval": "day", "limit": "3"}
    starts = []
    while True:
        answer = (await analytics.call("GET", KPIS, params=query)).json()
        starts += [item["from"] for item in answer["items"]]
        if answer["next"] is None:
            break
        assert len(answer["items"]) == 3
        query["cursor"] = answer["next"]

    assert starts == [f"2026-03-0{day}T00:00:00Z" for day in range(1, 8)]


async def test_a_time_without_a_zone_is_local(analytics: Harness) -> None:
    query = {"from": "2026-03-01T20:00", "to": "2026-03-02", "time_zone": "Asia/Tehran"}
    [item] = (await analytics.call("GET", KPIS, params=query)).json()["items"]

    assert (item["from"], item["to"]) == ("2026-03-01T16:30:00Z", "2026-03-01T20:30:00Z")


async def test_figures_of_the_last_seven_days_are_answered_unasked(analytics: Harness) -> None:
    await analytics.given(told.heard())
    await analytics.advance(minutes=1)

    [item] = (await analytics.call("GET", KPIS)).json()["items"]

    assert (item["from"], item["to"]) == ("2026-02-23T08:01:00Z", "2026-03-02T08:01:00Z")
    assert item["kpis"][0] == {
        "name": "feedback",
        "value": 1,
        "n": 1,
        "unit": "count",
        "target": None,
        "direction": None,
        "met": None,
    }


class TestMeasurements:
    async def test_what_was_measured_elsewhere_is_a_figure(self, analytics: Harness) -> None:
        for value, n in ((0.5, 10), (0.9, 30)):
            response = await analytics.call(
                "POST",
                MEASUREMENTS,
                json={"measure": "positive_coverage", "value": value, "n": n},
            )
            assert response.status_code == 201
        await analytics.advance(minutes=1)

        figure = (await figures(analytics))["positive_coverage"]

        assert (figure["value"], figure["n"], figure["met"]) == (0.8, 40, True)

    async def test_it_is_told_to_all(self, analytics: Harness) -> None:
        body = {"measure": "communication_cost", "value": 0.02, "at": "2026-03-01T00:00:00+03:30"}
        response = await analytics.call("POST", MEASUREMENTS, json=body)

        recorded = analytics.published(MeasurementRecorded).data
        assert recorded.measurement_id == response.json()["id"]
        assert (recorded.value, recorded.n, recorded.source) == (0.02, 1, "manual")
        assert response.json()["at"] == "2026-02-28T20:30:00Z"

    async def test_the_same_key_records_once(self, analytics: Harness) -> None:
        body = {"measure": "awareness", "value": 0.4}
        answers = [
            await analytics.call(
                "POST", MEASUREMENTS, json=body, headers={"Idempotency-Key": "march"}
            )
            for _ in range(2)
        ]

        assert answers[0].json() == answers[1].json()
        assert len(analytics.all(MeasurementRecorded)) == 1

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"measure": "Mood!"}, "/measure"),
            ({"value": "much"}, "/value"),
            ({"value": 1e300}, "/value"),
            ({"n": 0}, "/n"),
            ({"at": "2026-03-02T08:00:01Z"}, "/at"),
            ({"at": "2026-03-02T08:00:00"}, "/at"),
            ({"at": "1066-10-14T00:00:00Z"}, "/at"),
            ({"mood": "good"}, "/mood"),
        ],
    )
    async def test_a_wrong_one_is_told_what_is_wrong(
        self, analytics: Harness, change: dict[str, Any], pointer: str
    ) -> None:
        body = {"measure": "awareness", "value": 0.4} | change
        response = await analytics.call("POST", MEASUREMENTS, json=body)

        assert response.status_code == 422
        assert pointers(response.json()) == [pointer]
        assert not analytics.all(MeasurementRecorded)

    async def test_not_everybody_may_record(self, analytics: Harness) -> None:
        body = {"measure": "awareness", "value": 0.4}
        response = await analytics.call("POST", MEASUREMENTS, json=body, roles=("viewer",))

        assert response.status_code == 403
