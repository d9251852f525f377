"""/statements: drafts, their approval, and what was said."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict

from rapport.common.errors import Conflict, FieldProblem, Invalid, NotFound
from rapport.common.events.envelope import Instant
from rapport.common.events.knowledge import Purpose
from rapport.common.events.vocabulary import Language
from rapport.common.http import Command, Cursor, Limit, Router, command, etag, page
from rapport.knowledge.api.shared import PREFIX, Given, Id, Listing, Reader, Resources
from rapport.knowledge.domain.in_force import time_of_release
from rapport.knowledge.domain.statements import Approval, State, Statement
from rapport.knowledge.domain.wording import Digest, Draft, Variant
from rapport.knowledge.domain.words import Name, Text

router = Router(prefix="/statements", tags=["statements"])

Author = Annotated[Command, command("statement.write")]
Approver = Annotated[Command, command("statement.approve")]
Releaser = Annotated[Command, command("statement.release")]


class ApprovalBody(BaseModel):
    """Agreement, for a group, to the bytes with this hash."""

    model_config = ConfigDict(extra="forbid")

    hash: Digest
    group: Name


class RejectionBody(BaseModel):
    """Why not."""

    model_config = ConfigDict(extra="forbid")

    reason: Text


class ReleaseBody(BaseModel):
    """`break_glass` is why it cannot wait for its approvals."""

    model_config = ConfigDict(extra="forbid")

    break_glass: Text | None = None


class VariantView(BaseModel):
    """The words in one language; a translation of them names their `hash`."""

    subject: str
    text: str
    translates: str | None
    hash: str

    @classmethod
    def of(cls, variant: Variant) -> "VariantView":
        """Show the words in one language."""
        return cls(**dict(variant), hash=variant.hash)


class StatementView(BaseModel):
    """A statement; `hash` is what to approve, `missing` the approvals that groups still owe."""

    id: str
    state: State
    purpose: Purpose
    crisis_id: str | None
    groups: tuple[str, ...]
    source_language: Language
    wordings: dict[Language, VariantView]
    stale: list[Language]
    hash: str | None
    authors: list[str]
    quorum: dict[str, int]
    missing: dict[str, int]
    approvals: list[Approval]
    rejection: str | None
    created_at: Instant
    released_at: Instant | None
    released_by: str | None
    break_glass: str | None
    superseded_by: str | None

    @classmethod
    def of(cls, statement: Statement) -> "StatementView":
        """Show a statement."""
        draft = statement.draft
        wordings = {language: VariantView.of(words) for language, words in draft.wordings.items()}
        return cls(
            id=statement.id,
            state=statement.state,
            purpose=draft.purpose,
            crisis_id=draft.crisis_id,
            groups=draft.groups,
            source_language=draft.source_language,
            wordings=wordings,
            stale=draft.stale,
            hash=statement.hash,
            authors=statement.authors,
            quorum=statement.quorum,
            missing=statement.missing,
            approvals=statement.approvals,
            rejection=statement.rejection,
            created_at=statement.created_at,
            released_at=statement.released_at,
            released_by=statement.released_by,
            break_glass=statement.break_glass,
            superseded_by=statement.superseded_by,
        )


@router.get("", summary="List statements, the newest first", response_model=Listing[StatementView])
async def find(
    reader: Reader,
    given: Given,
    state: Annotated[State | None, Query(description="Only in this state.")] = None,
    purpose: Annotated[Purpose | None, Query(description="Only for this purpose.")] = None,
    crisis_id: Annotated[Name | None, Query(description="Only about this crisis.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Any:
    """List statements in any state, or in one."""
    where = {"state": state, "purpose": purpose, "crisis_id": crisis_id}
    return page(
        await given.repository.newest(Statement, where, limit=limit, cursor=cursor),
        StatementView.of,
    )


@router.post("", summary="Draft a statement", status_code=201)
async def create(draft: Draft, wish: Author, given: Given, response: Response) -> StatementView:
    """Write a draft under an id of its own; a repeat with the same key is the same statement."""
    response.headers["Location"] = f"{PREFIX}/statements/{wish.cause}"
    return await _write(wish.cause, draft, wish, given, response)


@router.get("/{id}", summary="Read a statement")
async def read(id: Id, reader: Reader, given: Given, response: Response) -> StatementView:
    """Return a statement as it is now."""
    return _view(await given.repository.one(Statement, id), response)


@router.put("/{id}", summary="Write a draft")
async def put(
    id: Id, draft: Draft, wish: Author, given: Given, response: Response
) -> StatementView:
    """Write the draft, or write it anew; once submitted, only after a rejection."""
    return await _write(id, draft, wish, given, response)


@router.post("/{id}/submission", summary="Ask for approval")
async def submit(id: Id, wish: Author, given: Given, response: Response) -> StatementView:
    """Fix the bytes and the quorum; refused without every language, each translation current."""

    def decide(statement: Statement) -> Statement:
        return statement.submit(wish.by.subject, given.approvals.purposes[statement.purpose])

    return _view(await _change(id, wish, decide), response)


@router.post("/{id}/approvals", summary="Approve")
async def approve(
    id: Id, body: ApprovalBody, wish: Approver, given: Given, response: Response
) -> StatementView:
    """Agree to the bytes with this hash, for a group; an author cannot."""

    def decide(statement: Statement) -> Statement | None:
        return statement.approve(wish.by.subject, body.group, body.hash, wish.at, given.approvals)

    return _view(await _change(id, wish, decide), response)


@router.post("/{id}/rejection", summary="Reject")
async def reject(
    id: Id, body: RejectionBody, wish: Approver, given: Given, response: Response
) -> StatementView:
    """Send it back to its authors with a reason."""

    def decide(statement: Statement) -> Statement:
        return statement.reject(wish.by.subject, body.reason, given.approvals)

    return _view(await _change(id, wish, decide), response)


@router.post("/{id}/release", summary="Release")
async def release(
    id: Id, wish: Releaser, given: Given, response: Response, body: ReleaseBody | None = None
) -> StatementView:
    """Say it: to everyone linked to its crisis, and to its stakeholder groups.

    An administrator can release a submitted statement without its approvals, with a reason that
    stays on record (`break_glass`).
    """
    reason = None if body is None else body.break_glass
    if reason is not None:
        wish.by.require("statement.break_glass")
    statement = await given.repository.one(Statement, id)
    in_force = await given.repository.in_force_beside(statement)
    at = time_of_release(wish.at, in_force, await given.repository.declared_at(statement))

    def decide(statement: Statement) -> Statement:
        return statement.release(wish.by.subject, at, reason)

    released = await _change(id, replace(wish, at=at), decide)
    given.catalogue.show([released])
    return _view(released, response)


async def _write(
    id: str, draft: Draft, wish: Command, given: Resources, response: Response
) -> StatementView:
    """Write a draft; what is about a drill's crisis belongs to the drill, and stays in it."""
    exercise = await _exercise_of(draft.crisis_id, given)

    def decide(current: Statement | None) -> Statement | None:
        if current is not None and current.exercise != exercise:
            raise Conflict("a drill's statement and the real thing do not mix")
        return Statement.write(current, id, draft, wish.by.subject, wish.at)

    return _view(await wish.change(Statement, id, decide, exercise=exercise), response)


async def _exercise_of(crisis_id: str | None, given: Resources) -> str | None:
    """Return the drill that a crisis belongs to, None for the real thing.

    Raises Invalid for a crisis that knowledge has not heard of.
    """
    if crisis_id is None:
        return None
    crisis = await given.repository.crisis(crisis_id)
    if crisis is None:
        unknown = FieldProblem("/crisis_id", "no such crisis is known here (yet)")
        raise Invalid("the request does not fit", [unknown])
    return crisis.exercise


async def _change(
    id: str, wish: Command, decide: Callable[[Statement], Statement | None]
) -> Statement:
    """Apply a decision on a statement that is there; raises NotFound."""

    def existing(current: Statement | None) -> Statement | None:
        if current is None:
            raise NotFound("there is no such statement")
        return decide(current)

    return await wish.change(Statement, id, existing)


def _view(statement: Statement, response: Response) -> StatementView:
    response.headers.update(etag(statement))
    return StatementView.of(statement)
