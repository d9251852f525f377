"""What every test of the tree shares."""

import os

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("rapport.common.testing")

settings.register_profile(
    "rapport",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rapport")
