"""How often the right answer comes first for real questions, some of which were taught before."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from rapport.knowledge.search import Entry, Index

DATA = Path(__file__).parents[4] / "shared" / "data"

Questions = Mapping[str, Sequence[str]]
"""What people asked, by intent."""


@pytest.fixture(scope="module")
def banking() -> Questions:
    """10,003 questions to a bank, of 77 intents."""
    with _opened("banking77/train.csv") as rows:
        return _by_intent((row["category"], row["text"]) for row in csv.DictReader(rows))


@pytest.fixture(scope="module")
def persian() -> Questions:
    """500 Persian requests to an assistant."""
    with _opened("massive/fa-IR.jsonl") as lines:
        rows = [json.loads(line) for line in lines]
    return _by_intent((row["intent"], row["utt"]) for row in rows)
