"""The HTTP interface of the knowledge service."""

from fastapi import APIRouter

from rapport.knowledge.api import articles, finding, key_messages, statements

router = APIRouter(prefix="/knowledge/v1")
for part in (articles, key_messages, statements, finding):
    router.include_router(part.router)
