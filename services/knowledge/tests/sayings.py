"""What the company says and hears in these tests, in three languages."""

from datetime import datetime
from typing import Any

from rapport.common.events.cases import CaseClosed, Subject
from rapport.common.events.crises import CrisisDeclared, CrisisProposed, Criteria
from rapport.common.events.feedback import FeedbackReceived
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
from rapport.common.testing import MORNING
from rapport.knowledge.domain.wording import Draft, Variant

AUTHOR, PR, LEGAL = "anna", "paula", "louis"
"""Who writes, and one approver of each group, as the built-in policy has them."""

EN, ZH, FA = Language.EN, Language.ZH, Language.FA

WORDS = {
    EN: (
        "About the kettle AK-300",
        "We have heard that handles of the kettle AK-300 come loose. Please stop using it. "
        "We will write again tomorrow before noon.",
    ),
    ZH: (
        "关于AK-300电热水壶",
        "我们已经知道AK-300电热水壶的手柄会松动。请先停止使用。我们明天中午以前会再次通知您。",
    ),
    FA: (
        "درباره کتری AK-300",
        "شنیده‌ایم که دسته کتری AK-300 شل می‌شود. لطفاً از آن استفاده نکنید. فردا پیش از ظهر دوباره "
        "به شما خبر می‌دهیم.",
    ),
}


def draft(**changed: Any) -> Draft:
    """Return a holding statement about a crisis, in three languages, none of them stale."""
    source = Variant(subject=WORDS[EN][0], text=changed.pop("text", WORDS[EN][1]))
    translations = {
        language: Variant(subject=subject, text=text, translates=source.hash)
        for language, (subject, text) in WORDS.items()
        if language is not EN
    }
    given = {
        "purpose": "holding",
        "crisis_id": "kettles",
        "groups": ["dealers"],
        "source_language": EN,
        "wordings": {EN: source, **translations},
    }
    return Draft.model_validate(given | changed)


def body(written: Draft) -> dict[str, Any]:
    """Return a draft as a client sends it."""
    return written.model_dump(mode="json")


def proposed(crisis_id: str) -> CrisisProposed:
    """Return the beginning of a crisis."""
    return CrisisProposed(
        crisis_id=crisis_id,
        title="Loose handles",
        criteria=Criteria(product="kettle"),
        reason="",
        severity=Severity.HIGH,
    )


def declared(crisis_id: str, at: datetime) -> CrisisDeclared:
    """Return that it is a crisis."""
    return CrisisDeclared(
        crisis_id=crisis_id,
        title="Loose handles",
        criteria=Criteria(product="kettle"),
        severity=Severity.HIGH,
        by="lea",
        declared_at=at,
    )


RETURNS: dict[str, Any] = {
    "title": {
        "en": "Getting your money back",
        "zh": "如何申请退款",
        "fa": "پس گرفتن پول",
    },
    "text": {
        "en": "Send the item to us within thirty days and we return its price to your card.",
        "zh": "请在三十天内把商品寄回,我们会把货款退到您付款的银行卡。",
        "fa": "کالا را تا سی روز برای ما بفرستید تا مبلغ آن را به کارت شما برگردانیم.",
    },
    "paraphrases": {
        "en": ["how do I get a refund"],
        "zh": ["我要退款"],
        "fa": ["پولم را پس می‌خواهم"],
    },
    "topics": ["refund"],
}

DELIVERY: dict[str, Any] = {
    "title": {
        "en": "When will my parcel arrive?",
        "zh": "包裹什么时候送到",
        "fa": "زمان رسیدن بسته",
    },
    "text": {
        "en": "Parcels travel two to four days; the tracking page shows where yours is.",
        "zh": "包裹一般需要两到四天,物流页面会显示它现在的位置。",
        "fa": "بسته‌ها دو تا چهار روز در راه‌اند و صفحه رهگیری جای آن را نشان می‌دهد.",
    },
}

HANDLES: dict[str, Any] = {
    "text": {
        "en": "Anyone whose kettle handle comes loose gets a new kettle, no receipt needed.",
        "zh": "凡是水壶手柄松动的顾客,无需小票,立即换新。",
        "fa": "هر کس دسته کتری‌اش شل شده، بدون رسید و بی‌درنگ یک کتری نو می‌گیرد.",
    },
    "product": "AK-300",
}


def heard(text: str | None, **changed: Any) -> FeedbackReceived:
    """Return a complaint in conversation `c1`."""
    given = {
        "feedback_id": "f1",
        "reference": "R-1",
        "case_id": "c1",
        "client": "help-desk",
        "kind": Kind.COMPLAINT,
        "channel": Channel.WEB,
        "language": EN,
        "text": text,
        "occurred_at": MORNING,
        "received_at": MORNING,
    }
    return FeedbackReceived.model_validate(given | changed)


def closed(case_id: str = "c1") -> CaseClosed:
    """Return the end of a conversation."""
    about = Subject(
        kind=Kind.COMPLAINT,
        channel=Channel.WEB,
        language=EN,
        complaint_type=ComplaintType.PRODUCT_QUALITY,
        need=Need.MATERIAL,
        sentiment=Sentiment.NEGATIVE,
        trust_cause=TrustCause.QUALITY,
        severity=Severity.NORMAL,
    )
    return CaseClosed(case_id=case_id, by="ben", about=about, owner="ben", opened_at=MORNING)
