"""Whatever becomes of a policy or mapping, it is read, or refused with its file and line.

Operators write them, and a file may be broken by an editor, a merge, a disk, or somebody who means
harm: aliases that multiply, nesting, huge numbers, tags that make objects. Nothing but `Invalid`
ever comes of it, at once, and never anything that was in the file by way of a tag.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rapport.analytics.domain.burst import BurstPolicy
from rapport.analytics.domain.digest import DigestPolicy
from rapport.analytics.domain.kpis import KpiPolicy
from rapport.common.errors import Invalid
from rapport.common.policy import parse_yaml
from rapport.intake.domain.mapping import Mapping as IntakeMapping
from rapport.knowledge.domain.approvals import ApprovalRules
from rapport.notification.domain.allowances import Limits
from rapport.routing.domain.calendars import Calendars
from rapport.routing.domain.clocks import Clocks
from rapport.routing.domain.lexicon import Lexicon
from rapport.routing.domain.rules import Rules
from rapport.routing.domain.teams import Teams

ROOT: Final = Path(__file__).parents[2]

MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "analytics/policy/bursts": BurstPolicy,
    "analytics/policy/digests": DigestPolicy,
    "analytics/policy/kpis": KpiPolicy,
    "intake/mappings/cfpb": IntakeMapping,
    "intake/mappings/helpdesk_export": IntakeMapping,
    "intake/mappings/social_webhook": IntakeMapping,
    "knowledge/policy/approvals": ApprovalRules,
    "notification/policy/limits": Limits,
    "routing/policy/calendars": Calendars,
    "routing/policy/clocks": Clocks,
    "routing/policy/lexicons/en": Lexicon,
    "routing/policy/lexicons/fa": Lexicon,
    "routing/policy/lexicons/zh": Lexicon,
    "routing/policy/rules": Rules,
    "routing/policy/teams": Teams,
}

PIECES: Final = (
    *("&a ", "*a", "<<: *a\n", "<<: {}\n", "!!python/object/apply:os.system [x]", "!x"),
    *("!!binary x", "!!binary eA==", "!!int ''", "!!float ''", "!!int x", "!!float x", "!!bool x"),
    *("!!null x", "!!str 1"),
    *("!!timestamp x", "!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1]", "!x y", "!<tag:x> y", "!"),
    *("? ", ": ", "- ", "{", "}", "[", "]", "|\n", ">\n", "'", '"', "#", ",", "%YAML 9.9\n", "%x"),
    *("---\n", "...\n", "\t", "\x00", "\x07", "\x85", "\u2028", "\ufeff", "\ufffe", "\U0001f600"),
    *("~", "1e999", ".nan", "-.inf", "9" * 5_000, "0x", "0b2", "08", "1:99:99", "=", "1_"),
    *("2026-02-30", "99999-01-01", "2026-01-01T99:99:99Z", "0000-00-00", "yes", "{a: b}", "[[[["),
    *("\n", "  ", "\n\n-", "a: b\n", "{}: x\n", "null: x\n", "1: x\n", "\\", "${x}", "{{ x }}"),
)  # fmt: skip
"""What does harm to a reader of YAML, where it finds it unprepared."""


class Text(str):
    """A long text that is not shown whole where something is wrong with it."""

    def __repr__(self) -> str:
        return f"{str(self)[:200]!r}..."


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """Return a text that has been cut into, and had something put in, in a few places."""
    for _ in range(draw(st.integers(1, 4))):
        at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=3))
        text = text[:at] + piece + text[at + cut :]
    return text


def text_of(name: str) -> str:
    """Return a file that we ship."""
    service, _, rest = name.partition("/")
    file = ROOT / "services" / service / "src" / "rapport" / service / f"{rest}.yaml"
    return file.read_text("utf-8")


def read(text: str, model: type[BaseModel]) -> None:
    """Read a file; fails where it is refused without its place."""
    refusal = refusal_of(text, model)
    if refusal is None:
        return
    assert refusal.problems, refusal.reason
    lines = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))
    for problem in refusal.problems:
        place = re.match(r"p\.yaml:(\d+)( |$)", problem.pointer)
        assert place, problem
        assert 1 <= int(place[1]) <= lines + 1
        assert problem.reason


def refusal_of(text: str, model: type[BaseModel]) -> Invalid | None:
    """Return why a file is refused, if it is."""
    context: dict[str, Any] = {"teams": {}, "calendars": {}}
    try:
        parse_yaml(text, model, "p.yaml", context)
    except Invalid as refusal:
        return refusal
    return None


def test_every_file_that_we_ship_is_tried_here() -> None:
    shipped = {
        str(file.relative_to(ROOT / "services" / service.name / "src" / "rapport")).removesuffix(
            ".yaml"
        )
        for service in (ROOT / "services").iterdir()
        for file in service.glob("src/rapport/*/*/**/*.yaml")
    }
    assert shipped == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40)
@given(st.data())
def test_a_broken_file_is_refused_with_its_line_or_read(name: str, data: st.DataObject) -> None:
    read(str(data.draw(mutated(text_of(name)).map(Text))), MODELS[name])


@given(st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_text_at_all_is_refused_with_its_line_or_read(text: str) -> None:
    for model in MODELS.values():
        read(text, model)


LAUGHS: Final = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "bomb",
    [
        LAUGHS,
        "a: &a [*a]\n",
        "a: &a {<<: *a}\n",
        "a: " + "{a: " * 20_000,
        "? " * 20_000,
        "a: " + "9" * 100_000,
        "a: 0x" + "f" * 100_000,
        "a: " + "1:59" + ":59" * 5_000,
        "a: !!python/object/apply:os.system ['false']\n",
        "a: !!python/object/new:os.system ['false']\n",
        "a: !!python/module:os\n",
        "a: !!binary " + "A" * 100_001,
        "a: 1\na: 2\n",
        "a: |\n" + "  x\n" * 100_000,
        "".join(f"k{number}: 1\n" for number in range(20_000)),
        "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system ['false']\n",
    ],
)
@pytest.mark.parametrize("name", ["routing/policy/teams", "intake/mappings/cfpb"])
def test_a_bomb_is_refused_before_it_goes_off(name: str, bomb: str) -> None:
    with pytest.raises(Invalid, match=r"^p\.yaml:\d+: "):
        parse_yaml(bomb, MODELS[name], "p.yaml")
