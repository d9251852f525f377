"""Analytics, whole, for every story."""

from collections.abc import AsyncIterator

import pytest

from rapport.analytics.service import SERVICE
from rapport.common.testing import Harness, harness


@pytest.fixture
async def analytics() -> AsyncIterator[Harness]:
    async with harness(SERVICE) as under_test:
        yield under_test
