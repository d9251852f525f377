"""Statements: what the company says, with whose agreement, to the letter.

Authors write a draft; submitting it fixes its bytes by a hash and the quorum by the policy.
Approvers of each group, never an author, approve that hash; with every quorum reached it can be
released, and what goes out is what was approved (A3). In an emergency an administrator breaks the
glass: a submitted statement goes out without its quorum, and the event says why.
"""

from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, Field

from rapport.common.aggregate import Aggregate
from rapport.common.errors import Conflict, Forbidden
from rapport.common.events.envelope import Instant
from rapport.common.events.knowledge import (
    Purpose,
    StatementApprovalRecorded,
    StatementApproved,
    StatementRejected,
    StatementReleased,
    StatementSubmitted,
)
from rapport.common.events.topics import KNOWLEDGE, Topic
from rapport.knowledge.domain.approvals import ApprovalRules, Requirement
from rapport.knowledge.domain.wording import Draft, statement_hash


class State(StrEnum):
    """Where a statement is in its life."""

    DRAFT = "draft"
    """Being written."""
    SUBMITTED = "submitted"
    """Waiting for approvals; its bytes are fixed."""
    APPROVED = "approved"
    """Every quorum is reached."""
    REJECTED = "rejected"
    """An approver said no; its authors may write again."""
    RELEASED = "released"
    """Said, and in force."""
    SUPERSEDED = "superseded"
    """Said, and replaced by a later one."""


WRITABLE: Final = (State.DRAFT, State.REJECTED)
DECIDABLE: Final = (State.SUBMITTED, State.APPROVED)


class Approval(BaseModel):
    """Somebody's agreement, given for a group."""

    by: str
    group: str
    at: Instant


class Statement(Aggregate):
    """One statement in all its languages; see the module's docstring."""

    COLLECTION: ClassVar[str] = "statements"
    TOPIC: ClassVar[Topic | None] = KNOWLEDGE
    ORDER: ClassVar[str] = "created_at"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("state",),
        ("purpose",),
        ("crisis_id",),
        ("created_at",),
    )

    draft: Draft
    authors: list[str]
    created_at: Instant
    state: State = State.DRAFT
    hash: str | None = None
    quorum: dict[str, int] = Field(default_factory=dict)
    approvals: list[Approval] = Field(default_factory=list)
    rejection: str | None = None
    released_at: Instant | None = None
    released_by: str | None = None
    break_glass: str | None = None
    superseded_by: str | None = None

    @property
    def purpose(self) -> Purpose:
        """What it is for."""
        return self.draft.purpose

    @property
    def crisis_id(self) -> str | None:
        """The crisis that it is about."""
        return self.draft.crisis_id

    @property
    def missing(self) -> dict[str, int]:
        """How many approvals each group still owes."""
        given = Counter(approval.group for approval in self.approvals)
        return {
            group: count - given[group]
            for group, count in self.quorum.items()
            if given[group] < count
        }

    @classmethod
    def write(
        cls, current: Self | None, id: str, draft: Draft, by: str, at: datetime
    ) -> Self | None:
        """Return the statement with `draft` as its words, and whoever wrote them as an author.

        None where nothing would change. Raises Conflict once it has been submitted, until it is
        rejected.
        """
        if current is None:
            return cls(id=id, draft=draft, authors=[by], created_at=at)
        current._require(WRITABLE, "its words are fixed")
        if current.draft == draft and current.state is State.DRAFT:
            return None
        current.state, current.draft = State.DRAFT, draft
        current._add_author(by)
        return current

    def submit(self, by: str, requirement: Requirement) -> Self:
        """Ask for approval of these words; who asks is an author, too.

        Raises Conflict where a required language is missing or a translation is stale.
        """
        self._require(WRITABLE, "it has been submitted")
        if missing := sorted(set(requirement.languages) - self.draft.wordings.keys()):
            raise Conflict(f"a {self.purpose} statement also needs: {', '.join(missing)}")
        if stale := self.draft.stale:
            raise Conflict(
                f"not a translation of the {self.draft.source_language} wording as it is now: "
                f"{', '.join(stale)}"
            )
        self._add_author(by)
        self.state = State.SUBMITTED
        self.hash = statement_hash(self.draft.released)
        self.quorum = dict(requirement.quorum)
        self.approvals, self.rejection = [], None
        self.emit(
            StatementSubmitted(
                **self._facts(), by=by, quorum=self.quorum, languages=tuple(self.draft.released)
            )
        )
        return self

    def approve(
        self, by: str, group: str, hash: str, at: datetime, rules: ApprovalRules
    ) -> Self | None:
        """Record that `by` agrees, for `group`, to the bytes with this hash; None if done before.

        A person counts once, whatever groups they belong to. Raises Forbidden for an author or a
        stranger to the group, Conflict for other bytes.
        """
        self._require(DECIDABLE, "there is nothing to approve")
        if by in self.authors:
            raise Forbidden("an author cannot approve their own statement")
        self._require_approver(by, group, rules)
        if hash != self.hash:
            raise Conflict("these are not the words that were submitted")
        before = next((approval for approval in self.approvals if approval.by == by), None)
        if before is not None and before.group != group:
            raise Conflict(f"a person counts once, and has approved for {before.group}")
        if before is not None:
            return None
        self.approvals.append(Approval(by=by, group=group, at=at))
        self.emit(StatementApprovalRecorded(**self._facts(), by=by, group=group))
        if self.state is State.SUBMITTED and not self.missing:
            self.state = State.APPROVED
            approvers = tuple(approval.by for approval in self.approvals)
            self.emit(StatementApproved(**self._facts(), approvals=approvers))
        return self

    def reject(self, by: str, reason: str, rules: ApprovalRules) -> Self:
        """Send it back to its authors, up to the moment of its release.

        Raises Forbidden for somebody who is in none of the groups that are asked.
        """
        self._require(DECIDABLE, "there is nothing to reject")
        if not any(rules.has(group, by) for group in self.quorum):
            raise Forbidden("only an approver of a group that is asked can reject it")
        self.state, self.rejection = State.REJECTED, reason
        self.emit(StatementRejected(**self._facts(), by=by, reason=reason))
        return self

    def release(self, by: str, at: datetime, break_glass: str | None = None) -> Self:
        """Say it, to the byte as approved; `break_glass` is why it goes out without its quorum.

        Raises Conflict where approvals are missing, or where these are not the approved bytes.
        """
        self._require(DECIDABLE, "only an approved statement is released")
        if self.missing and break_glass is None:
            owed = ", ".join(f"{count} of {group}" for group, count in self.missing.items())
            raise Conflict(f"approvals are missing: {owed}")
        wordings = self.draft.released
        if statement_hash(wordings) != self.hash:
            raise Conflict("these are not the words that were approved")
        self.break_glass = break_glass if self.missing else None
        self.state, self.released_at, self.released_by = State.RELEASED, at, by
        self.emit(
            StatementReleased(
                **self._facts(),
                by=by,
                wordings=wordings,
                groups=self.draft.groups,
                break_glass=self.break_glass,
            )
        )
        return self

    def supersede(self, superseded_by: str) -> Self | None:
        """Note that a later statement has taken its place; None where that is known."""
        if self.superseded_by == superseded_by:
            return None
        self._require((State.RELEASED,), "it is not in force")
        self.state, self.superseded_by = State.SUPERSEDED, superseded_by
        return self

    def _facts(self) -> dict[str, Any]:
        return {
            "statement_id": self.id,
            "hash": self.hash,
            "purpose": self.purpose,
            "crisis_id": self.crisis_id,
        }

    def _add_author(self, by: str) -> None:
        if by not in self.authors:
            self.authors.append(by)

    def _require(self, states: tuple[State, ...], otherwise: str) -> None:
        if self.state not in states:
            raise Conflict(f"{otherwise}: the statement is {self.state}")

    def _require_approver(self, by: str, group: str, rules: ApprovalRules) -> None:
        if group not in self.quorum or not rules.has(group, by):
            raise Forbidden("only members of the groups that are asked can approve for them")
