"""The HTTP interface of the knowledge service."""

from rapport.common.http import Router
from rapport.knowledge.api import articles, finding, key_messages, statements

router = Router(prefix="/knowledge/v1")
for part in (articles, key_messages, statements, finding):
    router.include_router(part.router)
