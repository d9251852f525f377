"""The service under test."""

from collections.abc import AsyncIterator

import pytest

from rapport.common.testing import Harness, harness
from rapport.knowledge.service import SERVICE

from .sayings import proposed


@pytest.fixture
async def knowledge() -> AsyncIterator[Harness]:
    """The knowledge service, whole, in memory, with its built-in policy; it knows two crises."""
    async with harness(SERVICE) as under_test:
        await under_test.given(proposed("kettles"), proposed("fires"))
        yield under_test
