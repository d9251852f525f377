"""Metrics and logs: every metric name is in this one list, and logs are JSON without personal data.

Labels are bounded: names of services, topics, handlers, kinds and members of enumerations; never an
id. What personal data travel in is hidden from every log line, whoever writes it: fields that are
marked personal or have such a name, and the words of errors that are not our own.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from traceback import format_tb
from typing import Any, Final, TextIO, cast

import structlog
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, RootModel

from rapport.common.errors import RapportError
from rapport.common.events.envelope import without_personal
from rapport.common.tracing import identify

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
PUBLISHES_RETRIED: Final = Counter(
    "rapport_publishes_retried_total",
    "Calls to publish outboxes that failed and are made again.",
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
SAVE_SECONDS: Final = Histogram(
    "rapport_save_duration_seconds",
    "Time to save what one batch or command changed in one collection.",
    ["service", "collection"],
)
PUBLISH_SECONDS: Final = Histogram(
    "rapport_publish_duration_seconds",
    "Time to publish outboxes until the bus has them durably.",
    ["service"],
)
DUE_FIRED: Final = Counter(
    "rapport_due_items_fired_total",
    "Clocks, leases and scheduled steps that fell due and were carried out.",
    ["service", "collection"],
)
DUE_FAILED: Final = Counter(
    "rapport_due_items_failed_total",
    "Due items that could not be carried out, and will be tried again.",
    ["service", "collection"],
)
DUE_LATE: Final = Gauge(
    "rapport_due_items_late_seconds",
    "How late the latest due item of the last scan was or is, 0 where nothing was due; "
    "while the store cannot say, what it was and the time since.",
    ["service"],
)
RELAY_BEHIND: Final = Gauge(
    "rapport_relay_behind_aggregates",
    "Aggregates whose outbox waits to be published.",
    ["service"],
)
OUTBOX_AGE: Final = Gauge(
    "rapport_outbox_age_seconds",
    "How long the outbox that has waited longest waits to be published.",
    ["service"],
)
LAG_RECORDS: Final = Gauge(
    "rapport_consumer_lag_records",
    "Records that a service has not handled yet.",
    ["service"],
)
LAG_SECONDS: Final = Gauge(
    "rapport_consumer_lag_seconds",
    "Age of the oldest record that a service has not handled yet; "
    "while nobody can say, what it was and the time since.",
    ["service"],
)
PARTITIONS_STOPPED: Final = Gauge(
    "rapport_partitions_stopped",
    "Partitions that a service has stopped reading because of an error; a restart tries again.",
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
SEND_SECONDS: Final = Histogram(
    "rapport_notification_send_duration_seconds",
    "Time that an attempt to send a notification takes.",
    ["channel"],
)

PERSONAL_KEYS: Final = frozenset(
    {
        "address",
        "contact",
        "data",
        "email",
        "excerpt",
        "handles",
        "name",
        "phone",
        "remedy_sought",
        "resolution",
        "subject",
        "summary",
        "text",
        "url",
    }
)


QUIETED: Final = {
    "httpx2": "WARNING",
    "pymongo": "WARNING",
    "uvicorn": "WARNING",
}
"""Libraries that tell more than operators want to know, and from which level on they are heard."""


def hide_personal(
    logger: Any, method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Hide what personal data travel in, at any depth (a structlog processor)."""
    for key, value in entry.items():
        entry[key] = _shown(key, value)
    return entry


def _shown(key: str, value: Any) -> Any:
    if key in PERSONAL_KEYS:
        return "(personal)"
    if isinstance(value, RootModel):
        value = value.root
    if isinstance(value, BaseModel):
        value = without_personal(value)
    if isinstance(value, Mapping):
        return {str(name): _shown(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown("", item) for item in value]
    return value


def traced(error: BaseException) -> str:
    """Return how an error came about: the calls and kinds of error, and the reasons of our own.

    The words of other errors are left out: they may quote what somebody wrote.
    """
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    parts = [
        *([traced(before), "which led to\n"] if before is not None else []),
        *format_tb(error.__traceback__),
        f"{kind}: {error.reason}\n" if isinstance(error, RapportError) else f"{kind}\n",
        *(traced(part) for part in getattr(error, "exceptions", ())),
    ]
    return "".join(parts)


class _Forgiving:
    """A stream that logs are written to: what it cannot take, on a full disk say, is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or do not."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, or do not."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(level: str = "INFO") -> None:
    """Write logs as JSON lines to standard error, from structlog and the standard library alike.

    Trouble with where they go is nobody's trouble: no line is worth the work that tells of it.
    """
    stream = cast(TextIO, _Forgiving(sys.stderr))
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        identify,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda info: traced(info[1])),
        hide_personal,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer()
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library, least in QUIETED.items():
        logging.getLogger(library).setLevel(least)
