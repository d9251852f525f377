"""How often the right answer comes first when people ask in their own words.

Each intent of a labelled set is an entry whose title is the name of the intent. Some of what people
asked is stored with it as paraphrases, the rest is asked. The floors are what was measured, less a
margin of about two points.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from rapport.knowledge.search import Entry, Index

DATA = Path(__file__).parents[4] / "shared" / "data"

Questions = Mapping[str, list[str]]
"""What people asked, by intent."""

Recall = tuple[float, float]
"""The share of questions whose intent is found first, and among the first three."""


@pytest.fixture(scope="module")
def banking() -> Questions:
    """Questions to a bank, 10,003 of 77 intents, shuffled."""
    rows = csv.DictReader(_lines("banking77/train.csv"))
    return _by_intent((row["category"], row["text"]) for row in rows)


@pytest.fixture(scope="module")
def persian() -> Questions:
    """Persian requests to an assistant, 500 of 49 intents, shuffled."""
    rows = map(json.loads, _lines("massive/fa-IR.jsonl"))
    return _by_intent((row["intent"], row["utt"]) for row in rows)


@pytest.mark.parametrize(
    ("stored", "first_at_least", "third_at_least"),
    [(0, 0.44, 0.61), (5, 0.62, 0.79), (20, 0.76, 0.90), (60, 0.81, 0.93)],
)
def test_the_more_a_bank_was_asked_the_better_it_answers(
    banking: Questions, stored: int, first_at_least: float, third_at_least: float
) -> None:
    first, third = recall(banking, "en", stored)
    assert first >= first_at_least
    assert third >= third_at_least


def test_persian_requests_find_their_intent_by_what_others_asked(persian: Questions) -> None:
    first, third = recall(persian, "fa", stored=10)
    assert first >= 0.72
    assert third >= 0.85


def recall(questions: Questions, language: str, stored: int) -> Recall:
    """Store some questions of each intent, at most half of them; ask up to 50 of the others."""
    index, first, third, asked = Index(), 0, 0, 0
    for intent, texts in questions.items():
        paraphrases = tuple(texts[: min(stored, len(texts) // 2)])
        title = intent.replace("_", " ")
        index.put(Entry(intent, "article", language, title, "", paraphrases))
    for intent, texts in questions.items():
        for text in texts[len(texts) // 2 :][:50]:
            found = [hit.entry.id for hit in index.search(text, limit=3)]
            first += found[:1] == [intent]
            third += intent in found
            asked += 1
    return first / asked, third / asked


def _lines(name: str) -> Iterator[str]:
    path = DATA / name
    if not path.exists():
        pytest.skip("shared data absent")
    return iter(path.read_text(encoding="utf-8").splitlines(keepends=True))


def _by_intent(pairs: Iterable[tuple[str, str]]) -> Questions:
    questions: dict[str, list[str]] = defaultdict(list)
    for intent, text in pairs:
        questions[intent].append(text)
    for texts in questions.values():
        Random(77).shuffle(texts)
    return questions
