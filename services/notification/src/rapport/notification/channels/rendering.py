"""What messages say: a subject and a text per kind and language, and the same text as HTML.

Templates are Jinja2 text files in `templates/`, one folder per language with its `words.toml`.
Statements and replies are somebody's own words and pass through unchanged; a reply ends with its
reference. HTML is always made from the finished text, so the two parts of a mail cannot differ.

Operators may put their own versions in a folder of the same layout. Such a template is a form, not
a program: only the tags of `_ALLOWED` are accepted, loops run over what they are given and nest
only into it, and too long an output is an error, so rendering ends soon whatever it is given.
Templates are checked when the process starts.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, TypedDict

from jinja2 import (
    DictLoader,
    Environment,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    nodes,
    pass_context,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from rapport.common.errors import PermanentError

LONGEST_TEMPLATE: Final = 16_384
LONGEST_OUTPUT: Final = 262_144
MOST_LOOPS: Final = 8

DIRECTION: Final = {"en": "ltr", "zh": "ltr", "fa": "rtl"}
"""The languages that there are words for, and which way each is read."""

_WEB_ADDRESS: Final = re.compile(
    r"(https?://[^\s<>\"']*[^\s<>\"'.,;:!?)\]}،؛؟。，；：！？、）】》」』])"
)
_BIDI_CONTROLS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Alert(TypedDict):
    """What an alert is rendered from.

    `event` is entity.event ("crisis.declared"), `about` its matter in a few words (a crisis's
    title; a case's topic, names and id), `reason` why in words, or "". `suppressed` counts the
    alerts that this one stands for as well.
    """

    event: str
    about: str
    reason: str
    severity: str | None
    responsible: str | None
    at: datetime
    due_at: datetime | None
    suppressed: int
    url: str | None


class DigestLine(TypedDict):
    """One topic, product and region; `change` is against the period before, 0.25 for +25 %."""

    topic: str
    product: str | None
    region: str | None
    count: int
    negative: int
    change: float | None


class DigestItem(TypedDict):
    """One event that waited for the digest instead of alerting at once."""

    event: str
    about: str
    at: datetime


class Digest(TypedDict):
    """What a digest is rendered from: a period's figures, the events collected in it, or both."""

    start: datetime
    end: datetime
    total: int
    by_kind: Mapping[str, int]
    lines: Sequence[DigestLine]
    items: Sequence[DigestItem]
    suppressed: int
    url: str | None


class HeldBack(TypedDict):
    """What is told of alerts that were held back: how many, by event, and by which limit."""

    total: int
    by_event: Mapping[str, int]
    start: datetime
    end: datetime
    most: int
    minutes: int


class Reply(TypedDict):
    """Somebody's answer to a person, and the reference that the person can quote."""

    subject: str
    text: str
    reference: str | None


class Statement(TypedDict):
    """An approved wording; subject and text go out as they are, byte for byte."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message in words; `html` says exactly what `text` says."""

    subject: str
    text: str
    language: str

    @property
    def html(self) -> str:
        """The text as an HTML document."""
        return as_html(self.subject, self.text, self.language)


class BadTemplate(PermanentError):
    """A template cannot be used; the reason names its file, its line and what is wrong."""

    title = "Bad template"


_ALLOWED: Final = (
    nodes.And,
    nodes.Block,
    nodes.Compare,
    nodes.CondExpr,
    nodes.Const,
    nodes.Filter,
    nodes.For,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Name,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
)
_FILTERS: Final = frozenset({"default", "length", "lower", "upper"})
_TESTS: Final = frozenset({"defined", "none"})


class Renderer:
    """Turns what happened into words, by the built-in templates and an operator's own.

    Loading reads and checks them all; it raises BadTemplate for one that cannot be used.
    """

    def __init__(self, own: Path | None = None) -> None:
        sources = _built_in()
        replaced = _replacements(own, known=frozenset(sources)) if own else {}
        self._environment = _environment(sources | replaced)
        for name, source in (sources | replaced).items():
            _check(self._environment, f"{own}/{name}" if name in replaced else name, source)
        self._words = {language: words(language) for language in DIRECTION}
        self._names = frozenset(sources)

    def render(
        self, kind: str, language: str, context: Alert | Digest | HeldBack | Reply | Statement
    ) -> Rendered:
        """Return a message in `language`, in English where that has no words for its kind.

        Raises BadTemplate when a value is missing or the output is over LONGEST_OUTPUT characters.
        """
        spoken = language if language in DIRECTION else "en"
        in_words = f"{spoken}/{kind}.txt" in self._names
        name = f"{spoken}/{kind}.txt" if in_words else f"{kind}.txt"
        try:
            template = self._environment.get_template(name)
            values = template.new_context(
                {**context, "language": spoken, "words": self._words[spoken]}
            )
            subject, text = (
                _bounded(template.blocks[block](values)) for block in ("subject", "text")
            )
        except TemplateError as error:
            raise BadTemplate(f"{name}: {type(error).__name__}: {error.message}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise BadTemplate(f"{name}: a value does not fit where it is used") from error
        return Rendered(subject, text, spoken if in_words else language)

    def named(self, term: str | None, names: str, language: str) -> str:
        """Return what something is about: its term in `language`, then its names.

        A term is a list of words and one of them, `clock.first_response`; an operator's own, of
        which there are no words, is told as it is.
        """
        if term is None:
            return names
        kind, _, word = term.partition(".")
        spoken = self._words[language if language in DIRECTION else "en"]
        called = spoken[kind].get(word, word)
        return f"{called} / {names}" if names else called


def _bounded(chunks: Iterable[str]) -> str:
    parts, length = [], 0
    for chunk in chunks:
        length += len(chunk)
        if length > LONGEST_OUTPUT:
            raise TemplateError(f"the output is longer than {LONGEST_OUTPUT} characters")
        parts.append(chunk)
    return "".join(parts)


def _built_in() -> dict[str, str]:
    folder = files(__package__) / "templates"
    return dict(_texts(folder)) | {
        f"{language}/{name}": source
        for language in DIRECTION
        for name, source in _texts(folder / language)
    }


def _texts(folder: Traversable) -> Iterator[tuple[str, str]]:
    for file in folder.iterdir():
        if file.name.endswith(".txt"):
            yield file.name, file.read_text(encoding="utf-8")


def _replacements(folder: Path, known: frozenset[str]) -> dict[str, str]:
    found = {}
    for file in sorted(folder.rglob("*.txt")):
        name = file.relative_to(folder).as_posix()
        if name not in known:
            raise BadTemplate(f"{file}:1: there is no message of this name to replace")
        try:
            found[name] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadTemplate(f"{file}:1: the file is not UTF-8") from error
    return found


def words(language: str) -> Mapping[str, Mapping[str, str]]:
    """Return how events, severities, kinds, reasons of our own and terms are called.

    `language` is one of `DIRECTION`.
    """
    file = files(__package__) / "templates" / language / "words.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _environment(sources: Mapping[str, str]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=DictLoader(sources),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS} | {
        "change": _change,
        "inline": _inline,
        "lines": _lines,
        "minutes": _minutes,
    }
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


def _check(environment: ImmutableSandboxedEnvironment, name: str, source: str) -> None:
    if len(source) > LONGEST_TEMPLATE:
        raise BadTemplate(f"{name}:1: the template is longer than {LONGEST_TEMPLATE} characters")
    try:
        environment.compile(source, name)
        tree = environment.parse(source, name)
    except TemplateSyntaxError as error:
        raise BadTemplate(f"{name}:{error.lineno}: {error.message}") from error
    if problem := next(_problems(tree), None):
        raise BadTemplate("{}:{}: {}".format(name, *problem))


def _problems(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED):
            yield node.lineno, f"{type(node).__name__.lower()} is not allowed in a template"
    loops = list(tree.find_all(nodes.For))
    for outer in loops:
        for inner in outer.find_all(nodes.For):
            if _root(inner.iter) != _root(outer.target):
                yield inner.lineno, "an inner loop must run over a part of the outer loop's item"
    if len(loops) > MOST_LOOPS or any(loop.recursive for loop in loops):
        yield loops[0].lineno, f"a template may have {MOST_LOOPS} loops, none of them recursive"
    for missing in {"subject", "text"} - {block.name for block in tree.find_all(nodes.Block)}:
        yield 1, f"the block {missing} is missing"


def _root(node: nodes.Node) -> str | None:
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


@pass_context
def _minutes(context: Context, moment: datetime) -> str:
    """A moment to the minute in UTC, kept in order inside a text that reads from the right."""
    return _left_to_right(f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC", context["language"])


@pass_context
def _change(context: Context, share: float) -> str:
    """A relative change with its sign, in per cent."""
    return _left_to_right(f"{share:+.0%}", context["language"])


@pass_context
def _inline(context: Context, value: str) -> str:
    """Somebody's words on one line, isolated where they read the other way."""
    return _isolated(" ".join(value.split()), context["language"])


@pass_context
def _lines(context: Context, value: str) -> str:
    """Somebody's words, line by line, isolated where they read the other way."""
    return "\n".join(_isolated(line, context["language"]) for line in value.splitlines())


def _left_to_right(text: str, language: str) -> str:
    return f"\u2066{text}\u2069" if DIRECTION[language] == "rtl" else text


def _isolated(line: str, language: str) -> str:
    if line.isascii() and DIRECTION[language] == "ltr":
        return line
    bare = _BIDI_CONTROLS.sub("", line)
    foreign = {"L"} if DIRECTION[language] == "rtl" else {"R", "AL"}
    mixed = any(unicodedata.bidirectional(character) in foreign for character in bare)
    return f"\u2068{bare}\u2069" if mixed else bare


def as_html(subject: str, text: str, language: str) -> str:
    """Return an HTML document that says exactly `text`, with its web addresses as links."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return _page().render(
        subject=subject,
        body=Markup("<br>").join(_linked(line) for line in lines),
        language=language,
        direction=DIRECTION.get(language, "auto"),
    )


def _linked(line: str) -> Markup:
    pieces = _WEB_ADDRESS.split(line)
    return Markup("").join(
        Markup('<a dir="ltr" href="{0}">{0}</a>').format(piece) if index % 2 else piece
        for index, piece in enumerate(pieces)
    )


@cache
def _page() -> Template:
    source = (files(__package__) / "templates" / "message.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
