"""A short run under faults, in both forms: not one event may be lost, doubled or stuck."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SEED: Final = 20_261_128
MINUTES: Final = 0.3


@pytest.mark.parametrize("mode", ["embedded", "distributed"])
async def test_the_promises_hold_under_faults(mode: str, tmp_path: Path) -> None:
    if mode == "distributed" and not os.environ.get("RAPPORT_TEST_KAFKA"):
        pytest.skip("there are no servers here: `make test` starts them where Java and Maven are")
    page = tmp_path / "page.md"
    chaos = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos", "--mode", mode, "--page", page),
        *("--minutes", str(MINUTES), "--seed", str(SEED)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await chaos.communicate()
    assert chaos.returncode == 0, told.decode()
    assert "| 0 |" in page.read_text("utf-8")
