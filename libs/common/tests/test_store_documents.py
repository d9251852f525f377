"""Documents that cannot be read: they are told of, and not all the time."""

from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from rapport.common.errors import PermanentError
from rapport.common.store.documents import TOLD_SECONDS, Reader


def damaged(_: object) -> NoReturn:
    raise PermanentError("it does not fit")


def test_a_damaged_document_that_is_met_all_the_time_is_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("rapport.common.store.documents.monotonic", lambda: now)
    reader = Reader(damaged)
    with capture_logs() as logs:
        for _ in range(3):
            assert reader.each([("a", None), ("b", None)]) == []
        now = TOLD_SECONDS
        assert reader.each([("a", None)]) == []
    assert [log["id"] for log in logs] == ["a", "b", "a"]
