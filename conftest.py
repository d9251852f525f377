"""What every test of the tree shares."""

import os
import re

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("rapport.common.testing", "rapport.common.testing_crashes")

settings.register_profile(
    "rapport",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rapport")

ADAPTERS = {
    "bus: embedded": r"test_bus_embedded",
    "bus: Kafka": r"test_bus_kafka",
    "store: SQLite": r"test_store_sqlite",
    "store: MongoDB by PyMongo": r"test_store_mongo.*pymongo",
    "store: MongoDB by Motor": r"test_store_mongo.*motor",
    "system: in one process": r"tests/integration/.*(\[embedded|test_kill|test_traces)",
    "system: distributed": r"tests/integration/.*(\[distributed|test_processes|test_inbound)",
}
"""What tests run on, and how to tell by their names."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran on which adapter."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", ())]
    counts = {
        adapter: sum(bool(re.search(names, name, re.I)) for name in passed)
        for adapter, names in ADAPTERS.items()
    }
    if any(counts.values()):
        terminalreporter.section("passed, by adapter")
        for adapter, count in counts.items():
            terminalreporter.line(f"{adapter:<28}{count:>6}")
