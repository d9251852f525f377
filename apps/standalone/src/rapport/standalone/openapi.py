"""One OpenAPI document of all five services, as a gateway or a standalone process offers them.

Paths cannot meet (each begins with its service's name), nor can operations (their ids are made of
their paths). Schemas can: where two services mean different things by one name, the later one's is
called by its service's name as well.
"""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import JSONResponse

from rapport.common.http import create_app
from rapport.common.runtime import Service

Json = dict[str, Any]

SCHEMA: Final = "#/components/schemas/"


def document(services: Iterable[Service]) -> Json:
    """Return the merged document."""
    merged: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Rapport",
            "version": "1",
            "description": "Rapport connects customer support with public relations.",
        },
        "tags": [],
        "paths": {},
        "components": {"schemas": {}, "securitySchemes": {}},
    }
    for service in services:
        own = create_app(service.name, service.title, service.router).openapi()
        merged["tags"].append({"name": service.name, "description": service.title})
        _join(merged, own, service.name)
    return merged


def write(file: Path, services: Iterable[Service]) -> None:
    """Write the merged document to a file."""
    text = json.dumps(document(services), indent=1, ensure_ascii=False)
    file.write_text(f"{text}\n", "utf-8")


def offer(app: FastAPI, services: Iterable[Service]) -> None:
    """Let `app` answer /openapi.json; the document is made when it is asked for first."""
    made: list[Json] = []

    @app.get("/openapi.json")
    async def openapi() -> JSONResponse:
        if not made:
            made.append(await asyncio.to_thread(document, services))
        return JSONResponse(made[0])


def _join(merged: Json, own: Json, service: str) -> None:
    """Add one service's document to the merged one; its operations are tagged with its name."""
    known, schemas = merged["components"]["schemas"], own["components"]["schemas"]
    clashing = _clashing(known, schemas)
    new = {SCHEMA + name: SCHEMA + service.capitalize() + name for name in clashing}
    for name, schema in schemas.items():
        known[service.capitalize() + name if name in clashing else name] = _renamed(schema, new)
    merged["components"]["securitySchemes"].update(own["components"].get("securitySchemes", {}))
    for path, operations in own["paths"].items():
        for operation in operations.values():
            operation["tags"] = [service]
        merged["paths"][path] = _renamed(operations, new)


def _clashing(known: Json, schemas: Json) -> set[str]:
    """Return the names that mean something else already, by themselves or by what they refer to."""
    clashing: set[str] = set()
    more = {name for name, schema in schemas.items() if known.get(name, schema) != schema}
    while more:
        clashing |= more
        changed = {SCHEMA + name: "" for name in clashing}
        more = {
            name
            for name in (known.keys() & schemas.keys()) - clashing
            if _renamed(schemas[name], changed) != schemas[name]
        }
    return clashing


def _renamed(part: Any, new: dict[str, str]) -> Any:
    """Return a part of a document in which references are replaced."""
    if isinstance(part, str):
        return new.get(part, part)
    if isinstance(part, list):
        return [_renamed(item, new) for item in part]
    if isinstance(part, dict):
        return {key: _renamed(value, new) for key, value in part.items()}
    return part
