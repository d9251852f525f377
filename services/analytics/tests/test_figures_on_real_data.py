"""On-time figures of a real help desk, against the verdict that its own log gives."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rapport.common.testing import Harness

from . import happenings as told
from .happenings import figures, items

DATA = Path(__file__).parents[4] / "shared" / "data" / "uci_incidents" / "incident_event_log.csv"

Rows = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def incidents() -> Rows:
    """The log's rows by incident."""
    if not DATA.exists():
        pytest.skip("shared data absent: uci_incidents")
    found: Rows = {}
    with DATA.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["number"], []).append(row)
    return found


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%d-%m-%Y %H:%M").replace(tzinfo=UTC)


def clock_events(analytics: Harness, number: str, rows: list[dict[str, str]]) -> list[Any]:
    """An incident's clock: breached when the log first says so, met when it was resolved."""
    started = moment(rows[0]["opened_at"])
    late = next((row for row in rows if row["made_sla"] == "FALSE"), None)
    due = moment(late["sys_updated_at"]) - started if late else timedelta(days=365)
    found: list[Any] = []
    if late:
        found.append(told.breached(number, started, within=due, channel="hotline"))
    if rows[-1]["resolved_at"] != "?":
        took = moment(rows[-1]["resolved_at"]) - started
        outcome = told.met(number, started, after=took, within=due, channel="hotline")
        found.append(outcome.model_copy(update={"breached": late is not None}))
    return [analytics.event(event) for event in found]


async def test_on_time_is_what_the_log_says(analytics: Harness, incidents: Rows) -> None:
    for number, rows in incidents.items():
        await analytics.given(*clock_events(analytics, number, rows))
    final = [rows[-1] for rows in incidents.values()]
    late = sum(row["made_sla"] == "FALSE" for row in final)
    on_time = sum(row["made_sla"] == "TRUE" and row["resolved_at"] != "?" for row in final)
    times = sorted(
        (moment(row["resolved_at"]) - moment(row["opened_at"])).total_seconds()
        for row in final
        if row["resolved_at"] != "?"
    )
    period = {"from_": "2016-01-01", "to": "2017-12-01"}

    found = await figures(analytics, **period)

    share = found["first_response_on_time"]
    assert (len(incidents), share["n"]) == (890, late + on_time)
    assert share["value"] == pytest.approx(on_time / (late + on_time), abs=1e-6)
    assert found["first_response_time"]["value"] == pytest.approx(sum(times) / len(times))
    assert found["first_response_median"]["value"] == pytest.approx(
        times[len(times) // 2], rel=0.05
    )
    monthly = await items(analytics, **period, interval="month")
    assert sum(month["kpis"]["first_response_on_time"]["n"] for month in monthly) == share["n"]
