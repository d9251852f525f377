"""What the documentation says is there, is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "services/*/README.md")
    for path in ROOT.glob(pattern)
)


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text("utf-8"), re.M))
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_table_names_exists(page: Path) -> None:
    """A path in backticks with a folder and an ending is a file of the page's own tree."""
    pattern = r"`([a-z_]+(?:/[a-z_.-]+)+\.(?:py|yaml|toml|md))`"
    for path in re.findall(pattern, page.read_text("utf-8")):
        found = [
            *ROOT.glob(path),
            *ROOT.glob(f"services/*/src/rapport/{path}"),
            *ROOT.glob(f"libs/common/src/rapport/{path}"),
            *ROOT.glob(f"libs/common/src/rapport/common/{path}"),
            *page.parent.glob(path),
            *page.parent.glob(f"src/rapport/*/{path}"),
        ]
        assert found, path


def test_every_decision_is_short() -> None:
    for record in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(record.read_text("utf-8").splitlines()) <= 50, record.name


def test_every_service_says_what_it_consumes_publishes_and_owns() -> None:
    for service in (ROOT / "services").iterdir():
        text = (service / "README.md").read_text("utf-8").lower()
        assert all(word in text for word in ("consumes", "publishes", "owns")), service.name
