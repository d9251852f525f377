"""What is counted, whatever comes twice, in whatever order of keys, and whoever dies meanwhile.

Figures are a function of facts, so the facts are compared. When a watch is awake depends on when it
hears of something: a late item is counted in the hour, not in a bin that is closed.
"""

import asyncio
from functools import cache
from typing import Any, Final, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.analytics.domain.facts import CaseStep, ClockOutcome, Heard, MessageOutcome
from rapport.analytics.service import SERVICE
from rapport.common.events import Event
from rapport.common.events.envelope import EventData
from rapport.common.events.ids import random_id
from rapport.common.testing import Harness
from rapport.common.testing_crashes import Step, Survivor, happening

from .test_figures import a_day

STEPS: Final = st.lists(
    st.builds(Step, which=st.integers(0, 20), number=st.integers(1, 12)), max_size=20
)


class Diary:
    """Makes events of what happened; each has an id of its own."""

    def event(self, data: EventData, **attributes: Any) -> Event[EventData]:
        """Wrap `data` as an event."""
        return happening(data, random_id(), **attributes)


DAY: Final = a_day(cast("Harness", Diary()))


async def came_to(steps: list[Step]) -> Any:
    """Return all that is remembered of the day, when all is read."""
    analytics = Survivor(SERVICE)
    await analytics.start()
    try:
        await analytics.tell(*DAY)
        await analytics.follow(steps)
        await analytics.finish()
        analytics.check_sequences()
        return await analytics.state(CaseStep, ClockOutcome, Heard, MessageOutcome)
    finally:
        await analytics.stop()


@cache
def without_trouble() -> Any:
    """Return what it comes to where each topic is read once, in order."""
    return asyncio.run(came_to([]))


@settings(max_examples=15)
@given(STEPS)
def test_what_is_counted_depends_on_what_happened_alone(steps: list[Step]) -> None:
    expected = without_trouble()
    assert len(expected) > len(DAY) / 2
    assert asyncio.run(came_to(steps)) == expected
