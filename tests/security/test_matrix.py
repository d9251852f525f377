"""What docs/security.md says about tests is so."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "security.md").read_text("utf-8")
ROWS: Final = [line for line in PAGE.splitlines() if re.match(r"\| (?!risk|attack)\w", line)]


def written() -> set[str]:
    """Return the names of all tests."""
    files = (file for place in ("libs", "services", "apps", "tests") for file in _tests(place))
    return {
        name
        for file in files
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.M)
    }


def _tests(place: str) -> list[Path]:
    return [*(ROOT / place).rglob("test_*.py"), *(ROOT / place).rglob("tests/contract/*.py")]


def test_every_test_that_is_named_exists() -> None:
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - written() == set()


def test_every_one_of_the_ten_risks_is_there() -> None:
    risks = [row.split()[1] for row in ROWS if "| API" in row]
    assert risks == [f"API{number}" for number in range(1, 11)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_risk_has_tests_that_show_what_stops_it(row: str) -> None:
    assert "`test_" in row.split(" | ")[2]
