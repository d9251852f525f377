"""The routing service as it is, which also writes down each message that is delivered to it.

    python -m benchmarks.recorded FILE

runs it as `python -m rapport.routing` does; each line of FILE is the id of a feedback.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rapport.common.aggregate import Fact
from rapport.common.events.envelope import Event
from rapport.common.events.feedback import FeedbackReceived
from rapport.common.handling import fact
from rapport.common.serving import main
from rapport.routing.service import SERVICE


def run(path: Path) -> None:
    """Run the service until it is told to stop."""
    with path.open("a", buffering=1) as file:

        @fact(FeedbackReceived)
        def delivered(event: Event[FeedbackReceived]) -> Iterable[Fact]:
            print(event.id, file=file)
            return ()

        main(replace(SERVICE, declared=(*SERVICE.declared, delivered)))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
