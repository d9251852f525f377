"""Crises over HTTP: proposing, declaring, leading and ending them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from rapport.common.errors import NotFound
from rapport.common.events.crises import Coverage, Criteria
from rapport.common.events.envelope import Instant
from rapport.common.events.ids import derived_id
from rapport.common.events.vocabulary import Severity
from rapport.common.http import Command, Cursor, Limit, Router, command, etag, may, page
from rapport.routing.api.shared import Body, ClockView, Line, Routing, Text, clock_view
from rapport.routing.domain.case import Case
from rapport.routing.domain.crisis import Crisis, CrisisState, Entry, promised
from rapport.routing.repository import Resources, active_crises

router = Router(tags=["crises"])

CrisisId = Annotated[str, Path(max_length=100, description="The crisis's id.")]


# What is shown


class CrisisView(BaseModel):
    """A crisis as lists show it; `coverage` is what the last stand-down request was told."""

    id: str
    state: CrisisState
    title: str
    criteria: Criteria
    severity: Severity
    reason: str
    signal_id: str | None
    proposed_at: Instant
    declared_at: Instant | None
    ended_at: Instant | None
    clocks: list[ClockView]
    coverage: Coverage | None
    exercise: str | None


class CrisisDetail(CrisisView):
    """A crisis with its log and the number of cases that belong to it."""

    entries: list[Entry]
    cases: int


class CrisisList(BaseModel):
    """A page of crises."""

    items: list[CrisisView]
    next: str | None


def _view(crisis: Crisis) -> dict[str, Any]:
    shown = {name: getattr(crisis, name) for name in CrisisView.model_fields if name != "clocks"}
    return {**shown, "clocks": [clock_view(clock) for clock in crisis.clocks.values()]}


async def _detail(routing: Resources, crisis: Crisis) -> CrisisDetail:
    [counted] = await routing.store.tally(Case, where={"crisis_id": crisis.id})
    return CrisisDetail(**_view(crisis), entries=crisis.entries, cases=counted.count)


@router.get("/crises", summary="List crises", dependencies=[may("crisis.read")])
async def list_crises(
    routing: Routing,
    state: Annotated[
        list[CrisisState] | None, Query(max_length=20, description="Any of these.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> CrisisList:
    """The newest first."""
    where = {} if state is None else {"state": state}
    found = await routing.store.find(Crisis, where, limit=limit, cursor=cursor, newest_first=True)
    return CrisisList(**page(found, _view))


@router.get("/crises/{id}", summary="See a crisis", dependencies=[may("crisis.read")])
async def get_crisis(id: CrisisId, routing: Routing, response: Response) -> CrisisDetail:
    """With its log, its clocks and how many cases belong to it."""
    crisis = await routing.store.get(Crisis, id)
    if crisis is None:
        raise NotFound("there is no such crisis")
    response.headers.update(etag(crisis))
    return await _detail(routing, crisis)


# Leading


Named = Annotated[Line, Field(min_length=1)]


class CriteriaBody(Criteria):
    """Which cases belong to it; a field that is none of these is refused, not passed over."""

    model_config = ConfigDict(extra="forbid")

    product: Named | None = None
    brand: Named | None = None
    region: Named | None = None

    @property
    def criteria(self) -> Criteria:
        """The criteria as events carry them."""
        return Criteria(**dict(self))


class CrisisBody(Body):
    """A matter that may be a crisis."""

    title: Annotated[Line, Field(min_length=1)]
    criteria: CriteriaBody
    severity: Severity = Severity.HIGH
    reason: Line = ""


class DeclarationBody(Body):
    """What to declare instead of what was proposed; nothing keeps the proposal."""

    title: Line | None = None
    criteria: CriteriaBody | None = None
    severity: Severity | None = None


class DismissalBody(Body):
    """Why it is no crisis."""

    reason: Line = ""


class UpdateBody(Body):
    """How it stands, and when the next update is promised."""

    text: Text
    next_update_at: Instant | None = None


class TextBody(Body):
    """A decision, or the review."""

    text: Text


class LinkBody(Body):
    """A case that belongs to the crisis, or that does not after all."""

    case_id: Annotated[str, Field(min_length=1, max_length=100)]
    belongs: bool = True


class LinkView(BaseModel):
    """What a case belongs to afterwards."""

    case_id: str
    crisis_id: str | None


@dataclass(frozen=True, slots=True)
class Lead:
    """A caller who leads one crisis."""

    id: str
    command: Command
    routing: Resources
    response: Response

    @property
    def by(self) -> str:
        """The caller's name."""
        return self.command.by.subject

    async def change(self, act: Callable[[Crisis], None]) -> CrisisDetail:
        """Let the caller act on the crisis."""

        def decide(crisis: Crisis | None) -> Crisis:
            if crisis is None:
                raise NotFound("there is no such crisis")
            act(crisis)
            return crisis

        crisis = await self.command.change(Crisis, self.id, decide)
        self.response.headers.update(etag(crisis))
        return await _detail(self.routing, crisis)


def _lead(
    id: CrisisId,
    wish: Annotated[Command, command("crisis.lead")],
    routing: Routing,
    response: Response,
) -> Lead:
    return Lead(id, wish, routing, response)


Leading = Annotated[Lead, Depends(_lead)]


@router.post("/crises", status_code=201, summary="Propose a crisis")
async def propose(
    body: CrisisBody,
    wish: Annotated[Command, command("crisis.propose")],
    routing: Routing,
    response: Response,
) -> CrisisDetail:
    """By hand, where no signal has; somebody has yet to declare it."""
    id = derived_id("crisis", wish.cause)

    def decide(crisis: Crisis | None) -> Crisis | None:
        if crisis is not None:
            return None
        return Crisis(id=id, proposed_at=wish.at, **body.model_dump()).proposed(wish.by.subject)

    crisis = await wish.change(Crisis, id, decide)
    response.headers.update(etag(crisis))
    return await _detail(routing, crisis)


@router.post("/crises/{id}/declaration", summary="Declare a crisis")
async def declare(body: DeclarationBody, lead: Leading) -> CrisisDetail:
    """Cases that match link themselves, and the clock of the holding statement starts."""

    def act(crisis: Crisis) -> None:
        crisis.title = body.title or crisis.title
        crisis.criteria = body.criteria.criteria if body.criteria else crisis.criteria
        crisis.severity = body.severity or crisis.severity
        clock = lead.routing.policies.timing.start(
            "holding_statement",
            {"severity": crisis.severity},
            lead.command.at,
            of="crisis",
            aggregate_id=crisis.id,
        )
        crisis.declare(lead.by, lead.command.at, clock)

    return await lead.change(act)


@router.post("/crises/{id}/dismissal", summary="Dismiss a proposal")
async def dismiss(body: DismissalBody, lead: Leading) -> CrisisDetail:
    """It is no crisis."""
    return await lead.change(lambda crisis: crisis.dismiss(lead.by, body.reason, lead.command.at))


@router.post("/crises/{id}/updates", summary="Tell everyone concerned how it stands")
async def update(body: UpdateBody, lead: Leading) -> CrisisDetail:
    """A promised next update is a clock that warns and is breached like any other."""
    at = lead.command.at
    due = promised(body.next_update_at, at)
    timing = lead.routing.policies.timing
    clock = (
        None
        if due is None
        else timing.promise("next_update", due, at, of="crisis", aggregate_id=lead.id)
    )
    return await lead.change(lambda crisis: crisis.update(lead.by, body.text, at, clock))


@router.post("/crises/{id}/decisions", summary="Put a decision on record")
async def decide(body: TextBody, lead: Leading) -> CrisisDetail:
    """Who decided what, and when."""
    return await lead.change(lambda crisis: crisis.decide(lead.by, body.text, lead.command.at))


@router.post("/crises/{id}/cases", summary="Link a case by hand, or unlink it")
async def link(body: LinkBody, lead: Leading) -> LinkView:
    """For cases that the criteria do not find, or find by mistake."""
    active = {crisis.id: crisis for crisis in await active_crises(lead.routing.store)}
    crisis = active.get(lead.id)
    if crisis is None:
        raise NotFound("there is no such crisis, or it is not on")

    def act(case: Case | None) -> Case | None:
        if case is None:
            raise NotFound("there is no such case")
        if body.belongs:
            return case if case.link_by_hand(crisis.id, crisis.exercise, active) else None
        return case if case.unlink(lead.id, lead.by) else None

    case = await lead.command.change(Case, body.case_id, act)
    return LinkView(case_id=case.id, crisis_id=case.crisis_id)


@router.post("/crises/{id}/stand-down", status_code=202, summary="Ask to end a crisis")
async def stand_down(lead: Leading) -> CrisisDetail:
    """The coverage decides: `stood_down`, or `declared` again with the reason in its log."""
    request = derived_id("stand-down", lead.command.cause)
    return await lead.change(
        lambda crisis: crisis.request_stand_down(request, lead.by, lead.command.at)
    )


@router.post("/crises/{id}/review", summary="Put the post-incident review on record")
async def review(body: TextBody, lead: Leading) -> CrisisDetail:
    """Once it is over."""
    return await lead.change(lambda crisis: crisis.review(lead.by, body.text, lead.command.at))
