"""What the service listens to: what people say, drills, and the order of its releases."""

from typing import Final

from rapport.common.events.cases import CaseClosed
from rapport.common.events.crises import CrisisDeclared, CrisisProposed
from rapport.common.events.envelope import Event
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.events.knowledge import StatementReleased, StatementSuperseded
from rapport.common.handling import Declared, on
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.crises import KnownCrisis
from rapport.knowledge.domain.in_force import InForce
from rapport.knowledge.domain.statements import Statement


def _live_case(event: Event[FeedbackReceived] | Event[CaseClosed]) -> str | None:
    """Nobody needs suggestions for what is only counted."""
    return None if event.historical else event.data.case_id


@on(FeedbackReceived, changes=CaseText, key=_live_case)
def hear(text: CaseText | None, event: Event[FeedbackReceived]) -> CaseText | None:
    """A case's latest words are what its suggestions are found with."""
    return (text or CaseText(id=event.data.case_id)).hear(event.data)


@on(CaseClosed, changes=CaseText, key=_live_case)
def forget(text: CaseText | None, event: Event[CaseClosed]) -> CaseText | None:
    """A closed case's words are forgotten, also those that are heard of too late."""
    return (text or CaseText(id=event.data.case_id)).forget(event.time)


@on(CrisisProposed, changes=KnownCrisis, key=lambda event: event.data.crisis_id)
def know(crisis: KnownCrisis | None, event: Event[CrisisProposed]) -> KnownCrisis | None:
    """A statement about a drill's crisis will belong to the drill."""
    return KnownCrisis(id=event.data.crisis_id) if crisis is None else None


@on(CrisisDeclared, changes=KnownCrisis, key=lambda event: event.data.crisis_id)
def begin(crisis: KnownCrisis | None, event: Event[CrisisDeclared]) -> KnownCrisis | None:
    """What is said about a crisis is said after its declaration."""
    known = crisis or KnownCrisis(id=event.data.crisis_id)
    if known.declared_at is not None:
        return None
    known.declared_at = event.data.declared_at
    return known


@on(StatementReleased, changes=InForce, key=lambda event: InForce.key(event.data))
def take_place(line: InForce | None, event: Event[StatementReleased]) -> InForce | None:
    """A released statement takes the place of the one before, for the same crisis and purpose."""
    if line is None:
        return InForce.begin(event.data, event.time)
    return line.hear(event.data, event.time)


@on(StatementSuperseded, changes=Statement, key=lambda event: event.data.statement_id)
def supersede(statement: Statement | None, event: Event[StatementSuperseded]) -> Statement | None:
    """A statement whose place was taken is in force no more."""
    return None if statement is None else statement.supersede(event.data.superseded_by)


DECLARED: Final[list[Declared]] = [hear, forget, know, begin, take_place, supersede]
