"""Routing over HTTP, by aggregate."""

from rapport.common.http import Router
from rapport.routing.api import cases, crises

router = Router(prefix="/routing/v1")
router.include_router(cases.router)
router.include_router(crises.router)
