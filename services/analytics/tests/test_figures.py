"""Figures: what a day adds up to, whatever comes twice, late or out of order."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rapport.analytics.domain.facts import seconds_of, step_of
from rapport.analytics.domain.kpis import Kpi, KpiPolicy, Target, Totals
from rapport.analytics.service import SERVICE
from rapport.common.errors import Invalid
from rapport.common.events import Event
from rapport.common.events.cases import CaseEvent, FeedbackClassified
from rapport.common.events.crises import Coverage, CrisisDeclared, CrisisStoodDown, Criteria
from rapport.common.policy import load_policy
from rapport.common.testing import MORNING, Harness, harness

from . import happenings as told
from .happenings import HOUR, figures, items

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
THE_DAY = {"from_": "2026-03-02", "to": "2026-03-03"}


def a_day(analytics: Harness) -> list[Event[Any]]:
    """Monday: six messages, three complaints in work, two of them resolved, three clocks."""
    at = MORNING

    def on(data: Any, hours: float) -> Event[Any]:
        return analytics.event(data, time=at + hours * HOUR)

    return [
        on(told.heard("a", rating=0.0), 0),
        on(told.heard("b", channel="chat", product="toaster", public=True, reach=900), 0),
        on(told.heard("c", kind="mention", product=None, region="south"), 1),
        on(told.praise(case_id="d", rating=1.0), 1),
        on(told.praise(case_id="e", rating=0.75, product=None), 2),
        on(told.praise(case_id="f", kind="question", sentiment="neutral"), 3),
        on(told.opened("a"), 0),
        on(told.opened("b", product="toaster"), 0),
        on(told.opened("c", kind="mention"), 1),
        on(told.referred("a", at + 24 * HOUR), 2),
        on(told.referred("a", at + 24 * HOUR), 6),
        on(told.escalated("b"), 4),
        on(told.escalated("b", level=2), 8),
        on(told.resolved("a", at, first_contact=True), 3),
        on(told.resolved("c", at + HOUR, kind="mention"), 5),
        on(told.closed("a", at), 7),
        on(told.reopened("a"), 8),
        on(told.met("a", at, after=HOUR), 1),
        on(told.met("c", at + HOUR, after=3 * HOUR), 4),
        on(told.breached("b", at, channel="chat"), 4),
        on(told.met("b", at, after=6 * HOUR, channel="chat"), 6),
        on(told.delivered(at + HOUR), 1),
        on(told.delivered(at + 2 * HOUR, channel="webhook", purpose="alert"), 2),
        on(told.delivered(at + 3 * HOUR), 3),
        on(told.failed(), 4),
        on(told.suppressed(), 5),
    ]


async def test_a_day_adds_up(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    found = await figures(analytics, **THE_DAY)

    def value_and_n(name: str) -> Any:
        return found[name]["value"], found[name]["n"]

    assert value_and_n("feedback") == (6, 6)
    assert value_and_n("negative_share") == (0.5, 6)
    assert value_and_n("public_reach") == (900, 1)
    assert value_and_n("satisfaction") == (pytest.approx(2 / 3, abs=1e-6), 3)
    assert value_and_n("rating") == (pytest.approx((1 + 5 + 4) / 3, abs=1e-6), 3)
    assert value_and_n("first_response_on_time") == (pytest.approx(2 / 3, abs=1e-6), 3)
    assert value_and_n("first_response_time") == ((1 + 3 + 6) / 3 * 3600, 3)
    assert value_and_n("cases_opened")[0] == 3
    assert value_and_n("cases_closed")[0] == 1
    assert value_and_n("complaints_resolved") == (0.5, 2)
    assert value_and_n("first_contact_resolution") == (0.5, 2)
    assert value_and_n("resolution_time") == ((3 + 4) / 2 * 3600, 2)
    assert value_and_n("escalation_rate") == (pytest.approx(1 / 3, abs=1e-6), 3)
    assert value_and_n("reopening_rate") == (1, 1)
    assert value_and_n("referrals") == (2, 3)
    assert value_and_n("messages_delivered") == (0.75, 4)
    assert value_and_n("messages_suppressed")[0] == 1


async def test_a_figure_is_answered_with_its_target(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    found = await figures(analytics, **THE_DAY)

    assert found["first_response_on_time"] == {
        "name": "first_response_on_time",
        "value": pytest.approx(2 / 3, abs=1e-6),
        "n": 3,
        "unit": "share",
        "target": 0.98,
        "direction": "at_least",
        "met": False,
    }
    assert (found["referrals"]["target"], found["referrals"]["met"]) == (None, None)


async def test_percentiles_are_within_a_twentieth(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    found = await figures(analytics, **THE_DAY)

    assert found["first_response_median"]["value"] == pytest.approx(3 * 3600, rel=0.05)
    assert found["first_response_90"]["value"] == pytest.approx(6 * 3600, rel=0.05)
    assert found["first_response_90"]["n"] == 3


async def test_without_cases_there_is_no_value(analytics: Harness) -> None:
    found = await figures(analytics)

    for figure in found.values():
        empty = 0 if figure["unit"] == "count" else None
        assert (figure["value"], figure["n"], figure["met"]) == (empty, 0, None), figure


@given(data=st.data())
@settings(max_examples=15, deadline=None)
async def test_neither_order_nor_repeats_change_a_figure(data: st.DataObject) -> None:
    async with harness(SERVICE) as analytics:
        events = a_day(analytics)
        await analytics.given(*events)
        expected = await items(analytics, **THE_DAY, by="channel")
    again = data.draw(st.lists(st.sampled_from(events), max_size=10))
    mixed = sorted(data.draw(st.permutations([*events, *again])), key=in_order_within_a_case)
    size = data.draw(st.integers(3, len(mixed)))

    async with harness(SERVICE) as analytics:
        for start in range(0, len(mixed), size):
            await analytics.given(*mixed[start : start + size])

        assert await items(analytics, **THE_DAY, by="channel") == expected


def in_order_within_a_case(event: Event[Any]) -> datetime:
    """A case's events stay in order, as its partition promises; all others come as they come."""
    told = event.data
    of_a_case = isinstance(told, CaseEvent) and not isinstance(told, FeedbackClassified)
    return event.time if of_a_case else MIDNIGHT


async def test_a_clock_that_was_met_late_is_late_once(analytics: Harness) -> None:
    noticed = told.met("a", MORNING, after=5 * HOUR)
    await analytics.given(noticed, told.breached("a", MORNING), noticed)

    found = await figures(analytics, **THE_DAY)

    assert (found["first_response_on_time"]["value"], found["first_response_on_time"]["n"]) == (
        0,
        1,
    )
    assert found["first_response_time"]["value"] == 5 * 3600


async def test_figures_by_interval_leave_nothing_out(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    by_hour = await items(analytics, **THE_DAY, interval="hour")

    assert len(by_hour) == 24
    heard = [item["kpis"]["feedback"]["value"] for item in by_hour]
    assert (sum(heard), heard[8:12]) == (6, [2, 2, 1, 1])
    assert by_hour[9]["from"] == "2026-03-02T09:00:00Z"
    assert by_hour[9]["to"] == "2026-03-02T10:00:00Z"


async def test_days_begin_where_people_are(analytics: Harness) -> None:
    await analytics.given(
        analytics.event(told.heard(), time=datetime(2026, 3, 1, 20, 29, tzinfo=UTC)),
        analytics.event(told.heard(), time=datetime(2026, 3, 1, 20, 31, tzinfo=UTC)),
    )

    days = await items(
        analytics, from_="2026-03-01", to="2026-03-03", interval="day", time_zone="Asia/Tehran"
    )

    assert [item["kpis"]["feedback"]["value"] for item in days] == [1, 1]
    assert days[1]["from"] == "2026-03-01T20:30:00Z"


async def test_an_interval_that_is_cut_says_so(analytics: Harness) -> None:
    weeks = await items(analytics, from_="2026-03-04", to="2026-03-11T12:00:00Z", interval="week")

    assert [(week["from"], week["to"]) for week in weeks] == [
        ("2026-03-04T00:00:00Z", "2026-03-09T00:00:00Z"),
        ("2026-03-09T00:00:00Z", "2026-03-11T12:00:00Z"),
    ]


async def test_figures_by_product_know_who_told_none(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    groups = await items(analytics, **THE_DAY, by="product")

    heard = {item["group"]: item["kpis"]["feedback"]["value"] for item in groups}
    assert heard == {"kettle": 3, "toaster": 1, None: 2}
    assert {item["by"] for item in groups} == {"product"}
    assert "first_response_on_time" not in groups[0]["kpis"], "clocks do not know the product"
    resolved = {item["group"]: item["kpis"]["complaints_resolved"] for item in groups}
    assert (resolved["kettle"]["value"], resolved["toaster"]["value"]) == (1, 0)
    assert resolved[None]["value"] is None


async def test_figures_by_channel_cover_feedback_clocks_and_messages(analytics: Harness) -> None:
    await analytics.given(*a_day(analytics))

    by_channel = {
        item["group"]: item["kpis"] for item in await items(analytics, **THE_DAY, by="channel")
    }

    assert by_channel["chat"]["first_response_on_time"]["value"] == 0
    assert by_channel["email"]["first_response_on_time"]["value"] == 1
    assert by_channel["webhook"]["messages_delivered"]["n"] == 1
    assert by_channel["chat"]["messages_delivered"]["value"] is None


async def test_only_the_largest_groups_are_told_apart(analytics: Harness) -> None:
    many = [told.heard(product=f"product {number}") for number in range(101)]
    await analytics.given(*many, told.heard(product="product 7"))

    groups = await items(analytics, from_="2026-03-02", to="2026-03-03", by="product")

    assert len(groups) == 100
    assert groups[0]["group"] == "product 7"


async def test_a_drill_has_figures_of_its_own(analytics: Harness) -> None:
    await analytics.given(told.heard(), told.heard(), exercise="fire drill")
    await analytics.given(told.heard())

    assert (await figures(analytics, **THE_DAY))["feedback"]["value"] == 1
    drill = await figures(analytics, **THE_DAY, exercise="fire drill")
    assert drill["feedback"]["value"] == 2


async def test_the_past_counts_when_it_was_said(analytics: Harness) -> None:
    long_ago = datetime(2020, 5, 17, 9, tzinfo=UTC)
    await analytics.given(told.heard("a", occurred_at=long_ago), historical=True)

    assert (await figures(analytics, **THE_DAY))["feedback"]["value"] == 0
    may = await figures(analytics, from_="2020-05-01", to="2020-06-01")
    assert may["feedback"]["value"] == 1


async def test_what_was_opened_earlier_counts_where_it_was_opened(analytics: Harness) -> None:
    await analytics.given(
        analytics.event(told.opened("a"), time=MORNING - 24 * HOUR),
        analytics.event(told.resolved("a", MORNING - 24 * HOUR), time=MORNING),
    )

    today = await figures(analytics, **THE_DAY)
    yesterday = await figures(analytics, from_="2026-03-01", to="2026-03-02")

    assert today["complaints_resolved"]["n"] == 0
    assert (yesterday["complaints_resolved"]["value"], yesterday["resolution_time"]["n"]) == (1, 0)
    assert today["resolution_time"]["value"] == 24 * 3600


async def test_crises_count_with_whom_their_statements_reached(analytics: Harness) -> None:
    await analytics.given(
        CrisisDeclared(
            crisis_id="c",
            title="Kettles burn",
            criteria=Criteria(product="kettle"),
            severity="high",
            by="lea",
            declared_at=MORNING,
        ),
        CrisisStoodDown(
            crisis_id="c",
            by="lea",
            coverage=Coverage(linked=10, opted_out=1, unreachable=1, delivered=8, missing=2),
        ),
    )

    found = await figures(analytics, **THE_DAY)

    assert found["crises_declared"]["value"] == 1
    assert (found["statement_coverage"]["value"], found["statement_coverage"]["n"]) == (0.75, 8)
    assert found["statement_coverage"]["met"] is False


class TestDefinitions:
    """What people may write in `kpis.yaml`."""

    @pytest.mark.parametrize(
        ("definition", "problem"),
        [
            ({"facts": "heard"}, "give one of share, mean, total and percentile"),
            ({"facts": "heard", "share": "negative", "total": "count"}, "give one of share"),
            ({"facts": "heard", "mean": "rating"}, "needs its unit"),
            ({"facts": "heard", "share": "mood"}, "heard have no sum of mood; choose from"),
            ({"facts": "heard", "share": "product"}, "heard have no sum of product"),
            ({"facts": "heard", "share": "negative", "n": "met"}, "heard have no sum of met"),
            ({"facts": "heard", "total": "count", "where": {"x": "y"}}, "not told apart by x"),
            ({"facts": "heard", "percentile": 0.5, "unit": "s"}, "heard have no percentiles"),
            ({"facts": "clocks", "percentile": 1.5, "unit": "s"}, "less than 1"),
            ({"facts": "clocks", "total": "count", "counted_by": "opened_at"}, "have no opened_at"),
            ({"facts": "votes", "total": "count"}, "'heard', 'cases'"),
            ({"facts": "heard", "total": "count", "target": {}}, "give one of at_least"),
        ],
    )
    def test_a_definition_that_cannot_be_counted_is_refused(
        self, definition: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(ValidationError, match=problem):
            Kpi.model_validate(definition)

    def test_a_mistake_stops_the_start_with_file_and_line(self, tmp_path: Path) -> None:
        file = tmp_path / "analytics" / "kpis.yaml"
        file.parent.mkdir()
        file.write_text(
            "review: {every: weekly}\nkpis:\n  mood:\n    facts: heard\n    share: mood\n"
        )

        with pytest.raises(Invalid, match=r"kpis\.yaml:3: kpis\.mood: .*no sum of mood"):
            load_policy("analytics", "kpis", KpiPolicy, tmp_path)

    async def test_a_figure_of_ones_own_is_counted(self, tmp_path: Path) -> None:
        file = tmp_path / "analytics" / "kpis.yaml"
        file.parent.mkdir()
        file.write_text(
            "review: {every: weekly}\n"
            "kpis:\n"
            "  angry_chats: {facts: heard, where: {channel: chat}, share: negative}\n"
        )
        async with harness(SERVICE, policy_dir=tmp_path) as analytics:
            await analytics.given(told.heard(channel="chat"), told.praise(channel="chat"))

            found = await figures(analytics, **THE_DAY)

        assert list(found) == ["angry_chats"]
        assert (found["angry_chats"]["value"], found["angry_chats"]["n"]) == (0.5, 2)

    @pytest.mark.parametrize(
        ("target", "value", "is_met"),
        [
            (Target(at_least=0.98), 0.98, True),
            (Target(at_least=0.98), 0.97, False),
            (Target(above=0.9), 0.9, False),
            (Target(above=0.9), 0.91, True),
            (Target(at_most=0.015), 0.015, True),
            (Target(at_most=0.015), 0.02, False),
        ],
    )
    def test_a_target_is_met_on_its_side(self, target: Target, value: float, is_met: bool) -> None:
        assert target.is_met(value) is is_met


@given(st.floats(1, 1e8))
def test_a_step_is_true_to_its_time(seconds: float) -> None:
    assert seconds_of(step_of(seconds)) == pytest.approx(seconds, rel=0.045)


@given(st.lists(st.floats(1, 1e6), min_size=1), st.floats(0.01, 0.99))
def test_a_percentile_is_true_to_the_times(times: list[float], share: float) -> None:
    totals = Totals()
    for seconds in times:
        totals.add(1, {}, step_of(seconds))

    found = totals.percentile(share)

    assert found is not None
    not_above = sum(seconds <= found * 1.05 for seconds in times)
    below = sum(seconds < found / 1.05 for seconds in times)
    assert not_above >= share * len(times) - 1e-9
    assert below <= share * len(times) + 1e-9
