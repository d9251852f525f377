"""The cast of notification's stories: cases, a crisis and its statements, and who is told."""

from email import message_from_bytes, policy
from typing import Any, Final

from rapport.common.events.cases import (
    CaseCrisisLinked,
    CaseOpened,
    Subject,
)
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.crises import (
    CrisisDeclared,
    CrisisStandDownRequested,
    Criteria,
)
from rapport.common.events.feedback import Contact
from rapport.common.events.ids import random_id
from rapport.common.events.knowledge import Purpose, StatementReleased, Wording
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
from rapport.common.people import person_id
from rapport.common.testing import MORNING, Harness

from .servers import SmtpSink, content

KEY: Final = "a key of this installation"
"""What the tests' service knows persons by."""


def about(severity: Severity = Severity.NORMAL, product: str = "kettle") -> Subject:
    return Subject(
        kind=Kind.COMPLAINT,
        channel=Channel.EMAIL,
        language=Language.EN,
        product=product,
        complaint_type=ComplaintType.PRODUCT_QUALITY,
        need=Need.MATERIAL,
        sentiment=Sentiment.NEGATIVE,
        trust_cause=TrustCause.QUALITY,
        severity=severity,
    )


def opened(case: str = "c1", severity: Severity = Severity.NORMAL) -> CaseOpened:
    return CaseOpened(
        case_id=case,
        feedback_id=f"f-{case}",
        about=about(severity),
        owner="ana",
        team="care",
        rule="default",
        occurred_at=MORNING,
        excerpt="The kettle broke.",
    )


def linked(case: str, email: str | None, language: Language = Language.EN) -> CaseCrisisLinked:
    person = person_id(KEY.encode(), email=email)
    return CaseCrisisLinked(
        case_id=case,
        crisis_id="k1",
        contact=Contact(person=person, email=email),
        language=language,
        about=about(),
    )


def released(purpose: Purpose = "holding", groups: tuple[str, ...] = ()) -> StatementReleased:
    return StatementReleased(
        statement_id=f"s-{purpose}",
        hash=f"hash of {purpose}",
        purpose=purpose,
        crisis_id="k1",
        by="pia",
        groups=groups,
        wordings={
            Language.EN: Wording(subject="Kettles", text=f"{purpose}: we are looking into it.\n"),
            Language.ZH: Wording(subject="水壶", text=f"{purpose}：我们正在调查。\n"),
            Language.FA: Wording(subject="کتری", text=f"{purpose}: در حال بررسی هستیم.\n"),
        },
    )


def declared() -> CrisisDeclared:
    return CrisisDeclared(
        crisis_id="k1",
        title="Kettles break",
        criteria=Criteria(product="kettle"),
        severity=Severity.HIGH,
        by="lea",
        declared_at=MORNING,
    )


async def stakeholder(notification: Harness, id: str, **fields: Any) -> None:
    answer = await notification.call("PUT", f"/notification/v1/stakeholders/{id}", json=fields)
    assert answer.status_code == 200, answer.text


async def subscribe(notification: Harness, id: str, **fields: Any) -> None:
    answer = await notification.call("PUT", f"/notification/v1/subscriptions/{id}", json=fields)
    assert answer.status_code == 200, answer.text


def mailed(sink: SmtpSink) -> list[tuple[str, str]]:
    """Who got which text, in order."""
    return [(mail.rcpt_tos[0], text_of(content(mail))) for mail in sink.accepted]


def text_of(mail: bytes) -> str:
    message = message_from_bytes(mail, policy=policy.SMTP)
    part = message.get_body(("plain",))
    assert part is not None
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


async def coverage(notification: Harness, exercise: str | None = None) -> dict[str, int]:
    """Ask as a stand-down request does, and return what was answered."""
    asked = CrisisStandDownRequested(crisis_id="k1", request_id=random_id(), by="lea")
    await notification.given(asked, exercise=exercise)
    await notification.advance(seconds=2)
    return notification.all(CommunicationReviewed)[-1].data.coverage.model_dump()
