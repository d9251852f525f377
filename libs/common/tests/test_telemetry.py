"""Logs that tell what happened and never about whom; metrics from one list."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from pydantic import BaseModel, TypeAdapter, ValidationError

from rapport.common import telemetry
from rapport.common.bus.kafka import brokers
from rapport.common.errors import PermanentError
from rapport.common.events.envelope import CATALOGUE, personal_fields
from rapport.common.events.feedback import Contact
from rapport.common.telemetry import PERSONAL_KEYS, configure_logs, hide_personal, traced

SECRET = "leila@example.org"
OUR_OWN_WORDS = {"outcome", "reason"}
"""Personal in some event, and in a log line always words of our own."""

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Log as a process does; gives what has been written so far."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs()
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


def models(of: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Name a model and those that its fields are made of."""
    yield of
    waiting = [field.annotation for field in of.model_fields.values()]
    while waiting:
        part: Any = waiting.pop()
        waiting += getattr(part, "__args__", ())
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from models(part)


def test_a_log_line_is_json_with_time_level_and_what_was_told(lines: Lines) -> None:
    structlog.get_logger("x").warning("batch.retry", group="routing", tries=2)
    [line] = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "batch.retry", "level": "warning", "group": "routing", "tries": 2}


def test_the_standard_librarys_lines_are_json_too(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").warning("%s of %s", 1, 2)
    logging.getLogger("uvicorn.error").debug("too much")
    [line] = lines()
    assert (line["event"], line["level"]) == ("1 of 2", "warning")


FORGED = '\n{"event": "login", "level": "info"}'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x85", '"}\n', "\x1b[2J\n"])
def test_nobody_writes_a_log_line_but_us(lines: Lines, end: str) -> None:
    structlog.get_logger("x").warning(f"told{end}{FORGED}", path=f"{end}{FORGED}")
    logging.getLogger("uvicorn.error").warning("told %s", f"{end}{FORGED}")
    assert [line["event"][:4] for line in lines()] == ["told", "told"]
    assert lines()[0]["path"] == f"{end}{FORGED}"


@pytest.mark.parametrize("key", sorted(PERSONAL_KEYS))
def test_what_has_a_personal_name_is_hidden_at_any_depth(key: str, lines: Lines) -> None:
    structlog.get_logger("x").info("told", **{key: SECRET})
    structlog.get_logger("x").info("told", found=[{"items": ({key: [SECRET]}, {key: {}})}])
    assert len(lines()) == 2
    assert SECRET not in str(lines())


def test_a_model_shows_what_is_not_personal(lines: Lines) -> None:
    contact = Contact(person="p1", name=SECRET, handles={SECRET: SECRET})
    structlog.get_logger("x").info("told", who=contact, all=[contact])
    [line] = lines()
    assert line["who"] == line["all"][0] == {"person": "p1", "kind": "customer"}


ODD_SHAPES = st.recursive(
    st.just(Contact(name=SECRET))
    | st.dictionaries(st.sampled_from(sorted(PERSONAL_KEYS)), st.just(SECRET)),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.sampled_from("ab"), inner)
    ),
)


@given(ODD_SHAPES)
def test_nothing_personal_survives_in_any_shape(value: Any) -> None:
    assert SECRET not in json.dumps(hide_personal(None, "info", {"told": value}))


def test_every_personal_field_of_an_event_has_a_name_that_is_hidden() -> None:
    named = {
        name
        for data in CATALOGUE.values()
        if data.TYPE.startswith("rapport.")
        for model in models(data)
        for name in personal_fields(model)
    }
    assert named - PERSONAL_KEYS == OUR_OWN_WORDS


def failure() -> Exception:
    """Return an error of ours that came from one which quotes what somebody wrote."""
    try:
        try:
            TypeAdapter(int).validate_python(SECRET)
        except ValidationError as error:
            raise PermanentError("it does not fit") from error
    except PermanentError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("how", ["structlog", "logging"])
def test_an_error_shows_where_it_came_from_and_its_words_only_if_they_are_ours(
    lines: Lines, how: str
) -> None:
    assert SECRET in str(failure().__cause__)
    if how == "structlog":
        structlog.get_logger("x").error("failed", exc_info=failure())
    else:
        logging.getLogger("x").error("failed", exc_info=failure())
    [line] = lines()
    assert "PermanentError: it does not fit" in line["exception"]
    assert "ValidationError" in line["exception"]
    assert "in failure" in line["exception"]
    assert SECRET not in str(line)


def test_errors_in_groups_and_chains_are_told() -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), failure()])
    told = traced(group)
    for kind in ("builtins.ExceptionGroup", "builtins.ValueError", "PermanentError"):
        assert kind in told
    assert "it does not fit" in told
    assert SECRET not in told

    hidden = KeyError(SECRET)
    hidden.__context__, hidden.__suppress_context__ = failure(), True
    assert traced(hidden) == "builtins.KeyError\n"


def test_every_metric_is_in_the_one_list_and_named_and_explained_alike() -> None:
    listed = {
        metric
        for metric in vars(telemetry).values()
        if isinstance(metric, Counter | Gauge | Histogram)
    }
    ours = {
        collector
        for collector in REGISTRY._collector_to_names
        if isinstance(collector, Counter | Gauge | Histogram)
    }
    assert ours == listed
    for metric in listed:
        [described] = metric.describe()
        assert re.fullmatch(r"rapport_[a-z_]+[a-z]", described.name)
        assert re.fullmatch(r"[A-Z].*\.", described.documentation)
        if described.type == "histogram":
            assert described.name.endswith("_seconds")


def test_without_brokers_their_client_is_silent_also_where_it_is_there_before_the_logs(
    lines: Lines,
) -> None:
    assert brokers.__name__ in sys.modules  # what quiets the client has been loaded
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(name).error("Unable to update metadata")
    assert lines() == []
