"""What a process no longer uses goes back to the system."""

import os
from pathlib import Path

import pytest

from rapport.common import heap

MIB = 1024 * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(heap._trim is None, reason="this system's malloc has nothing to trim")
def test_pages_that_were_freed_between_used_ones_are_given_back() -> None:
    blocks = [bytes(2_000) for _ in range(50_000)]
    kept = blocks[::100]
    del blocks
    before = resident()
    assert heap.give_back()
    assert before - resident() > 50 * MIB
    assert len(kept) == 500
