"""The public complaints of a financial regulator come in through the mapping that we ship."""

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from rapport.common.errors import Invalid
from rapport.intake.domain import Submission, apply_all, parse_mapping, read_submission

COMPLAINTS = Path(__file__).parents[4] / "shared" / "data" / "cfpb" / "complaints.csv"
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    if not COMPLAINTS.exists():
        pytest.skip("shared data absent")
    with COMPLAINTS.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def results(rows: list[dict[str, str]]) -> list[Submission | Invalid]:
    return list(read_all(rows))


def read_all(rows: list[dict[str, str]]) -> Iterator[Submission | Invalid]:
    text = files("rapport.intake").joinpath("mappings", "cfpb.yaml").read_text("utf-8")
    cfpb = parse_mapping(text, "cfpb.yaml")
    for row in rows:
        for _, document in apply_all(cfpb, row):
            assert isinstance(document, dict)
            try:
                yield read_submission(document, NOW)
            except Invalid as refusal:
                yield refusal


def test_every_complaint_comes_in_but_the_one_that_is_too_long(
    rows: list[dict[str, str]], results: list[Submission | Invalid]
) -> None:
    refusals = [
        (len(row["Consumer complaint narrative"]), [*result.problems])
        for row, result in zip(rows, results, strict=True)
        if isinstance(result, Invalid)
    ]
    assert len(results) == 6_623
    assert len(refusals) == 1
    ((length, (problem,)),) = refusals
    assert length > 20_000
    assert (problem.pointer, problem.reason) == ("/text", "is longer than 20,000 characters")


def test_the_fields_are_filled(results: list[Submission | Invalid]) -> None:
    submissions = [result for result in results if isinstance(result, Submission)]
    filled = Counter(
        name for item in submissions for name in item.model_fields_set if getattr(item, name)
    )
    assert filled["text"] == filled["brand"] == filled["product"] == filled["occurred_at"] == 6_622
    assert filled["region"] > 6_300
    assert len({item.source_ref for item in submissions}) == 6_622
    channels = Counter(item.channel.value for item in submissions)
    assert channels.keys() == {"web", "partner", "hotline", "other", "email"}
    years = {item.occurred_at.year for item in submissions if item.occurred_at}
    assert years <= set(range(2011, 2021))


def test_a_narrative_is_the_text_where_there_is_one(
    rows: list[dict[str, str]], results: list[Submission | Invalid]
) -> None:
    told = 0
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Submission) and row["Consumer complaint narrative"].strip():
            told += 1
            assert result.text != f"{row['Issue']}: {row['Sub-issue']}"
    assert told == 1_531
