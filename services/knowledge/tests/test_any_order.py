"""What knowledge keeps, whatever comes twice or late, and whoever dies meanwhile.

Which statement speaks follows releases that are heard of in any order; a case's words follow its
messages and its closing, which travel on two topics.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from functools import cache
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.events import Event
from rapport.common.events.envelope import EventData
from rapport.common.events.knowledge import StatementSuperseded
from rapport.common.testing import MORNING
from rapport.common.testing_crashes import Step, Survivor, happening
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.in_force import InForce
from rapport.knowledge.service import SERVICE

from .sayings import closed, heard
from .test_in_force import RELEASES

STEPS: Final = st.lists(
    st.builds(Step, which=st.integers(0, 20), number=st.integers(1, 6)), max_size=20
)


def happened() -> list[Event[EventData]]:
    """Return six releases, and a conversation that goes on after it was closed."""
    minute = timedelta(minutes=1)
    said = [
        heard("It leaks.", product="kettle"),
        heard("It still leaks.", feedback_id="f2", received_at=MORNING + minute),
        heard("Now it burns.", feedback_id="f3", received_at=MORNING + 9 * minute),
    ]
    return [
        *(happening(data, data.feedback_id) for data in said),
        happening(closed(), "closing", time=MORNING + 5 * minute),
        *(
            happening(data, f"release {place}", time=MORNING + place * minute)
            for place, data in enumerate(RELEASES)
        ),
    ]


async def came_to(events: list[Event[EventData]], steps: list[Step]) -> tuple[Any, Any]:
    """Return what is kept and which statements were superseded, when all is read."""
    knowledge = Survivor(SERVICE)
    await knowledge.start()
    try:
        await knowledge.tell(*events)
        await knowledge.follow(steps)
        await knowledge.finish()
        knowledge.check_sequences()
        kept = await knowledge.state(CaseText, InForce, without=["correlation"])
        for line in kept.values():
            line.get("earlier", []).sort()
        superseded = Counter(
            event.data.statement_id
            for event in knowledge.published()
            if isinstance(event.data, StatementSuperseded)
        )
        return kept, superseded
    finally:
        await knowledge.stop()


@cache
def without_trouble() -> tuple[Any, Any]:
    """Return what it comes to where each topic is read once, in order."""
    return asyncio.run(came_to(happened(), []))


@settings(max_examples=15)
@given(st.permutations(happened()), STEPS)
def test_what_is_kept_depends_on_what_happened_alone(
    events: list[Event[EventData]], steps: list[Step]
) -> None:
    assert asyncio.run(came_to(events, steps)) == without_trouble()
