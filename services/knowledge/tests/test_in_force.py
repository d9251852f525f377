"""Of the statements for one crisis and purpose, the one released last is in force."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from rapport.common.events.knowledge import StatementReleased, StatementSuperseded
from rapport.common.testing import MORNING
from rapport.knowledge.domain.in_force import InForce

RELEASES = [
    StatementReleased(
        statement_id=id,
        hash=id * 64,
        purpose="update",
        crisis_id="kettles",
        by="anna",
        wordings={},
        groups=(),
    )
    for id in "abcdef"
]


@given(st.lists(st.sampled_from(range(6)), min_size=1), st.permutations(range(6)))
def test_in_whatever_order_and_however_often_releases_are_heard_of(
    first: list[int], rest: list[int]
) -> None:
    heard = first + rest
    at = [MORNING + timedelta(minutes=number // 2) for number in range(6)]
    line = InForce.begin(RELEASES[heard[0]], at[heard[0]])
    for number in heard[1:]:
        line.hear(RELEASES[number], at[number])

    superseded = [item for item in line.emitted if isinstance(item, StatementSuperseded)]
    assert line.latest.statement_id == "f"
    assert sorted(item.statement_id for item in superseded) == ["a", "b", "c", "d", "e"]
    assert all(item.statement_id < item.superseded_by for item in superseded)
    assert all(item.hash == item.statement_id * 64 for item in superseded)


def test_each_crisis_and_purpose_has_its_own_and_other_statements_have_none() -> None:
    update = RELEASES[0]
    keys = {
        InForce.key(update.model_copy(update=changed))
        for changed in ({}, {"purpose": "closing"}, {"crisis_id": "fires"})
    }
    assert len(keys) == 3
    assert InForce.key(update.model_copy(update={"crisis_id": None})) is None
    assert InForce.key(RELEASES[1]) == InForce.key(update)
