"""A disk is tried before somebody has to be refused. Full and failing ones: tests/integration."""

from pathlib import Path

import pytest

from rapport.common import disks
from rapport.common.disks import require_room
from rapport.common.errors import TemporaryError


def test_a_disk_with_room_is_no_trouble_and_stays_as_it_was(tmp_path: Path) -> None:
    require_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_away_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match="cannot be written to: No such file or directory"):
        require_room(tmp_path / "away")


def test_too_little_room_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "LEAST_FREE", 1 << 62)
    with pytest.raises(TemporaryError, match="the disk is full"):
        require_room(tmp_path)
