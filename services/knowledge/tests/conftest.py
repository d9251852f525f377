"""The service under test."""

from collections.abc import AsyncIterator

import pytest

from rapport.common.testing import Harness, harness
from rapport.knowledge.service import SERVICE


@pytest.fixture
async def knowledge() -> AsyncIterator[Harness]:
    """The knowledge service, whole, in memory, with its built-in policy."""
    async with harness(SERVICE) as under_test:
        yield under_test
