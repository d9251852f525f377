"""The points at which chaos kills are there, and nothing in shipped code knows of them."""

import inspect
from pathlib import Path

import pytest

from chaos.points import POINTS
from rapport.common import serving
from rapport.common.bus.pipeline import Pipeline
from rapport.common.bus.port import Bus
from rapport.common.store.outbox import Relay

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", POINTS)
def test_the_function_of_each_point_is_there(name: str) -> None:
    _, function, found = POINTS[name].find()
    assert found.__name__ == function


@pytest.mark.parametrize("name", POINTS)
def test_a_point_strikes_each_time_that_it_is_passed_and_changes_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = POINTS[name]
    owner, function, found = point.find()
    monkeypatch.setattr(owner, function, found)  # put back afterwards
    point.wrap(lambda: None)
    wrapped = getattr(owner, function)
    assert wrapped is not found
    assert inspect.iscoroutinefunction(wrapped) == inspect.iscoroutinefunction(found)
    assert inspect.signature(wrapped) == inspect.signature(found)


async def test_death_comes_once_the_relay_has_published_what_a_batch_led_to() -> None:
    point = POINTS["after relay, before commit"]
    owner, _, _ = point.find()
    assert owner is Pipeline
    assert isinstance(Relay.behind, property)
    assert inspect.iscoroutinefunction(Relay.idle)


def test_the_victim_takes_the_place_of_the_bus_that_serving_opens() -> None:
    assert inspect.signature(vars(serving)["open_bus"]).return_annotation is Bus


def test_what_is_shipped_does_not_know_of_chaos() -> None:
    shipped = [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    shipped += ROOT.glob("apps/*/src/**/*.py")
    assert shipped
    assert [path for path in shipped if "chaos" in path.read_text("utf-8")] == []
