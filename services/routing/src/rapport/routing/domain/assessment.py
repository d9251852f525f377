"""The first judgement of a message: complaint type, need, sentiment, trust cause and severity.

`Assessor` is the port. `LexiconAssessor` weighs evidence: the words of the message, read with an
authored lexicon of its language, and its circumstances (kind, rating, channel, reach). The value
for which most speaks wins. Its confidence is its share of all the evidence with one unit of doubt
added, so little evidence gives little confidence, and so does evidence that disagrees. Feelings are
judged first, then the complaint; each judgement is evidence for the next.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol

from pydantic import BaseModel, ConfigDict

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
from rapport.common.text import normalise
from rapport.routing.domain.lexicon import WEIGHTS, Lexicon
from rapport.routing.domain.reading import AnyValue, Evidence, Reader

DOUBT: Final = 1.0
"""The weight of what we do not know, in the unit of a weak term."""

MOST_REASONS: Final = 5
"""Reasons that a judgement names, the heaviest first."""

WELL_SUPPORTED: Final = 1.5
"""The weight from which a need stands beside another instead of behind it."""

ALARM: Final = 2.0
"""The weight of words of danger or threat that raises the severity of a complaint; what is no
complaint, like a question about fire safety, takes twice as much."""

NO_REACH: Final = Reach()
"""Nobody but us has seen it, as far as we know."""

WIDE_REACH: Final = Reach(followers=10_000, reposts=100, views=50_000)
"""From any of these on, a bad word travels far enough to matter by itself."""

_SENTIMENT_OF: Final[Mapping[Kind, tuple[Sentiment, float]]] = {
    Kind.COMPLAINT: (Sentiment.NEGATIVE, 3.0),
    Kind.QUESTION: (Sentiment.NEUTRAL, 1.5),
    Kind.REQUEST: (Sentiment.NEUTRAL, 1.5),
    Kind.PRAISE: (Sentiment.POSITIVE, 3.0),
    Kind.SURVEY_ANSWER: (Sentiment.NEUTRAL, 0.5),
    Kind.MENTION: (Sentiment.NEUTRAL, 0.5),
}

_NEEDS_OF: Final[Mapping[ComplaintType, tuple[Need, ...]]] = {
    ComplaintType.PRODUCT_COUNTERFEIT: (Need.MATERIAL,),
    ComplaintType.PRODUCT_LABELLING: (Need.INFORMATION,),
    ComplaintType.PRODUCT_QUALITY: (Need.MATERIAL,),
    ComplaintType.PRODUCT_PRICE: (Need.MATERIAL,),
    ComplaintType.SERVICE_ATTITUDE: (Need.EMOTIONAL,),
    ComplaintType.SERVICE_COMPETENCE: (Need.MATERIAL,),
    ComplaintType.SERVICE_HARM: (Need.MATERIAL, Need.EMOTIONAL),
    ComplaintType.ADVERTISING_EXAGGERATION: (Need.MATERIAL,),
    ComplaintType.CONTRACT: (Need.MATERIAL,),
    ComplaintType.OTHER: (Need.EMOTIONAL,),
    ComplaintType.NONE: (),
}
"""What people with such a complaint mostly want when they do not say it."""

_TRUST_CAUSE_OF: Final[Mapping[ComplaintType, TrustCause]] = {
    ComplaintType.PRODUCT_COUNTERFEIT: TrustCause.ETHICS,
    ComplaintType.PRODUCT_LABELLING: TrustCause.MISLEADING,
    ComplaintType.PRODUCT_QUALITY: TrustCause.QUALITY,
    ComplaintType.SERVICE_ATTITUDE: TrustCause.QUALITY,
    ComplaintType.SERVICE_COMPETENCE: TrustCause.QUALITY,
    ComplaintType.SERVICE_HARM: TrustCause.QUALITY,
    ComplaintType.ADVERTISING_EXAGGERATION: TrustCause.MISLEADING,
}
"""The trust that such a complaint mostly costs when its words do not tell."""


@dataclass(frozen=True, slots=True)
class Assessable:
    """What is known of a message when it is assessed.

    `rating` goes from 0 (worst) to 1 (best).
    """

    kind: Kind
    channel: Channel
    language: Language
    subject: str | None = None
    text: str | None = None
    rating: float | None = None
    public: bool = False
    reach: Reach = NO_REACH
    remedy_sought: str | None = None


class Judgement(BaseModel, Generic[AnyValue]):
    """One answer, how sure it is (0 to 1), and the words and circumstances that decided."""

    model_config = ConfigDict(frozen=True)

    value: AnyValue
    confidence: float
    because: tuple[str, ...]


class Assessment(BaseModel):
    """The five judgements about a message."""

    model_config = ConfigDict(frozen=True)

    complaint_type: Judgement[ComplaintType]
    need: Judgement[Need]
    sentiment: Judgement[Sentiment]
    trust_cause: Judgement[TrustCause]
    severity: Judgement[Severity]


class Assessor(Protocol):
    """Judges a message; the same message always gets the same assessment."""

    def assess(self, item: Assessable) -> Assessment:
        """Return the judgements; whatever the item holds, there is an answer."""
        ...


class LexiconAssessor:
    """Judges by lexicons, at most one per language.

    A message in a language without a lexicon, or in which its own language's lexicon finds nothing,
    is read with the others; if they find nothing either, its circumstances decide, with little
    confidence.
    """

    def __init__(self, lexicons: Iterable[Lexicon]) -> None:
        self._readers = {lexicon.language: Reader(lexicon) for lexicon in lexicons}

    def assess(self, item: Assessable) -> Assessment:
        """Return the judgements; one pass over the text, however many terms there are."""
        evidence = self._read(item)
        sentiment = _judge_sentiment(item, evidence)
        complained = item.kind is Kind.COMPLAINT or sentiment.value is Sentiment.NEGATIVE
        complaint_type = _judge_complaint_type(item, evidence, complained)
        return Assessment(
            complaint_type=complaint_type,
            need=_judge_need(item, evidence, complaint_type.value, complained),
            sentiment=sentiment,
            trust_cause=_judge_trust_cause(evidence, complaint_type.value, complained),
            severity=_judge_severity(item, evidence, sentiment, complained),
        )

    def _read(self, item: Assessable) -> Evidence:
        parts = (item.subject, item.text, item.remedy_sought)
        text = normalise(". ".join(part for part in parts if part))
        own = self._readers.get(item.language)
        others = [reader for reader in self._readers.values() if reader is not own]
        for reader in [own, *others] if own else others:
            if evidence := reader.read(text):
                return evidence
        return Evidence()


def _judge_sentiment(item: Assessable, evidence: Evidence) -> Judgement[Sentiment]:
    """What is complained of says something of feelings, too; a weak term only names a subject."""
    for grievance in (ComplaintType, TrustCause, Severity):
        for reason, weight in evidence.about(grievance):
            if weight > WEIGHTS["weak"]:
                evidence.add(Sentiment.NEGATIVE, (weight - WEIGHTS["weak"]) / 2, reason)
    feeling, weight = _SENTIMENT_OF[item.kind]
    evidence.add(feeling, weight, f"kind: {item.kind}")
    if item.rating is not None:
        feeling, weight = _feeling_of(item.rating)
        evidence.add(feeling, weight, f"rating: {item.rating:.2f}")
    return _heaviest(evidence, Sentiment)


def _feeling_of(rating: float) -> tuple[Sentiment, float]:
    if rating == 0.5:
        return Sentiment.NEUTRAL, 1.0
    return Sentiment.POSITIVE if rating > 0.5 else Sentiment.NEGATIVE, 6.0 * abs(rating - 0.5)


def _judge_complaint_type(
    item: Assessable, evidence: Evidence, complained: bool
) -> Judgement[ComplaintType]:
    """Without a complaint, praise speaks for `none`; with one, little speaks for `other`."""
    if complained:
        evidence.add(ComplaintType.OTHER, 0.5, f"kind: {item.kind}")
    else:
        evidence.add(ComplaintType.NONE, 4.0, f"kind: {item.kind}")
        for reason, weight in evidence.of(Sentiment.POSITIVE).items():
            evidence.add(ComplaintType.NONE, weight, reason)
    return _heaviest(evidence, ComplaintType)


def _judge_need(
    item: Assessable, evidence: Evidence, complaint_type: ComplaintType, complained: bool
) -> Judgement[Need]:
    """A material and an emotional need that are both well supported make `both`."""
    if item.kind in (Kind.QUESTION, Kind.REQUEST):
        evidence.add(Need.INFORMATION, 2.0, f"kind: {item.kind}")
    elif not complained:
        evidence.add(Need.NONE, 2.0, f"kind: {item.kind}")
    if item.remedy_sought:
        evidence.add(Need.MATERIAL, 1.0, "remedy sought")
    if complained:
        for need in _NEEDS_OF[complaint_type]:
            evidence.add(need, 1.0, f"complaint type: {complaint_type}")
    weights = evidence.weights(Need)
    both = [weights.get(need, 0.0) for need in (Need.MATERIAL, Need.EMOTIONAL)]
    if min(both) >= WELL_SUPPORTED and sum(both) > weights.get(Need.INFORMATION, 0.0):
        reasons = evidence.reasons(Need.MATERIAL, Need.EMOTIONAL)
        return _judged(Need.BOTH, sum(both), sum(weights.values()), reasons)
    return _heaviest(evidence, Need)


def _judge_trust_cause(
    evidence: Evidence, complaint_type: ComplaintType, complained: bool
) -> Judgement[TrustCause]:
    """A complaint's type says what it costs in trust, where its words do not say more."""
    evidence.add(TrustCause.NONE, 0.5 if complained else 3.0, "nothing said of trust")
    if complained and (cause := _TRUST_CAUSE_OF.get(complaint_type)):
        evidence.add(cause, 1.0, f"complaint type: {complaint_type}")
    return _heaviest(evidence, TrustCause)


def _judge_severity(
    item: Assessable, evidence: Evidence, sentiment: Judgement[Sentiment], complained: bool
) -> Judgement[Severity]:
    """The highest level that is supported, not the best supported: danger outweighs all else."""
    if complained:
        _add_circumstances(item, evidence)
    needed = ALARM if complained else 2 * ALARM
    weights = evidence.weights(Severity)
    danger = weights.get(Severity.CRITICAL, 0.0)
    concern = danger + weights.get(Severity.HIGH, 0.0)
    if danger >= needed:
        return _judged(Severity.CRITICAL, danger, danger, evidence.reasons(Severity.CRITICAL))
    if concern >= needed:
        reasons = evidence.reasons(Severity.CRITICAL, Severity.HIGH)
        return _judged(Severity.HIGH, concern, concern, reasons)
    return Judgement(
        value=Severity.NORMAL if complained else Severity.LOW,
        confidence=sentiment.confidence,
        because=sentiment.because,
    )


def _add_circumstances(item: Assessable, evidence: Evidence) -> None:
    """What makes a complaint spread: it is public, already widely seen, or in the press."""
    if item.public:
        evidence.add(Severity.HIGH, 1.0, "public")
    if item.channel is Channel.PRESS:
        evidence.add(Severity.HIGH, 2.0, f"channel: {item.channel}")
    for measure, wide in WIDE_REACH:
        if getattr(item.reach, measure) >= wide:
            evidence.add(Severity.HIGH, 2.0, measure)


def _heaviest(evidence: Evidence, aspect: type[AnyValue]) -> Judgement[AnyValue]:
    weights = evidence.weights(aspect)
    value = max(weights, key=weights.__getitem__)
    return _judged(value, weights[value], sum(weights.values()), evidence.reasons(value))


def _judged(
    value: AnyValue, weight: float, total: float, because: tuple[str, ...]
) -> Judgement[AnyValue]:
    return Judgement(
        value=value, confidence=round(weight / (total + DOUBT), 3), because=because[:MOST_REASONS]
    )
