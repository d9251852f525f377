"""The pages that list settings and metrics list exactly what there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from rapport.common import telemetry
from rapport.common.settings import PREFIX, Settings
from rapport.standalone.system import SERVICES

DOCS = Path(__file__).parents[1] / "docs"
METRICS = [
    metric for metric in vars(telemetry).values() if isinstance(metric, Counter | Gauge | Histogram)
]

Row = tuple[str, ...]


def rows(page: str, section: str = "") -> list[Row]:
    """Return the cells of the first table of a page, or of one of its sections."""
    text = (DOCS / page).read_text("utf-8")
    if section:
        text = text.split(f"\n## {section}\n", 1)[1]
    text = text.split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def settings_of(kind: type[Settings], *, without: type[Settings] | None = None) -> Iterator[Row]:
    """Return a service's settings as the page lists them."""
    known = without.model_fields if without is not None else {}
    for name, field in kind.model_fields.items():
        if name not in known:
            default = shown(field)
            yield (
                f"`{PREFIX}{name.upper()}`",
                f"`{default}`" if default else "",
                field.description or "",
            )


def shown(field: FieldInfo) -> str:
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value is None or value == () else str(value)


def test_every_common_setting_is_documented_and_nothing_else() -> None:
    assert rows("settings.md", "Every service") == list(settings_of(Settings))


@pytest.mark.parametrize("name", SERVICES)
def test_every_setting_of_a_service_is_documented_and_nothing_else(name: str) -> None:
    expected = list(settings_of(SERVICES[name].settings, without=Settings))
    assert rows("settings.md", name) == expected


def test_every_metric_is_documented_and_nothing_else() -> None:
    expected = []
    for metric in METRICS:
        [described] = metric.describe()
        name = f"{described.name}_total" if described.type == "counter" else described.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        expected.append((f"`{name}`", described.type, labels, described.documentation))
    assert rows("metrics.md") == expected


def test_every_metric_that_is_advised_exists() -> None:
    advised = set(re.findall(r"`rapport_\w+`", (DOCS / "metrics.md").read_text("utf-8")))
    assert advised == {row[0] for row in rows("metrics.md")}
