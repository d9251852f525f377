"""Conditions as rules, criteria and subscriptions use them."""

from typing import Any

import pytest
from pydantic import ValidationError

from rapport.common.errors import Invalid
from rapport.common.matching import Conditions

ABOUT = {
    "kind": "complaint",
    "product": "kettle",
    "brand": None,
    "severity": "high",
    "reach": 12_000,
    "public": True,
}


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({}, True),
        ({"kind": "complaint"}, True),
        ({"kind": "praise"}, False),
        ({"product": ["toaster", "kettle"]}, True),
        ({"product": []}, False),
        ({"brand": None}, True),
        ({"severity": {"at_least": "normal"}}, True),
        ({"severity": {"at_least": "critical"}}, False),
        ({"severity": {"below": "critical"}}, True),
        ({"reach": {"at_least": 12_000, "below": 12_001}}, True),
        ({"reach": {"below": 12_000}}, False),
        ({"product": {"is_not": "kettle"}}, False),
        ({"product": {"is_not": ["iron", "toaster"]}}, True),
        ({"public": True, "kind": "praise"}, False),
        ({"missing": {"at_least": 1}}, False),
        ({"missing": {"below": 1}}, False),
        ({"product": {"below": 1}}, False),
        ({"product": {"below": "critical"}}, False),
        ({"brand": {"below": "critical"}}, False),
        ({"public": {"at_least": 1}}, False),
        ({"public": {"below": 2}}, False),
    ],
)
def test_conditions(conditions: dict[str, Any], holds: bool) -> None:
    assert Conditions.model_validate(conditions).hold(ABOUT) is holds


@pytest.mark.parametrize(
    "wrong",
    [
        {"reach": {}},
        {"reach": {"over": 3}},
        {"reach": {"below": "x"}},
        {"reach": {"at_least": "inf"}},
        {"reach": {"below": 1e400}},
        {"reach": {"below": "nan"}},
        {"reach": float("inf")},
        {"reach": [1, float("nan")]},
    ],
)
def test_a_condition_that_says_nothing_sensible_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Conditions.model_validate(wrong)


def test_unknown_fields_are_named() -> None:
    with pytest.raises(Invalid) as refused:
        Conditions.model_validate({"kind": "x", "prodcut": "y"}).check_fields(ABOUT, "/when")
    assert [problem.pointer for problem in refused.value.problems] == ["/when/prodcut"]
