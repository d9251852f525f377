"""The service under test, with a mail server of its own."""

from collections.abc import AsyncIterator

import pytest

from rapport.common.testing import Harness, harness
from rapport.notification.service import SERVICE

from .cast import KEY
from .servers import SmtpSink, smtp_sink


@pytest.fixture
async def sink() -> AsyncIterator[SmtpSink]:
    async with smtp_sink() as running:
        yield running


@pytest.fixture
async def notification(sink: SmtpSink) -> AsyncIterator[Harness]:
    async with harness(
        SERVICE,
        person_key=KEY,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_security="none",
    ) as running:
        yield running
