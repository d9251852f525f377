"""Metrics and logs: every metric name is in this one list, and logs are JSON without personal data.

Labels are bounded: names of services, topics, handlers, kinds and members of enumerations; never an
id. Logged events are passed through `without_personal` by those who log them; besides, the
processor `hide_personal` drops the fields that personal data travel in, whoever wrote the line.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

HANDLED: Final = Counter(
    "rapport_events_handled_total",
    "Events that a service's handlers are done with.",
    ["service", "event_type"],
)
DEAD_LETTERED: Final = Counter(
    "rapport_events_dead_lettered_total",
    "Events that could not be handled and went to the dead letters.",
    ["service", "cause"],
)
RETRIES: Final = Counter(
    "rapport_batches_retried_total",
    "Batches that were tried again because the store, the bus or a channel was in trouble.",
    ["service"],
)
LOST_RACES: Final = Counter(
    "rapport_saves_lost_total",
    "Saves that another writer had overtaken, decided again.",
    ["service", "collection"],
)
BATCH_SECONDS: Final = Histogram(
    "rapport_batch_duration_seconds",
    "Time to handle one partition's batch.",
    ["service"],
)
DUE_FIRED: Final = Counter(
    "rapport_due_items_fired_total",
    "Clocks, leases and scheduled steps that fell due and were carried out.",
    ["service", "collection"],
)
DUE_LATE: Final = Gauge(
    "rapport_due_items_late_seconds",
    "How late the latest due item was carried out.",
    ["service"],
)
RELAY_BEHIND: Final = Gauge(
    "rapport_relay_behind_aggregates",
    "Aggregates whose outbox waits to be published.",
    ["service"],
)
LAG_RECORDS: Final = Gauge(
    "rapport_consumer_lag_records",
    "Records that a service has not handled yet.",
    ["service"],
)
REQUESTS: Final = Counter(
    "rapport_http_requests_total",
    "HTTP requests answered.",
    ["service", "method", "status"],
)
REQUEST_SECONDS: Final = Histogram(
    "rapport_http_request_duration_seconds",
    "Time to answer an HTTP request.",
    ["service", "method"],
)
SENT: Final = Counter(
    "rapport_notifications_sent_total",
    "Attempts to send a notification, by channel and outcome.",
    ["channel", "outcome"],
)

PERSONAL_KEYS: Final = frozenset(
    {"address", "contact", "email", "excerpt", "handles", "name", "phone", "subject_line", "text"}
)


def hide_personal(
    logger: Any, method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace values under the keys that personal data travel in (a structlog processor)."""
    for key in PERSONAL_KEYS & entry.keys():
        entry[key] = "(personal)"
    return entry


def configure_logs(level: str = "INFO") -> None:
    """Write logs as JSON lines to standard error, from structlog and the standard library alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_personal,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer()
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
