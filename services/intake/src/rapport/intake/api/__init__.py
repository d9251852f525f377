"""Intake over HTTP: feedback in our own form, in other people's, and where it stands."""

from fastapi import APIRouter

from rapport.intake.api import foreign, status, submitting

router = APIRouter(prefix="/intake/v1")
router.include_router(submitting.router)
router.include_router(foreign.router)
router.include_router(status.router)
