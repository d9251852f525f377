"""How messages are judged: by their words in three languages, and by their circumstances."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.errors import Invalid
from rapport.common.events.feedback import Reach
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)
from rapport.common.policy import load_policy, parse_yaml
from rapport.common.text import normalise
from rapport.routing.domain.assessment import Assessable, Assessment, Judgement, LexiconAssessor
from rapport.routing.domain.lexicon import Grammar, Lexicon
from rapport.routing.domain.reading import Evidence, Reader

HERE: Final = Path(__file__).parent
LANGUAGES: Final = (Language.EN, Language.ZH, Language.FA)
LEXICONS: Final = {
    language: load_policy("routing", f"lexicons/{language}", Lexicon).rules
    for language in LANGUAGES
}
ASSESSOR: Final = LexiconAssessor(LEXICONS.values())

Sentence = Mapping[str, Any]


def sentences(file: str) -> list[Sentence]:
    read: list[Sentence] = yaml.safe_load((HERE / file).read_text(encoding="utf-8"))
    return read


EXAMPLES: Final = sentences("assessment_examples.yaml")
HELD_OUT: Final = sentences("assessment_held_out.yaml")


def message(text: str = "", kind: Kind = Kind.COMPLAINT, **known: Any) -> Assessable:
    return Assessable(kind, Channel.WEB, known.pop("language", Language.EN), text=text, **known)


def assess(sentence: Sentence) -> Assessment:
    return ASSESSOR.assess(
        Assessable(
            kind=Kind(sentence.get("kind", "complaint")),
            channel=Channel.WEB,
            language=Language(sentence["language"]),
            text=sentence["text"],
            rating=sentence.get("rating"),
            public=sentence.get("public", False),
            reach=Reach(followers=sentence.get("followers", 0)),
        )
    )


def judged(sentence: Sentence) -> Iterator[tuple[str, Judgement[Any], list[str]]]:
    """Yield each aspect that the sentence is labelled with, its judgement, the right answers."""
    for aspect, judgement in assess(sentence):
        if aspect in sentence:
            right = sentence[aspect]
            yield aspect, judgement, right if isinstance(right, list) else [right]


@pytest.mark.parametrize("sentence", EXAMPLES, ids=[example["text"] for example in EXAMPLES])
def test_the_words_of_a_message_decide(sentence: Sentence) -> None:
    wrong = {
        aspect: judgement
        for aspect, judgement, right in judged(sentence)
        if judgement.value not in right
    }
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_unseen_sentences_are_mostly_judged_right(language: Language) -> None:
    answers = [
        judgement.value in right
        for sentence in HELD_OUT
        if sentence["language"] == language
        for _, judgement, right in judged(sentence)
    ]
    assert sum(answers) / len(answers) >= 0.9


def test_confidence_tells_how_often_a_judgement_is_right() -> None:
    answers = [
        (judgement.confidence, judgement.value in right)
        for sentence in HELD_OUT
        for _, judgement, right in judged(sentence)
    ]
    sure = [right for confidence, right in answers if confidence >= 0.6]
    unsure = [right for confidence, right in answers if confidence < 0.6]
    assert sum(sure) / len(sure) >= 0.95
    assert sum(sure) / len(sure) > sum(unsure) / len(unsure)


@pytest.mark.parametrize(
    ("kind", "complaint_type", "need", "sentiment", "severity"),
    [
        (Kind.COMPLAINT, "other", "emotional", "negative", "normal"),
        (Kind.QUESTION, "none", "information", "neutral", "low"),
        (Kind.REQUEST, "none", "information", "neutral", "low"),
        (Kind.PRAISE, "none", "none", "positive", "low"),
        (Kind.SURVEY_ANSWER, "none", "none", "neutral", "low"),
        (Kind.MENTION, "none", "none", "neutral", "low"),
    ],
)
def test_without_telling_words_the_kind_decides(
    kind: Kind, complaint_type: str, need: str, sentiment: str, severity: str
) -> None:
    assessment = ASSESSOR.assess(message("xyzzy", kind))
    assert assessment.complaint_type.value == complaint_type
    assert assessment.need.value == need
    assert assessment.sentiment.value == sentiment
    assert assessment.severity.value == severity
    assert assessment.trust_cause.value == "none"


def test_a_complaint_without_telling_words_is_judged_with_little_confidence() -> None:
    assessment = ASSESSOR.assess(message("xyzzy"))
    assert assessment.complaint_type.confidence < 0.4
    assert assessment.trust_cause.confidence < 0.4
    assert ASSESSOR.assess(message("a counterfeit")).complaint_type.confidence > 0.6


@given(
    st.builds(
        Assessable,
        kind=st.sampled_from(Kind),
        channel=st.sampled_from(Channel),
        language=st.sampled_from(Language),
        subject=st.none() | st.text(),
        text=st.none() | st.text() | st.sampled_from([example["text"] for example in EXAMPLES]),
        rating=st.none() | st.floats(0, 1),
        public=st.booleans(),
        reach=st.builds(Reach, followers=st.integers(0, 10**9)),
        remedy_sought=st.none() | st.text(),
    )
)
def test_whatever_comes_in_gets_an_answer(item: Assessable) -> None:
    assessment = ASSESSOR.assess(item)
    assert assessment == ASSESSOR.assess(item)
    assert all(0 < judgement.confidence < 1 for _, judgement in assessment)


def test_reasons_are_told_in_words_of_the_lexicon_only() -> None:
    assessment = ASSESSOR.assess(message("Not even Jo Poe is happy. Fakenham sold us fakes."))
    assert assessment.sentiment.because == ("kind: complaint", "not … happy", "fake*")
    assert assessment.complaint_type.because == ("fake*",)


def test_the_subject_and_the_remedy_are_read_too() -> None:
    item = message("Please see the file.", subject="Counterfeit", remedy_sought="an apology")
    assessment = ASSESSOR.assess(item)
    assert assessment.complaint_type.value is ComplaintType.PRODUCT_COUNTERFEIT
    assert assessment.need.value is Need.BOTH


@pytest.mark.parametrize(
    ("rating", "sentiment"),
    [(0.0, "negative"), (0.25, "negative"), (0.5, "neutral"), (1, "positive")],
)
def test_a_rating_tells_the_sentiment(rating: float, sentiment: str) -> None:
    answer = message(kind=Kind.SURVEY_ANSWER, rating=rating)
    assert ASSESSOR.assess(answer).sentiment.value == sentiment


@pytest.mark.parametrize(
    "reach", [Reach(followers=10_000), Reach(reposts=100), Reach(views=50_000)]
)
def test_a_bad_word_that_travels_far_is_severe(reach: Reach) -> None:
    severity = ASSESSOR.assess(message("Bad service", Kind.MENTION, reach=reach)).severity
    assert severity.value is Severity.HIGH
    assert ASSESSOR.assess(message("Bad service", Kind.MENTION)).severity.value is Severity.NORMAL
    assert (
        ASSESSOR.assess(message("Thank you", Kind.MENTION, reach=reach)).severity.value
        is Severity.LOW
    )


def test_bad_press_is_severe_and_good_press_is_not() -> None:
    bad, good = (
        ASSESSOR.assess(Assessable(Kind.MENTION, Channel.PRESS, Language.EN, text=text))
        for text in ("A shoddy, overpriced phone", "An excellent phone")
    )
    assert bad.severity.value is Severity.HIGH
    assert bad.severity.because[0] == "channel: press"
    assert good.severity.value is Severity.LOW


def test_being_public_tips_the_scales_but_is_not_enough() -> None:
    threat = "This is your last chance."
    assert ASSESSOR.assess(message(threat)).severity.value is Severity.NORMAL
    assert ASSESSOR.assess(message(public=True)).severity.value is Severity.NORMAL
    assert ASSESSOR.assess(message(threat, public=True)).severity.value is Severity.HIGH


def test_danger_outweighs_everything_else() -> None:
    text = "My lawyer and the press know, again and again I called, and then the charger exploded."
    assert ASSESSOR.assess(message(text)).severity.value is Severity.CRITICAL


def test_a_wrongly_declared_language_is_read_by_its_words() -> None:
    declared = message("这是假货，我要退款", language=Language.EN)
    undetermined = message("این جنس تقلبی است", language=Language.UND)
    for item in (declared, undetermined):
        assert ASSESSOR.assess(item).complaint_type.value is ComplaintType.PRODUCT_COUNTERFEIT


def test_an_assessor_without_lexicons_goes_by_circumstances() -> None:
    assessment = LexiconAssessor([]).assess(message("This is a fake", rating=0.0))
    assert assessment.complaint_type.value is ComplaintType.OTHER
    assert assessment.sentiment.because == ("kind: complaint", "rating: 0.00")


def lexicon(language: Language = Language.EN, **parts: Any) -> Lexicon:
    parts["grammar"] = Grammar(**{"reach": 12} | parts.get("grammar", {}))
    parts.setdefault("sentiment", {"positive": {"fair": ["good"]}, "negative": {"fair": ["bad"]}})
    return Lexicon(language=language, **parts)


def feelings(text: str, **parts: Any) -> tuple[float, float]:
    """Return the weight of what is good and of what is bad in a text."""
    weights = read(text, **parts).weights(Sentiment)
    return weights.get(Sentiment.POSITIVE, 0.0), weights.get(Sentiment.NEGATIVE, 0.0)


def read(text: str, **parts: Any) -> Evidence:
    return Reader(lexicon(**parts)).read(normalise(text))


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("good", 2, 0),
        ("bad bad bad", 0, 2),
        ("goodness, badly", 0, 0),
        ("not good", 0, 2),
        ("not bad", 1, 0),
        ("not that, good", 2, 0),
        ("not bad but good", 3, 0),
        ("not what one would call good", 2, 0),
        ("good it is not", 0, 2),
        ("good. It is not", 2, 0),
        ("very good", 3, 0),
        ("very bad and good", 2, 3),
        ("a bit bad", 0, 1),
        ("not very good", 0, 3),
        ("good grief", 0, 0),
    ],
)
def test_denial_and_emphasis_work_on_the_terms_near_them(
    text: str, good: float, bad: float
) -> None:
    grammar = {
        "deny_next": ["not"],
        "deny_previous": ["it is not"],
        "turn": ["but"],
        "emphasise": ["very"],
        "soften": ["a bit"],
    }
    assert feelings(text, grammar=grammar, ignore=["good grief"]) == (good, bad)


def test_a_denied_need_is_still_a_need_and_a_denied_danger_is_none() -> None:
    parts = {
        "need": {"material": {"fair": ["refund"]}},
        "severity": {"critical": {"fair": ["fire"]}},
    }
    evidence = read("no refund, no fire", grammar={"deny_next": ["no"]}, **parts)
    assert evidence.weights(Need) == {Need.MATERIAL: 2.0}
    assert not evidence.weights(Severity)
    assert evidence.reasons(Need.MATERIAL) == ("no … refund",)


@pytest.mark.parametrize(
    "text", ["knock off", "knock-off", "knockoff", "KNOCK\u200coff", "knock offs"]
)
def test_a_term_is_found_however_it_is_joined(text: str) -> None:
    parts = {"complaint_type": {"product_counterfeit": {"fair": ["knock off", "knock offs"]}}}
    assert read(text, **parts).weights(ComplaintType)


def test_the_longest_term_wins_and_an_exact_one_before_a_beginning() -> None:
    parts = {
        "sentiment": {"negative": {"weak": ["fals*"], "strong": ["false promise*"]}},
        "trust_cause": {"misleading": {"fair": ["false"]}},
    }
    assert read("false", **parts).weights(TrustCause)
    assert not read("falsely", **parts).weights(TrustCause)
    assert read("falsely false promises", **parts).reasons(Sentiment.NEGATIVE) == (
        "false promise*",
        "fals*",
    )


def test_chinese_terms_are_found_without_spaces_around_them() -> None:
    parts: dict[str, Any] = {
        "language": Language.ZH,
        "grammar": {"whole_words": False, "reach": 4, "deny_next": ["不", "没有"]},
        "sentiment": {"positive": {"fair": ["满意"]}, "negative": {"fair": ["不满意"]}},
    }
    assert feelings("我很满意。", **parts) == (2, 0)
    assert feelings("我很不满意。", **parts) == (0, 2)
    assert feelings("没有不满意", **parts) == (1, 0)
    assert feelings("不太满意", **parts) == (0, 2)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_term_that_we_ship_is_found(language: Language) -> None:
    reader = Reader(LEXICONS[language])
    ignored = set(LEXICONS[language].ignore)
    missed = {
        term
        for term, value, _ in LEXICONS[language].entries()
        if value not in reader.read(term.rstrip("*")).weights(type(value)) and term not in ignored
    }
    assert not missed


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_term_that_we_ship_speaks_twice_for_one_value(language: Language) -> None:
    said = [(term, type(value), value) for term, value, _ in LEXICONS[language].entries()]
    assert not {entry for entry in said if said.count(entry) > 1}


@pytest.mark.parametrize(
    ("mistake", "place"),
    [
        ("complaint_type:\n  product_taste: {strong: [sour]}", "complaint_type.product_taste"),
        ("complaint_type:\n  other: {strong: [sour]}", "complaint_type.other"),
        ("sentiment:\n  negative: {huge: [sour]}", "sentiment.negative.huge"),
        ("sentiment:\n  negative: {strong: [sour, '...']}", "sentiment.negative.strong.1"),
        ("sentiment:\n  negative: {strong: [sour, '*ing']}", "sentiment.negative.strong.1"),
        ("sentiment:\n  negative: {strong: [sour, no]}", "sentiment.negative.strong.1"),
    ],
)
def test_a_mistake_in_a_lexicon_is_told_with_its_line(mistake: str, place: str) -> None:
    text = f"language: en\ngrammar: {{reach: 9}}\n{mistake}\n"
    with pytest.raises(Invalid, match=rf"^en\.yaml:4: {place}"):
        parse_yaml(text, Lexicon, "en.yaml")
