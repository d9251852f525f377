"""The topics of Rapport: one writer each, so that a partition is the story of its keys.

Partition counts never change after creation: the order per key would break.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its one writing service, its number of partitions, how long records are kept."""

    name: str
    writer: str
    partitions: int = 12
    retention: timedelta = timedelta(days=30)

    def __str__(self) -> str:
        return self.name


OTHERS: Final = "other systems"
"""Who writes what is not ours; what they do to the log, such as transactions, is theirs."""

INBOUND: Final = Topic("rapport.inbound", writer=OTHERS)
FEEDBACK: Final = Topic("rapport.feedback", writer="intake")
CASES: Final = Topic("rapport.cases", writer="routing")
CRISES: Final = Topic("rapport.crises", writer="routing")
KNOWLEDGE: Final = Topic("rapport.knowledge", writer="knowledge")
COMMUNICATIONS: Final = Topic("rapport.communications", writer="notification")
NOTIFICATIONS: Final = Topic("rapport.notifications", writer="notification")
INTERACTIONS: Final = Topic("rapport.interactions", writer="notification")
ANALYTICS: Final = Topic("rapport.analytics", writer="analytics")
DEAD_LETTERS: Final = Topic("rapport.dlq", writer="the pipeline", retention=timedelta(days=90))

TOPICS: Final = {
    topic.name: topic
    for topic in (
        INBOUND,
        FEEDBACK,
        CASES,
        CRISES,
        KNOWLEDGE,
        COMMUNICATIONS,
        NOTIFICATIONS,
        INTERACTIONS,
        ANALYTICS,
        DEAD_LETTERS,
    )
}
