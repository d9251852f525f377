"""Intake, whole, for every story."""

from collections.abc import AsyncIterator

import pytest

from rapport.common.testing import Harness, harness
from rapport.intake.service import SERVICE


@pytest.fixture
async def intake() -> AsyncIterator[Harness]:
    async with harness(SERVICE, person_key="of persons", status_key="of statuses") as under_test:
        yield under_test
