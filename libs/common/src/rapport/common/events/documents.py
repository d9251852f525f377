"""The contract as documents: one JSON Schema per event type, and one AsyncAPI document over all.

They are generated into `docs/events/` and committed, so that a change of the contract is seen in
review; `incompatibilities` is what keeps a change from breaking those who read or write the old
form.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rapport.common.events.envelope import CATALOGUE, EventData
from rapport.common.events.topics import CASES, CRISES, INBOUND, TOPICS, Topic

ASYNCAPI: Final = "asyncapi.json"
_FOREIGN: Final = "cloudevent"
_FORMAT: Final = "application/schema+json;version=draft-2020-12"


def json_schema(declared: type[EventData]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one event type's data."""
    schema = declared.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{declared.TYPE}.json",
        **schema,
        "title": declared.TYPE,
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.1 document: every topic with its messages and its one writer."""
    messages = {
        type: {
            "name": type,
            "summary": (declared.__doc__ or "").strip().splitlines()[0],
            "contentType": "application/json",
            "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": f"./{type}.json"}},
        }
        for type, declared in _types()
    }
    channels = {
        name: {
            "address": name,
            "description": f"Written by {topic.writer}; {topic.partitions} partitions; "
            f"kept {topic.retention.days} days.",
            "messages": {
                type: {"$ref": f"#/components/messages/{type}"} for type in _types_on(topic)
            },
        }
        for name, topic in TOPICS.items()
    }
    operations = {
        f"publish {name}": {
            "action": "send",
            "title": f"{topic.writer} publishes",
            "channel": {"$ref": f"#/channels/{name}"},
        }
        for name, topic in TOPICS.items()
    }
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Rapport events",
            "version": "1",
            "description": "CloudEvents 1.0 in Kafka binary mode; the data are described here.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": {**messages, _FOREIGN: _foreign_message()}},
    }


def _types_on(topic: Topic) -> list[str]:
    """Name what travels on a topic; other systems' events have types of their own."""
    if topic is INBOUND:
        return [_FOREIGN]
    return [
        type
        for type, declared in _types()
        if declared.TOPIC is topic or (declared.TOPIC is None and topic in (CASES, CRISES))
    ]


def _foreign_message() -> dict[str, Any]:
    attributes = ("ce_specversion", "ce_id", "ce_source", "ce_type")
    return {
        "name": _FOREIGN,
        "title": "Any CloudEvent 1.0 that intake can read",
        "summary": "An event of a type that a mapping serves, or `rapport.feedback.submitted.v1`, "
        "whose data are what `POST /intake/v1/feedback` takes. In binary mode its attributes are "
        "headers; in structured mode the header `content-type` is `application/cloudevents+json` "
        "and they are part of the value.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                "content-type": {"type": "string"},
                **{name: {"type": "string"} for name in attributes},
                "ce_exercise": {"type": "string", "description": "The drill that it is part of."},
                "ce_historical": {"type": "string", "enum": ["true", "false"]},
                "traceparent": {"type": "string"},
            },
        },
        "payload": {},
    }


def _types() -> list[tuple[str, type[EventData]]]:
    """Return our own types in order (tests declare others)."""
    return sorted(item for item in CATALOGUE.items() if item[0].startswith("rapport."))


def documents() -> dict[str, str]:
    """Return every generated document by its file name."""
    found: dict[str, Any] = {f"{type}.json": json_schema(data) for type, data in _types()}
    found[ASYNCAPI] = asyncapi()
    return {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in sorted(found.items())
    }


def export(folder: Path) -> list[str]:
    """Write the documents to `folder`; return what breaks old readers.

    Where something does, as a type's document that is no more, nothing is written. What else is in
    the folder stays as it is.
    """
    broken = list(broken_by(folder))
    if not broken:
        generated = documents()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in generated.items():
            (folder / name).write_text(text, "utf-8")
    return broken


def broken_by(folder: Path) -> Iterator[str]:
    """Name every way in which today's types do not fit the documents in `folder`."""
    for path in sorted(folder.glob("rapport.*.json")):
        declared = CATALOGUE.get(path.stem)
        if declared is None:
            yield f"{path.stem} is no more: publish a new version beside it"
            continue
        old = json.loads(path.read_text("utf-8"))
        for reason in incompatibilities(old, json_schema(declared)):
            yield f"{path.stem}: {reason}"


def incompatibilities(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Name what a reader of `old` or a writer of `old` could not live with in `new`.

    Fields may be added (optional ones), descriptions and defaults may change, an enumeration may
    grow. A field that went, changed its type or became required, a word that went: breaking.
    """
    yield from _compare("", old, new, old.get("$defs", {}), new.get("$defs", {}))


def _compare(
    place: str, old: Any, new: Any, old_defs: dict[str, Any], new_defs: dict[str, Any]
) -> Iterator[str]:
    old, new = _resolve(old, old_defs), _resolve(new, new_defs)
    if _kind(old) != _kind(new):
        yield f"{place or '/'} changed from {_kind(old)} to {_kind(new)}"
        return
    for word in set(old.get("enum", ())) - set(new.get("enum", ())):
        yield f"{place} lost the word {word!r}"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{place}/{name} is gone"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{place}/{name} became required"
    for name in before.keys() & after.keys():
        yield from _compare(f"{place}/{name}", before[name], after[name], old_defs, new_defs)
    if "items" in old and "items" in new:
        yield from _compare(f"{place}/items", old["items"], new["items"], old_defs, new_defs)


def _resolve(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, dict) and "$ref" in schema:
        resolved: dict[str, Any] = definitions[schema["$ref"].rpartition("/")[2]]
        return resolved
    return schema if isinstance(schema, dict) else {}


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(
            sorted(
                option.get("type") or option.get("$ref", "").rpartition("/")[2]
                for option in schema["anyOf"]
            )
        )
    return str(schema.get("type", "anything"))
