"""Cases over HTTP: seeing them, and working on them.

An agent may act on the cases that they own or handle, a lead or an admin on all. Only its owner
accepts a case, and only the person that it is offered to accepts or declines a handover. Every
command answers with the case as it is afterwards, its version in the ETag.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query, Response
from pydantic import BaseModel, Field

from rapport.common.errors import FieldProblem, Forbidden, Invalid, NotFound
from rapport.common.events.cases import Subject
from rapport.common.events.envelope import Instant
from rapport.common.events.feedback import Contact
from rapport.common.events.ids import derived_id
from rapport.common.events.vocabulary import ComplaintType, Severity
from rapport.common.http import Command, Cursor, Limit, Router, command, etag, may, page
from rapport.routing.api.shared import Body, ClockView, Line, Name, Routing, Text, clock_view
from rapport.routing.domain.case import Case
from rapport.routing.domain.conversation import Message
from rapport.routing.domain.history import CaseHistory
from rapport.routing.domain.policies import Policies
from rapport.routing.domain.record import Handover, Note, Referral, Reply, State, Via
from rapport.routing.domain.rules import Assignment
from rapport.routing.repository import Resources

router = Router(tags=["cases"])

BY_HAND: Final = "by hand"
"""The rule that a case was opened by when a lead assigned what was only noted."""

CaseId = Annotated[str, Path(max_length=100, description="The case's id.")]

# What is shown


class CaseView(BaseModel):
    """A case as lists show it; `handler` acts now, `messages` counts them all."""

    id: str
    state: State
    about: Subject
    title: str
    excerpt: str
    owner: str | None
    handler: str | None
    team: str | None
    rule: str | None
    escalation: int
    clock: ClockView | None
    crisis_id: str | None
    message_count: int
    began_at: Instant
    opened_at: Instant | None
    closes_at: Instant | None
    exercise: str | None
    historical: bool


class CaseDetail(CaseView):
    """A case with all that those who work on it need."""

    contact: Contact
    messages: list[Message]
    replies: list[Reply]
    notes: list[Note]
    referral: Referral | None
    handover: Handover | None


class CaseList(BaseModel):
    """A page of cases."""

    items: list[CaseView]
    next: str | None


class HistoryEntry(BaseModel):
    """One event of a case, without what is personal."""

    id: str
    type: str
    at: Instant
    data: dict[str, Any]


class HistoryList(BaseModel):
    """A page of a case's history."""

    items: list[HistoryEntry]
    next: str | None


def _view(case: Case) -> dict[str, Any]:
    return {
        "id": case.id,
        "state": case.state,
        "about": case.about,
        "title": case.conversation.title,
        "excerpt": case.conversation.excerpt,
        "owner": case.owner,
        "handler": case.handler,
        "team": case.team,
        "rule": case.rule,
        "escalation": case.escalation,
        "clock": None if case.clock is None else clock_view(case.clock),
        "crisis_id": case.crisis_id,
        "message_count": case.conversation.count,
        "began_at": case.began_at,
        "opened_at": case.opened_at,
        "closes_at": case.closes_at,
        "exercise": case.exercise,
        "historical": case.historical,
    }


def _detail(case: Case) -> CaseDetail:
    return CaseDetail(
        **_view(case),
        contact=case.conversation.contact,
        messages=case.conversation.messages,
        replies=case.replies,
        notes=case.notes,
        referral=case.referral,
        handover=case.handover,
    )


# Seeing


@router.get("/cases", summary="List cases", dependencies=[may("case.read")])
async def list_cases(
    routing: Routing,
    state: Annotated[list[State] | None, Query(max_length=20, description="Any of these.")] = None,
    owner: Annotated[str | None, Query(max_length=100)] = None,
    handler: Annotated[str | None, Query(max_length=100)] = None,
    product: Annotated[str | None, Query(max_length=500)] = None,
    complaint_type: ComplaintType | None = None,
    severity: Severity | None = None,
    crisis_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> CaseList:
    """The newest first; all that is given must hold."""
    wanted = {
        "state": state,
        "owner": owner,
        "handler": handler,
        "product": product,
        "complaint_type": complaint_type,
        "severity": severity,
        "crisis_id": crisis_id,
    }
    where = {field: value for field, value in wanted.items() if value is not None}
    found = await routing.store.find(Case, where, limit=limit, cursor=cursor, newest_first=True)
    return CaseList(**page(found, _view))


@router.get("/cases/{id}", summary="See a case", dependencies=[may("case.read")])
async def get_case(id: CaseId, routing: Routing, response: Response) -> CaseDetail:
    """With its latest messages, replies and notes."""
    case = await _existing(routing, id)
    response.headers.update(etag(case))
    return _detail(case)


@router.get(
    "/cases/{id}/history", summary="See what happened to a case", dependencies=[may("case.read")]
)
async def get_history(
    id: CaseId, routing: Routing, limit: Limit = 50, cursor: Cursor = None
) -> HistoryList:
    """Every event, the oldest first."""
    await _existing(routing, id)
    found = await routing.store.find(CaseHistory, {"case_id": id}, limit=limit, cursor=cursor)
    return HistoryList(**page(found, lambda entry: entry.model_dump(exclude={"case_id"})))


async def _existing(routing: Resources, id: str) -> Case:
    case = await routing.store.get(Case, id)
    if case is None:
        raise NotFound("there is no such case")
    return case


# Working


class Reason(Body):
    """Why."""

    reason: Line = ""


class AssignmentBody(Reason):
    """Who shall own the case."""

    owner: Name


class ReplyBody(Body):
    """An answer: sent by e-mail, or given by phone or in the source's own channel."""

    text: Text
    subject: Annotated[Line | None, Field(description="`Re:` and the title by default.")] = None
    via: Via = "email"


class ReferralBody(Reason):
    """Which team or person shall handle the case, until when (two days by default)."""

    to: Name
    return_by: Instant | None = None


class OutcomeBody(Body):
    """What came of it."""

    outcome: Line = ""


class HandoverBody(Reason):
    """Who shall be asked to own the case."""

    to: Name


class ResolutionBody(Body):
    """The solution."""

    resolution: Text


class NoteBody(Body):
    """A note for colleagues."""

    text: Annotated[Text, Field(max_length=4_000)]


@dataclass(frozen=True, slots=True)
class Work:
    """A caller who wants to change one case."""

    id: str
    command: Command
    policies: Policies
    response: Response

    @property
    def by(self) -> str:
        """The caller's name."""
        return self.command.by.subject

    async def change(self, act: Callable[[Case], None], *, own: bool = True) -> CaseDetail:
        """Let the caller act on the case; `own` where it must be theirs, or they lead."""

        def decide(case: Case | None) -> Case:
            if case is None:
                raise NotFound("there is no such case")
            if own and not self._may_act_on(case):
                raise Forbidden("only who owns or handles the case, or a lead, may do this")
            act(case)
            return case

        case = await self.command.change(Case, self.id, decide)
        self.response.headers.update(etag(case))
        return _detail(case)

    def _may_act_on(self, case: Case) -> bool:
        return self.command.by.may("case.assign") or case.is_in_hands_of(
            self.by, self.policies.teams
        )


def _work(action: str) -> Any:
    def build(
        id: CaseId, wish: Annotated[Command, command(action)], routing: Routing, response: Response
    ) -> Work:
        return Work(id, wish, routing.policies, response)

    return Depends(build)


Working = Annotated[Work, _work("case.work")]
Leading = Annotated[Work, _work("case.assign")]


@router.post("/cases/{id}/acceptance", summary="Accept a case that you own")
async def accept(work: Working) -> CaseDetail:
    """Only its owner accepts a case; again changes nothing."""
    return await work.change(lambda case: case.accept(work.by), own=False)


@router.post("/cases/{id}/assignment", summary="Make somebody the owner")
async def assign(work: Leading, body: AssignmentBody) -> CaseDetail:
    """A case that was only noted is opened by it, and its clock starts."""
    teams = work.policies.teams
    _require(teams.has_person(body.owner), "/owner", "is in no team")

    def act(case: Case) -> None:
        team = teams.team_of(body.owner, case.team)
        if case.state is State.NOTED:
            _open_by_hand(case, Assignment(body.owner, team, BY_HAND), work)
        else:
            case.assign(body.owner, team, work.by, body.reason)

    return await work.change(act)


def _open_by_hand(case: Case, assignment: Assignment, work: Work) -> None:
    at = work.command.at
    clock = work.policies.timing.start(
        "first_response",
        case.about,
        at,
        of="case",
        aggregate_id=case.id,
        channel=case.about.channel,
    )
    case.open(assignment, clock, at)


@router.post("/cases/{id}/replies", summary="Answer the person", status_code=202)
async def reply(work: Working, body: ReplyBody) -> Reply:
    """The first response counts once the answer has been delivered."""
    id = derived_id(work.command.cause, "reply")
    detail = await work.change(
        lambda case: case.reply(id, work.by, body.via, body.text, body.subject, work.command.at)
    )
    return next(reply for reply in detail.replies if reply.id == id)


@router.post("/cases/{id}/referral", summary="Let another team or person handle a case")
async def refer(work: Working, body: ReferralBody) -> CaseDetail:
    """The owner stays the owner; a referral that is not returned in time returns by itself."""
    _require(work.policies.teams.knows(body.to), "/to", "is no team and in no team")
    at = work.command.at
    return_by = body.return_by or at + work.policies.timing.clocks.referral_returns_after
    return await work.change(lambda case: case.refer(body.to, work.by, body.reason, at, return_by))


@router.post("/cases/{id}/referral/return", summary="Return a referred case to its owner")
async def return_referral(work: Working, body: OutcomeBody) -> CaseDetail:
    """With what came of it."""
    return await work.change(lambda case: case.return_referral(body.outcome))


@router.post("/cases/{id}/handover", summary="Offer a case to another owner")
async def offer_handover(work: Working, body: HandoverBody) -> CaseDetail:
    """Until they accept, nothing changes; an offer that nobody answers expires."""
    _require(work.policies.teams.has_person(body.to), "/to", "is in no team")
    expires_at = work.command.at + work.policies.timing.clocks.handover_expires_after
    return await work.change(lambda case: case.offer_handover(body.to, body.reason, expires_at))


@router.post("/cases/{id}/handover/acceptance", summary="Accept a case that you are offered")
async def accept_handover(work: Working) -> CaseDetail:
    """Only the person that it is offered to accepts."""
    teams = work.policies.teams
    return await work.change(
        lambda case: case.accept_handover(work.by, teams.team_of(work.by, case.team)),
        own=False,
    )


@router.post("/cases/{id}/handover/decline", summary="Decline a case that you are offered")
async def decline_handover(work: Working, body: Reason) -> CaseDetail:
    """Only the person that it is offered to declines."""
    return await work.change(lambda case: case.decline_handover(work.by, body.reason), own=False)


@router.post("/cases/{id}/escalation", summary="Bring in the team's lead, then the duty manager")
async def escalate(work: Working, body: Reason) -> CaseDetail:
    """The owner stays the owner."""
    teams = work.policies.teams
    return await work.change(lambda case: case.escalate(teams.ladder(case.team), body.reason))


@router.post("/cases/{id}/resolution", summary="Say that a solution was found and told")
async def resolve(work: Working, body: ResolutionBody) -> CaseDetail:
    """Some days later, by policy, the case closes by itself."""
    closes_at = work.command.at + work.policies.timing.clocks.resolved_closes_after
    return await work.change(lambda case: case.resolve(work.by, body.resolution, closes_at))


@router.post("/cases/{id}/closure", summary="Close a case")
async def close(work: Working) -> CaseDetail:
    """A clock that still runs is cancelled, unless an answer is on its way."""
    return await work.change(lambda case: case.close(work.by, work.command.at))


@router.post("/cases/{id}/reopening", summary="Take a resolved or closed case up again")
async def reopen(work: Working, body: Reason) -> CaseDetail:
    """Its owner has yet to accept it."""
    return await work.change(lambda case: case.reopen(work.by, body.reason))


@router.post("/cases/{id}/notes", summary="Write a note for colleagues")
async def add_note(work: Working, body: NoteBody) -> CaseDetail:
    """The latest 100 are kept."""
    return await work.change(lambda case: case.add_note(work.by, body.text, work.command.at))


def _require(holds: bool, pointer: str, reason: str) -> None:
    if not holds:
        raise Invalid("the request does not fit", [FieldProblem(pointer, reason)])
