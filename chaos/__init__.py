"""Chaos: the whole system under load and under faults, and then the promises, checked from outside.

`python -m chaos` runs the system as processes, embedded or over servers of its own, sends it what
customers and staff would, lets things go wrong one after another, waits until all is at rest, and
reads every topic and every store: nothing that was accepted may be lost, doubled or stuck. What is
promised, and what of it is checked here, is in `docs/reliability.md`.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

sys.path.append(str(ROOT / "deploy" / "local"))  # where `servers` is
