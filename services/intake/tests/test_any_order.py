"""Where messages stand, whatever comes twice, late or in another order, and whoever dies meanwhile.

What was received, assessed and became of the case travels on two topics; each status only goes
forward, so it depends on what happened alone.
"""

import asyncio
from datetime import timedelta
from functools import cache
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.events import Event
from rapport.common.events.cases import CaseClosed, CaseReopened, CaseResolved, FeedbackClassified
from rapport.common.events.envelope import EventData, sequence
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.vocabulary import Channel, Kind, Language
from rapport.common.testing import MORNING
from rapport.common.testing_crashes import Step, Survivor, happening
from rapport.intake.domain.status import CaseStatus, FeedbackStatus
from rapport.intake.service import SERVICE

from .test_status import KETTLE

STEPS: Final = st.lists(
    st.builds(Step, which=st.integers(0, 9), number=st.integers(1, 6)), max_size=20
)


def received(feedback: str, case: str) -> FeedbackReceived:
    return FeedbackReceived(
        feedback_id=feedback,
        reference=feedback,
        case_id=case,
        client="shop",
        kind=Kind.COMPLAINT,
        channel=Channel.WEB,
        language=Language.EN,
        text="It leaks.",
        occurred_at=MORNING,
        received_at=MORNING,
    )


def of_case(case: str, feedback: str) -> list[EventData]:
    """Return how a case with one message goes on, in order."""
    about: dict[str, Any] = {"case_id": case, "about": KETTLE}
    resolved = {"resolution": "A new one.", "opened_at": MORNING, "first_contact": False}
    return [
        FeedbackClassified(**about, feedback_id=feedback, because={}, occurred_at=MORNING),
        CaseResolved(**about, by="jun", **resolved),
        CaseClosed(**about, by="jun", owner="jun", opened_at=MORNING),
        CaseReopened(**about, by="jun", owner="jun", reason="it leaks too"),
    ]


def happened() -> list[Event[EventData]]:
    """Return what happens to two messages of two cases."""
    events = []
    for case, feedback in (("c1", "f1"), ("c2", "f2")):
        events.append(happening(received(feedback, case), f"received {feedback}"))
        for place, data in enumerate(of_case(case, feedback), 1):
            events.append(
                happening(
                    data,
                    f"{case} {place}",
                    time=MORNING + timedelta(hours=place),
                    sequence=sequence(place, 0),
                )
            )
    return events


async def came_to(events: list[Event[EventData]], steps: list[Step]) -> Any:
    """Return where everything stands, when all is read."""
    intake = Survivor(SERVICE)
    await intake.start()
    try:
        await intake.tell(*events)
        await intake.follow(steps)
        await intake.finish()
        return await intake.state(FeedbackStatus, CaseStatus, without=["correlation"])
    finally:
        await intake.stop()


@cache
def without_trouble() -> Any:
    """Return where everything stands where each topic is read once, in order."""
    return asyncio.run(came_to(happened(), []))


@settings(max_examples=15)
@given(st.permutations(happened()), STEPS)
def test_where_a_message_stands_depends_on_what_happened_alone(
    events: list[Event[EventData]], steps: list[Step]
) -> None:
    expected = without_trouble()
    assert expected["FeedbackStatus f1"]["state"] == "routed"
    assert expected["CaseStatus c2"]["state"] == "reopened"
    assert asyncio.run(came_to(events, steps)) == expected
