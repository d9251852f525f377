"""Bringing a file in, through the real HTTP API of the real system."""

import csv
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rapport.common.errors import (
    FieldProblem,
    Invalid,
    Malformed,
    PermanentError,
    TemporaryError,
)
from rapport.standalone.readers import Record, read_file
from rapport.standalone.replay import Summary, _insist, choose_mapping, replay
from rapport.standalone.system import System, system

REAL = Path(__file__).parents[4] / "shared" / "data" / "cfpb" / "complaints.csv"

MAPPING = """\
always: {kind: complaint, channel: web, source: shop}
zone: Europe/Berlin
fields:
  source_ref: Number
  product: Thing
  text: What happened
  occurred_at: {from: When, date: "%d.%m.%Y"}
"""
NUMBERED = "  source_ref: Number\n"
TABLE = """\
Number,Thing,What happened,When
1,kettle,It leaks.,03.02.2025
2,kettle,"It leaks,
and how.",04.02.2025
3,kettle,,05.02.2025
4,kettle,Late again.,31.02.2025
5,لباسشویی,خیلی صدا می‌دهد.,06.02.2025
"""


@pytest.fixture
async def rapport(tmp_path: Path) -> AsyncIterator[System]:
    async with system(tmp_path / "data", port=0) as running:
        yield running


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = str(tmp_path / "table.csv")
    write(path, TABLE, MAPPING)
    return path


def write(path: str, table: str, mapping: str) -> None:
    """Write a table, and its mapping beside it."""
    Path(path).write_text(table, "utf-8")
    Path(path).with_name("shop.yaml").write_text(mapping, "utf-8")


async def bring(rapport: System, table: str, **options: Any) -> Summary:
    given: dict[str, Any] = {
        "url": rapport.url,
        "token": rapport.token("shop", "publisher"),
        "refusals": Path(table).with_name("refusals.csv"),
    }
    mapping = choose_mapping(str(Path(table).with_name("shop.yaml")))
    return await replay(read_file(table), mapping, **(given | options))


async def test_good_items_come_in_and_bad_ones_are_told_by_line_field_and_reason(
    rapport: System, table: str
) -> None:
    summary = await bring(rapport, table)

    assert (summary.accepted, summary.refused, summary.known) == (3, 2, 0)
    with Path(table).with_name("refusals.csv").open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [(row["line"], row["field"]) for row in told] == [("5", ""), ("6", "When")]
    assert "text" in told[0]["reason"]


@pytest.mark.parametrize("column", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
async def test_a_column_of_that_name_is_no_formula_to_whoever_opens_the_refusals(
    tmp_path: Path, column: str
) -> None:
    refusals = tmp_path / "refusals.csv"
    (tmp_path / "shop.yaml").write_text(MAPPING, "utf-8")
    broken = Malformed("the row cannot be read", [FieldProblem(f"/{column}", f"{column} is odd")])
    await replay(
        iter([Record(2, broken)]),
        choose_mapping(str(tmp_path / "shop.yaml")),
        url="http://127.0.0.1:9",
        token="none",
        refusals=refusals,
    )
    with refusals.open(encoding="utf-8", newline="") as file:
        [told] = csv.DictReader(file)
    assert told == {"line": "2", "field": f"'{column}", "reason": f"'{column} is odd"}


async def test_twice_doubles_nothing(rapport: System, table: str) -> None:
    await bring(rapport, table)
    summary = await bring(rapport, table)

    assert (summary.accepted, summary.refused, summary.known) == (0, 2, 3)


async def test_rows_without_a_number_are_known_by_what_they_say(
    rapport: System, table: str
) -> None:
    write(table, TABLE + "6,kettle,It leaks.,03.02.2025\n", MAPPING.replace(NUMBERED, ""))
    summary = await bring(rapport, table)
    assert (summary.accepted, summary.refused, summary.known) == (3, 2, 1)
    summary = await bring(rapport, table)
    assert (summary.accepted, summary.refused, summary.known) == (0, 2, 4)


async def test_what_is_past_stays_past_unless_it_is_moved(rapport: System, table: str) -> None:
    await bring(rapport, table)
    await bring(rapport, table, as_live=True)
    headers = {"Authorization": f"Bearer {rapport.token('lin', 'lead')}"}
    async with httpx2.AsyncClient(base_url=rapport.url, headers=headers) as http:
        while not await rapport.quiet():
            await http.get("/livez")
        cases = (await http.get("/routing/v1/cases")).json()["items"]

    assert len(cases) == 3
    assert all(case["owner"] and not case["historical"] for case in cases)


async def test_a_limit_is_for_records_read(rapport: System, table: str) -> None:
    assert (await bring(rapport, table, limit=1)).done == 1


async def test_a_token_that_is_not_good_ends_it_with_a_reason(rapport: System, table: str) -> None:
    with pytest.raises(PermanentError, match="401"):
        await bring(rapport, table, token="nobody's")


async def test_a_server_that_is_not_there_ends_it_with_a_reason(
    rapport: System, table: str, unused_tcp_port: int
) -> None:
    with pytest.raises(TemporaryError, match="cannot be reached"):
        await bring(rapport, table, url=f"http://127.0.0.1:{unused_tcp_port}")


async def test_what_a_gateway_says_while_intake_restarts_ends_nothing() -> None:
    answers = iter(
        [
            httpx2.Response(502, headers={"Retry-After": "0"}),
            httpx2.Response(503, headers={"Retry-After": "Mon, 30 Nov 2026 08:00:00 GMT"}),
            httpx2.Response(207, json={"items": []}),
        ]
    )
    transport = httpx2.MockTransport(lambda request: next(answers))
    async with httpx2.AsyncClient(transport=transport) as client:
        assert await _insist(client, "http://gateway.test/", b"[]") == {"items": []}


def test_a_mapping_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(Invalid, match=r"no mapping 'cfpd'; there are cfpb, "):
        choose_mapping("cfpd")


async def test_real_complaints_come_in(rapport: System, tmp_path: Path) -> None:
    if not REAL.exists():
        pytest.skip("shared data absent")
    refusals = tmp_path / "refusals.csv"
    summary = await replay(
        read_file(str(REAL)),
        choose_mapping("cfpb"),
        url=rapport.url,
        token=rapport.token("cfpb", "publisher"),
        refusals=refusals,
        as_live=True,
        limit=600,
    )
    assert (summary.accepted, summary.refused) == (599, 1)
