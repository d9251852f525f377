"""The page of promises names what is there: tests that exist, and every invariant."""

import re
from pathlib import Path
from typing import Final

from chaos.invariants import INVARIANTS, words

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "reliability.md").read_text("utf-8")
PROMISES: Final = [
    line for line in PAGE.partition("| promise |")[2].splitlines() if line.startswith("| ")
]


def test_every_promise_names_what_holds_us_to_it() -> None:
    assert PROMISES
    assert [line for line in PROMISES if not re.search(r"`test_\w+`|\*[a-z ]+\*", line)] == []


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    places = [path for part in ("libs", "services", "apps", "tests") for path in ROOT.glob(part)]
    texts = [path.read_text("utf-8") for place in places for path in place.rglob("*.py")]
    there = {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}
    assert named - there == set()


def test_every_invariant_holds_us_to_a_promise() -> None:
    named = set(re.findall(r"\*([a-z ]+)\*", "\n".join(PROMISES)))
    assert named == {words(check) for check in INVARIANTS}
