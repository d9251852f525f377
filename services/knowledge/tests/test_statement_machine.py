"""Whatever people do in whatever order: nothing goes out that the groups did not agree to."""

from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rapport.common.errors import PermanentError
from rapport.common.events.knowledge import StatementReleased, StatementSubmitted, Wording
from rapport.common.events.vocabulary import Language
from rapport.common.testing import MORNING
from rapport.knowledge.domain.approvals import ApprovalRules, Requirement
from rapport.knowledge.domain.statements import State, Statement
from rapport.knowledge.domain.wording import statement_hash

from .sayings import EN, FA, draft

QUORUM = {"pr": 1, "legal": 1}
RULES = ApprovalRules.model_validate(
    {
        "groups": {"pr": ["ann", "bob", "cy"], "legal": ["bob", "dee"]},
        "purposes": {
            purpose: {"quorum": QUORUM, "languages": ["en", "fa"]}
            for purpose in ("holding", "update", "closing", "proactive")
        },
    }
)
authors = st.sampled_from(["eve", "ann"])
people = st.sampled_from(["ann", "bob", "cy", "dee", "eve"])
groups = st.sampled_from(["pr", "legal"])


class LifeOfAStatement(RuleBasedStateMachine):
    """Keeps its own account of who wrote, and who agreed to which hash since the submission."""

    def __init__(self) -> None:
        super().__init__()
        self.statement = Statement(id="s", draft=draft(), authors=["eve"], created_at=MORNING)
        self.writers = {"eve"}
        self.agreed: dict[str, str] = {}
        self.submitted: dict[Language, Wording] = {}
        self.glass_broken = False

    @rule(by=authors, text=st.sampled_from(["It leaks.", "It leaks a lot.", "It is fine."]))
    def write(self, by: str, text: str) -> None:
        before = self.statement.draft
        with suppress(PermanentError):
            Statement.write(self.statement, "s", draft(text=text), by, MORNING)
        if self.statement.draft != before:
            self.writers.add(by)

    @rule(by=authors)
    def write_a_stale_translation(self, by: str) -> None:
        written = draft(text="The English has changed.")
        old = draft().wordings[FA]
        stale = written.model_copy(update={"wordings": written.wordings | {FA: old}})
        with suppress(PermanentError):
            Statement.write(self.statement, "s", stale, by, MORNING)
            self.writers.add(by)

    @rule(by=authors)
    def submit(self, by: str) -> None:
        with suppress(PermanentError):
            self.statement.submit(by, RULES.purposes["holding"])
            self.writers.add(by)
            self.agreed = {}
            self.submitted = self.statement.draft.released

    @precondition(lambda self: self.statement.hash is not None)
    @rule(by=people, group=groups)
    def approve(self, by: str, group: str) -> None:
        with suppress(PermanentError):
            hash = self.statement.hash or ""
            if self.statement.approve(by, group, hash, MORNING, RULES) is not None:
                assert RULES.has(group, by)
                assert by not in self.writers
                assert by not in self.agreed
                self.agreed[by] = group

    @rule(by=people, group=groups)
    def approve_other_bytes(self, by: str, group: str) -> None:
        with pytest.raises(PermanentError):
            self.statement.approve(by, group, "0" * 64, MORNING, RULES)

    @precondition(lambda self: self.statement.approvals)
    @rule(by=people)
    def reject(self, by: str) -> None:
        with suppress(PermanentError):
            self.statement.reject(by, "no", RULES)

    @rule(by=people)
    def release(self, by: str) -> None:
        with suppress(PermanentError):
            self.statement.release(by, MORNING)

    @precondition(lambda self: len(self.statement.emitted) > 4)
    @rule(by=people)
    def break_the_glass(self, by: str) -> None:
        with suppress(PermanentError):
            self.statement.release(by, MORNING, "it burns")
            self.glass_broken = True

    @rule()
    def supersede(self) -> None:
        with suppress(PermanentError):
            self.statement.supersede("later")

    @invariant()
    def what_is_said_was_agreed_to_by_the_quorum(self) -> None:
        releases = [item for item in self.statement.emitted if isinstance(item, StatementReleased)]
        assert len(releases) <= 1
        for released in releases:
            reached = set(self.agreed.values()) == {"pr", "legal"}
            assert reached or (self.glass_broken and released.break_glass == "it burns")

    @invariant()
    def what_is_said_is_what_was_submitted(self) -> None:
        for released in self.statement.emitted:
            if isinstance(released, StatementReleased):
                assert released.wordings == self.submitted
                assert released.hash == statement_hash(self.submitted)

    @invariant()
    def only_whole_and_current_translations_are_submitted(self) -> None:
        if self.statement.state in (State.SUBMITTED, State.APPROVED, State.RELEASED):
            assert self.statement.draft.stale == []
            assert {EN, FA} <= self.statement.draft.wordings.keys()

    @invariant()
    def the_state_says_whether_approvals_are_missing(self) -> None:
        assert (self.statement.state is State.SUBMITTED) <= bool(self.statement.missing)
        assert (self.statement.state is State.APPROVED) <= (not self.statement.missing)

    @invariant()
    def the_quorum_is_the_one_of_the_submission(self) -> None:
        asked = [item for item in self.statement.emitted if isinstance(item, StatementSubmitted)]
        if asked:
            assert self.statement.quorum == asked[-1].quorum == QUORUM


LifeOfAStatement.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestLifeOfAStatement = LifeOfAStatement.TestCase


def test_a_change_of_policy_does_not_reach_what_was_submitted_before() -> None:
    statement = Statement(id="s", draft=draft(), authors=["eve"], created_at=MORNING)
    statement.submit("eve", RULES.purposes["holding"])
    laxer = RULES.model_copy(
        update={"purposes": {"holding": Requirement(quorum={"pr": 1}, languages=(EN,))}}
    )
    statement.approve("ann", "pr", statement.hash or "", MORNING, laxer)
    assert (statement.state, statement.missing) == (State.SUBMITTED, {"legal": 1})
