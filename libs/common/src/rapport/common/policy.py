"""Policies: YAML that people write, checked at the start, known by the hash of what it says.

A mistake stops the start with file, line, field and reason. Anchors, aliases and duplicate keys are
refused: a policy says each thing once. `context` is what a model's validators are told of other
policies (which teams there are), so that a name that nothing has is a mistake with a line, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import SafeConstructor

from rapport.common.errors import FieldProblem, Invalid
from rapport.common.strict_json import MAX_PROBLEMS

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH: Final = 64

_TEXT: Final = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Policy(Generic[M]):
    """A policy's rules, the text they were read from and the hash that it is known by.

    The hash is over the rules as JSON: a comment or a blank line does not make another policy.
    """

    rules: M
    text: str
    hash: str


def parse_policy(
    text: str, model: type[M], name: str, context: Mapping[str, Any] | None = None
) -> Policy[M]:
    """Return the policy in `text`.

    Raises Invalid with `name:line: field: reason` for each mistake, 50 at most.
    """
    rules = parse_yaml(text, model, name, context)
    return Policy(rules, text, sha256(rules.model_dump_json().encode()).hexdigest())


def load_policy(
    service: str,
    name: str,
    model: type[M],
    folder: Path | None = None,
    context: Mapping[str, Any] | None = None,
) -> Policy[M]:
    """Return policy `name` of a service: `folder/service/name.yaml`, else the built-in one."""
    own = folder / service / f"{name}.yaml" if folder is not None else None
    if own is not None and own.exists():
        return parse_policy(_read(own), model, str(own), context)
    built_in = files(f"rapport.{service}").joinpath("policy", f"{name}.yaml")
    return parse_policy(built_in.read_text("utf-8"), model, f"{service}/{name}.yaml", context)


def parse_yaml(text: str, model: type[M], name: str, context: Mapping[str, Any] | None = None) -> M:
    """Return the YAML mapping in `text` as `model`; raises Invalid as `parse_policy` does."""
    try:
        problems = list(_too_deep(text))
        root = None if problems else yaml.compose(text, Loader=yaml.CSafeLoader)
        problems += islice(_structural_problems(root), MAX_PROBLEMS)
        values = None if problems or root is None else SafeConstructor().construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problems, values, root = [_problem(mark, getattr(error, "problem", "not YAML"))], None, None
    if not problems:
        try:
            return model.model_validate(values, context=context)
        except ValidationError as error:
            problems = [
                (_line(root, item["loc"]), _field(item["loc"]), item["msg"])
                for item in error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
            ]
    located = [(f"{name}:{line}", field, reason) for line, field, reason in problems]
    raise Invalid(
        "\n".join(": ".join(filter(None, item)) for item in located),
        [FieldProblem(f"{where} {field}".strip(), reason) for where, field, reason in located],
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        problem = FieldProblem(f"{path}:1", "is not UTF-8")
        raise Invalid(f"{problem.pointer}: {problem.reason}", [problem]) from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None


def _too_deep(text: str) -> Iterator[tuple[int, str, str]]:
    """Find nesting over the limit, which YAML's reader would not survive."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            yield _problem(event.start_mark, f"is nested deeper than {MAX_DEPTH} levels")
            return


def _structural_problems(node: yaml.Node | None) -> Iterator[tuple[int, str, str]]:
    """Find keys that are no text or given twice, aliases (a node met again) and no such dates."""
    met: set[int] = set()
    waiting = [node] if node is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            yield _problem(node.start_mark, "an alias (*name) is not allowed")
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    yield _problem(key.start_mark, "a key is plain text")
                elif key.value in names:
                    yield _problem(key.start_mark, f"the key {key.value!r} is given twice")
                elif not _has_value(key):
                    yield _problem(key.start_mark, "is not a valid value")
                else:
                    names.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif not _has_value(node):
            yield _problem(node.start_mark, "is not a valid value")


def _has_value(scalar: yaml.Node) -> bool:
    """Tell whether a scalar is what it looks like: 30 February looks like a date and is none."""
    if scalar.tag == _TEXT:
        return True
    try:
        SafeConstructor().construct_object(scalar)
    except yaml.YAMLError:
        return True  # it is told when all is read, with the reader's own words
    except (ValueError, LookupError, ArithmeticError, AttributeError):  # as its type reads it
        return False
    return True


def _problem(mark: Any, reason: str) -> tuple[int, str, str]:
    return (mark.line + 1 if mark is not None else 1, "", reason)


def _field(place: Sequence[int | str]) -> str:
    return ".".join(str(step) for step in place)


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """Return the line of the deepest part of `place` that the text has."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(step)), None)
            if found is None:
                continue
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and step in range(len(node.value)):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
    return line
