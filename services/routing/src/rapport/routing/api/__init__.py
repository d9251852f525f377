"""Routing over HTTP, by aggregate."""

from fastapi import APIRouter

from rapport.routing.api import cases, crises

router = APIRouter(prefix="/routing/v1")
router.include_router(cases.router)
router.include_router(crises.router)
