"""Requests that nobody should make are answered as plainly as others, and cost no more."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, ConfigDict
from structlog.testing import capture_logs

from rapport.common.http import PROBLEM, Router
from rapport.common.runtime import Service
from rapport.common.strict_json import MAX_PROBLEMS
from rapport.common.testing import Harness, harness

from .shop import SHOP, front_of, router


class Order(BaseModel):
    """What is ordered."""

    model_config = ConfigDict(extra="forbid")

    lines: list[int] = []


orders = Router(prefix="/shop/v1")


@orders.post("/orders")
async def order(wanted: Order) -> int:
    return len(wanted.lines)


@orders.get("/people/{person}")
async def fail(person: str) -> None:
    raise ZeroDivisionError(person)


both = Router()
both.include_router(router)
both.include_router(orders)


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with harness(Service(**{**vars(SHOP), "router": both})) as under_test:
        yield under_test


@pytest.fixture
async def front(shop: Harness) -> AsyncIterator[httpx2.AsyncClient]:
    async with front_of(shop) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/shop", 404),
        ("POST", "/livez", 405),
        ("GET", "/shop/v1/orders", 405),
        ("OPTIONS", "/shop/v1/orders", 405),
        ("BREW", "/shop/v1/orders", 405),
        ("BREW", "/%00", 404),
        ("GET", "/shop/../livez/../..", 404),
    ],
)
async def test_whatever_is_wrong_is_a_problem_document(
    front: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await front.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json()["status"] == status


async def test_made_up_methods_are_one_label(front: httpx2.AsyncClient) -> None:
    for number in range(3):
        await front.request(f"MADE-UP-{number}", "/shop/v1/orders")
    metrics = (await front.get("/metrics")).text
    assert "MADE-UP" not in metrics
    assert 'rapport_http_requests_total{method="other",service="shop",status="405"}' in metrics


@pytest.mark.parametrize(
    "body",
    [{f"field {number}": 1 for number in range(1_000)}, {"lines": ["x"] * 1_000}],
)
async def test_a_thousand_mistakes_are_not_told_one_by_one(
    front: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await front.post("/shop/v1/orders", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == MAX_PROBLEMS


async def test_a_pointer_does_not_repeat_a_name_of_any_length(front: httpx2.AsyncClient) -> None:
    answer = await front.post("/shop/v1/orders", json={"~/" + "x" * 100_000: 1})
    assert answer.json()["errors"][0]["pointer"].startswith("/~0~1xxx")
    assert len(answer.content) < 1_000


async def test_what_fails_unexpectedly_is_logged_without_what_was_asked_for(
    front: httpx2.AsyncClient,
) -> None:
    with capture_logs() as logs:
        answer = await front.get("/shop/v1/people/ana@example.org")
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    [entry] = logs
    assert entry["route"] == "/shop/v1/people/{person}"
    assert "ana@example.org" not in str({**entry, "exc_info": None})
    assert "ana@example.org" not in answer.text


async def test_the_same_key_for_another_deed_is_another_command(shop: Harness) -> None:
    again = {"Idempotency-Key": "k"}
    await shop.call("POST", "/shop/v1/tills/t1/sales", headers=again)
    other = await shop.call("POST", "/shop/v1/tills/t2/sales", headers=again)
    by_ben = await shop.call("POST", "/shop/v1/tills/t1/sales", headers=again, as_="ben")
    assert (other.json(), by_ben.json()) == ({"total": 5}, {"total": 10})
