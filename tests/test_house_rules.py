"""Rules of the house that no linter has: the namespace stays open, domains stay pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = {
    "rapport.common.aggregate",
    "rapport.common.errors",
    "rapport.common.events",
    "rapport.common.local_time",
    "rapport.common.matching",
    "rapport.common.people",
    "rapport.common.policy",
    "rapport.common.strict_json",
    "rapport.common.text",
}


def domain_files() -> Iterator[Path]:
    for place in ROOT.glob("services/*/src/rapport/*"):
        yield from place.glob("domain.py")
        yield from place.glob("domain/**/*.py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def is_allowed(module: str, service: str) -> bool:
    top = module.split(".", 1)[0]
    return (
        top in sys.stdlib_module_names
        or top in {"pydantic", "pydantic_core"}
        or any(module == pure or module.startswith(f"{pure}.") for pure in PURE)
        or module.startswith(f"rapport.{service}.domain")
    )


def test_nothing_closes_the_namespace() -> None:
    assert list(ROOT.glob("*/*/src/rapport/__init__.py")) == []


@pytest.mark.parametrize(
    "path", sorted(domain_files()), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_domain_knows_only_itself_and_what_is_pure(path: Path) -> None:
    service = path.relative_to(ROOT).parts[1]
    tree = ast.parse(path.read_text("utf-8"))
    assert [module for module in imported(tree) if not is_allowed(module, service)] == []
