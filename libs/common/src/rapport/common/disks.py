"""Disks: whether a folder that must be written to can take more.

What is in a file can still be read when its disk is full or has become read-only, and a disk that
fails goes on saying that it may be written to. So it is tried, before somebody has to be refused.
"""

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from rapport.common.errors import TemporaryError

LEAST_FREE: Final = 4 * 1024 * 1024
"""A disk with fewer bytes left is full: it has no room for what one busy second writes."""


def require_room(folder: Path) -> None:
    """Raise TemporaryError where nothing more can be written to `folder`."""
    try:
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE:
            raise TemporaryError(f"the disk is full: under {LEAST_FREE >> 20} MiB are left")
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        raise TemporaryError(f"the disk cannot be written to: {error.strerror}") from None
