"""Routing over HTTP, by aggregate."""

from fastapi import APIRouter

from rapport.routing.api import cases

router = APIRouter(prefix="/routing/v1")
router.include_router(cases.router)
