"""The weeks before the story: ordinary messages, drawn with a seed, so that there is a usual.

The detector of bursts compares with what is usual at this time of day, and so do digests. What is
drawn is the same for the same scenario, and is marked as historical: counted, never answered.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Any, Final

from rapport.standalone.demo.scenario import History, Scenario

WAKING_HOURS: Final = (6, 22)
"""When people write, in hours of the day."""


def before(scenario: Scenario) -> list[dict[str, Any]]:
    """Return the messages of the days before the story, in order, as intake takes them."""
    history = scenario.history
    random = Random(history.seed)
    midnight = datetime.combine(scenario.day, time.min, UTC)
    moments = sorted(
        midnight - timedelta(days=day) + timedelta(seconds=random.uniform(*_waking_seconds()))
        for day in range(1, history.days + 1)
        for _ in range(history.per_day)
    )
    drawn = _draw(history, random)
    return [
        {
            "source": "archive",
            "source_ref": f"{number}",
            "historical": True,
            "occurred_at": moment.isoformat(timespec="seconds"),
            **next(drawn),
        }
        for number, moment in enumerate(moments)
    ]


def _waking_seconds() -> tuple[float, float]:
    first, last = WAKING_HOURS
    return first * 3600.0, last * 3600.0


def _draw(history: History, random: Random) -> Iterator[dict[str, Any]]:
    weights = [ordinary.weight for ordinary in history.ordinary]
    while True:
        [ordinary] = random.choices(history.ordinary, weights)
        language = random.choice(sorted(ordinary.texts))
        product, names = random.choice(sorted(history.products.items()))
        text = random.choice(ordinary.texts[language])
        yield {
            "kind": ordinary.kind.value,
            "channel": random.choice(history.channels).value,
            "product": product,
            "region": history.regions[language],
            "text": text.format(product=names[language]),
        }
