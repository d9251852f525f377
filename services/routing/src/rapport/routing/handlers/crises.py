"""What crises do: a signal proposes one, cases are asked to link, statements and coverage count."""

from collections.abc import Mapping, Sequence
from typing import Final

from rapport.common.aggregate import Due
from rapport.common.events.analytics import SignalDetected
from rapport.common.events.communications import CommunicationReviewed
from rapport.common.events.envelope import Event
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import StatementReleased
from rapport.common.events.vocabulary import Severity
from rapport.common.handling import Declared, due, on
from rapport.routing.domain.crisis import Crisis
from rapport.routing.repository import (
    MatchingCases,
    Resources,
    active_crises,
    crises_on_the_table,
    matching_cases,
)


async def crises(_: Sequence[Event[SignalDetected]], resources: Resources) -> Sequence[Crisis]:
    """Read which matters are a crisis, or may be one, already."""
    return await crises_on_the_table(resources.store)


@on(
    SignalDetected,
    changes=Crisis,
    key=lambda event: derived_id("crisis", event.data.signal_id),
    prepare=crises,
)
def propose(
    crisis: Crisis | None, event: Event[SignalDetected], on_the_table: Sequence[Crisis]
) -> Crisis | None:
    """Something stands out: propose a crisis, unless there is one about the same matter."""
    if crisis is not None or event.historical:
        return None
    id = derived_id("crisis", event.data.signal_id)
    proposed = Crisis.from_signal(id, event.data, Severity.HIGH)
    same_drill = (item for item in on_the_table if item.exercise == event.exercise)
    return None if any(item.covers(proposed.criteria) for item in same_drill) else proposed


@on(StatementReleased, changes=Crisis, key=lambda event: event.data.crisis_id)
def hold(crisis: Crisis | None, event: Event[StatementReleased]) -> Crisis | None:
    """A holding statement meets the clock that the declaration started."""
    if crisis is None or event.data.purpose != "holding":
        return None
    return crisis if crisis.hold(event.time) else None


@on(CommunicationReviewed, changes=Crisis, key=lambda event: event.data.crisis_id)
def stand_down(crisis: Crisis | None, event: Event[CommunicationReviewed]) -> Crisis | None:
    """The coverage decides whether a crisis may end."""
    told = event.data
    if crisis is None or not crisis.answer_stand_down(told.request_id, told.coverage, event.time):
        return None
    return crisis


async def cases_to_link(
    ready: Sequence[Crisis], resources: Resources
) -> Mapping[str, MatchingCases]:
    """Read the next page of matching cases for each crisis that looks for some."""
    store = resources.store
    active = frozenset(crisis.id for crisis in await active_crises(store))
    return {crisis.id: await matching_cases(store, crisis, active) for crisis in ready}


@due(Crisis, prepare=cases_to_link)
def keep_time(crisis: Crisis, item: Due, found: Mapping[str, MatchingCases]) -> Crisis:
    """Ask a page of cases to link themselves, or let a clock warn or be breached."""
    if item.name.startswith("link:"):
        page = found[crisis.id]
        crisis.link_page(page.cases, page.next, item.at)
    else:
        crisis.pass_clock_step(item)
    return crisis


DECLARED: Final[list[Declared]] = [propose, hold, stand_down, keep_time]
