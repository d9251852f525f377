"""What other services name, notification has words for, in every language."""

from typing import get_args

import pytest

from rapport.analytics.domain.kpis import KpiPolicy
from rapport.common.policy import load_policy
from rapport.notification.channels.rendering import DIRECTION, words
from rapport.routing.domain.clocks import ClockName


@pytest.mark.parametrize("language", DIRECTION)
def test_every_clock_and_every_figure_of_the_default_policy_has_words(language: str) -> None:
    told = words(language)
    assert set(told["clock"]) == set(get_args(ClockName))
    assert set(told["kpi"]) == set(load_policy("analytics", "kpis", KpiPolicy).rules.kpis)
