"""Expectations: conditions of the story on what an API shows, by path, and how they are told."""

from collections.abc import Iterator, Mapping
from typing import Any

from rapport.common.matching import Comparison, Conditions
from rapport.standalone.demo.counting import Finding
from rapport.standalone.demo.world import Json


def compare(expected: Conditions, shown: Json) -> Iterator[Finding]:
    """Yield what came true as one finding, then each condition that did not."""
    flat = dict(flatten(shown))
    holds = {
        path: path in flat and Conditions({path: wanted}).hold(flat)
        for path, wanted in expected.root.items()
    }
    if any(holds.values()):
        true = [in_words(path, wanted) for path, wanted in expected.root.items() if holds[path]]
        yield Finding(True, ", ".join(true))
    for path, wanted in expected.root.items():
        if not holds[path]:
            found = flat[path] if path in flat else "not there"
            yield Finding(False, f"{in_words(path, wanted)} was expected, it is {found}")


def flatten(shown: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its path, like `about.severity`."""
    for name, value in shown.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def in_words(path: str, wanted: object) -> str:
    """Return a condition in words: `severity at least high`."""
    name = path.removeprefix("about.").replace(".", " ").replace("_", " ")
    match wanted:
        case None:
            return f"no {name}"
        case bool():
            about, _, quality = name.rpartition(" ")
            return name if wanted else f"{about} not {quality}".strip()
        case Comparison(at_least=bound) if bound is not None:
            return f"{name} at least {bound}"
        case Comparison():
            return f"{name} {wanted.model_dump(exclude_none=True)}"
        case tuple():
            return f"{name} one of {', '.join(map(str, wanted))}"
    return f"{name} {str(wanted).replace('_', ' ')}"
