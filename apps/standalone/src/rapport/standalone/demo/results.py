"""What the day came to: every figure read back from the APIs or counted at the receivers."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rapport.standalone.demo.chronicle import CHANNELS, duration
from rapport.standalone.demo.counting import Finding, duplicates
from rapport.standalone.demo.narrator import Narrator
from rapport.standalone.demo.world import Json, World

SIDES: Final = {"at_least": "≥", "above": ">", "at_most": "≤"}


async def day_in_figures(
    world: World, narrator: Narrator, feedback: Sequence[str], past: Json, begun: datetime
) -> list[Finding]:
    """Show the day's figures and KPIs, and return what must hold between them."""
    states = Counter([await _state(world, id) for id in feedback])
    cases = [item async for item in world.list("/routing/v1/cases") if not item["historical"]]
    clocks = [item["clock"] for item in cases if item["clock"] is not None]
    sent = [item async for item in world.list("/notification/v1/notifications")]
    delivered = Counter(item["channel"] for item in sent if item["state"] == "delivered")
    arrived = world.outside.arrived
    received = Counter(item.channel for item in arrived)
    [period] = (await world.see("/analytics/v1/kpis", **{"from": begun.isoformat()}))["items"]
    kpis = {item["name"]: item for item in period["kpis"]}

    late = sum(clock["breached"] for clock in clocks)
    opened = sum(item["opened_at"] is not None for item in cases)
    again = duplicates(arrived)
    await narrator.table(
        "The day in figures",
        ("", "", "read from"),
        [
            ("messages accepted", str(states.total()), "intake"),
            ("messages of the past, counted only", str(past["accepted"]), "intake"),
            ("conversations", str(len(cases)), "routing"),
            ("  that needed somebody", str(opened), "routing"),
            ("  that were only noted", str(len(cases) - opened), "routing"),
            ("first answers in time", f"{len(clocks) - late} of {len(clocks)}", "routing"),
            ("first answers too late", str(late), "routing"),
            ("cases of a crisis", str(_linked(cases)), "routing"),
            *(
                (f"delivered by {name}", f"{delivered[channel]}", "notification, receiver")
                for channel, name in CHANNELS.items()
            ),
            ("answers given elsewhere, on record", str(delivered["elsewhere"]), "notification"),
            ("arrived twice", str(again), "receivers"),
        ],
    )
    await narrator.table(
        "KPIs of the day",
        ("", "value", "target", "", "n"),
        [_row(item) for item in period["kpis"] if item["n"]],
    )
    failures = await _dead_letters(world)
    return [
        Finding(not states["pending"] and not states["failed"], "every message has its case"),
        Finding(
            all(item["owner"] for item in cases if item["opened_at"]),
            "every case in work has one owner",
        ),
        Finding(
            all(delivered[channel] == received[channel] for channel in CHANNELS) and not again,
            f"the record and the receivers agree on {received.total()} messages, none twice",
        ),
        Finding(not world.outside.webhooks.forged, "every webhook's signature verified"),
        Finding(
            kpis["cases_opened"]["value"] == opened and kpis["feedback"]["value"] == states.total(),
            "analytics counts as many messages and cases as intake and routing",
        ),
        Finding(
            not failures,
            "every event was handled" if not failures else f"{failures} events were given up",
        ),
    ]


async def _state(world: World, id: str) -> str:
    return str((await world.see(f"/intake/v1/feedback/{id}"))["state"])


def _linked(cases: Sequence[Json]) -> int:
    return sum(item["crisis_id"] is not None for item in cases)


async def _dead_letters(world: World) -> int:
    """Return how many events the services gave up, from their metrics."""
    metrics = await world.http.get("/metrics")
    counts = (
        line.rpartition(" ")[2]
        for line in metrics.text.splitlines()
        if line.startswith("rapport_events_dead_lettered_total{")
    )
    return round(sum(map(float, counts)))


def _row(figure: Json) -> tuple[str, str, str, str, str]:
    target = ""
    if figure["target"] is not None:
        target = f"{SIDES[figure['direction']]} {_told(figure['target'], figure['unit'])}"
    mark = {True: "✓", False: "✗", None: ""}[figure["met"]]
    name = figure["name"].replace("_", " ")
    return name, _told(figure["value"], figure["unit"]), target, mark, str(figure["n"])


def _told(value: float | None, unit: str) -> str:
    match value, unit:
        case None, _:
            return "-"
        case _, "share":
            return f"{value:.0%}"
        case _, "seconds":
            return duration(value)
        case _, "count":
            return f"{value:.0f}"
    return f"{value:.3g} {unit}"
