"""How real complaints and real questions are judged."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Sentiment,
    Severity,
)
from rapport.common.policy import load_policy
from rapport.routing.domain.assessment import Assessable, Assessment, LexiconAssessor
from rapport.routing.domain.lexicon import Lexicon

DATA: Final = Path(__file__).parents[4] / "shared" / "data"


def column(file: str, name: str) -> Iterator[str]:
    if not (DATA / file).exists():
        pytest.skip("shared data absent")
    with (DATA / file).open(encoding="utf-8", newline="") as rows:
        yield from (row[name] for row in csv.DictReader(rows) if row[name])


@pytest.fixture(scope="module")
def assessor() -> LexiconAssessor:
    return LexiconAssessor(
        load_policy("routing", f"lexicons/{language}", Lexicon).rules
        for language in (Language.EN, Language.ZH, Language.FA)
    )


@pytest.fixture(scope="module")
def complaints(assessor: LexiconAssessor) -> list[Assessment]:
    """Narratives of complaints, judged as mentions, so that their words alone decide."""
    return [
        assessor.assess(Assessable(Kind.MENTION, Channel.WEB, Language.EN, text=text))
        for text in column("cfpb/complaints.csv", "Consumer complaint narrative")
    ]


@pytest.fixture(scope="module")
def questions(assessor: LexiconAssessor) -> list[Assessment]:
    texts = list(column("banking77/train.csv", "text"))[::10]
    return [
        assessor.assess(Assessable(Kind.QUESTION, Channel.CHAT, Language.EN, text=text))
        for text in texts
    ]


def test_complaints_are_negative(complaints: list[Assessment]) -> None:
    negative = sum(one.sentiment.value is Sentiment.NEGATIVE for one in complaints)
    assert negative / len(complaints) > 0.85


def test_complaints_are_told_apart(complaints: list[Assessment]) -> None:
    types = Counter(one.complaint_type.value for one in complaints)
    assert types[ComplaintType.OTHER] + types[ComplaintType.NONE] < 0.2 * len(complaints)
    assert max(types.values()) < 0.7 * len(complaints)
    assert len(types) >= 8


def test_complaints_about_money_are_seldom_a_danger(complaints: list[Assessment]) -> None:
    critical = sum(one.severity.value is Severity.CRITICAL for one in complaints)
    assert critical / len(complaints) < 0.05


def test_questions_are_no_complaints(questions: list[Assessment]) -> None:
    none = sum(one.complaint_type.value is ComplaintType.NONE for one in questions)
    assert none / len(questions) > 0.8
    assert not [one for one in questions if one.severity.value is Severity.CRITICAL]
