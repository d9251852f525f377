"""Where a message stands, for whoever sent it."""

import hmac
from typing import Annotated

from fastapi import Depends, Path, Query

from rapport.common.errors import NotFound
from rapport.common.http import Principal, Router, may
from rapport.intake.api.reception import Reception
from rapport.intake.api.submitting import reception
from rapport.intake.api.views import StatusView
from rapport.intake.domain import reference_of
from rapport.intake.domain.status import CaseStatus, FeedbackStatus, State

router = Router(tags=["feedback"])


@router.get("/feedback/{name}", response_model_exclude_none=True)
async def status(
    name: Annotated[str, Path(max_length=100, description="The id or the reference.")],
    desk: Annotated[Reception, Depends(reception)],
    caller: Annotated[Principal, may("feedback.read")],
    mac: Annotated[
        str | None, Query(max_length=100, description="As the status URL has it.")
    ] = None,
) -> StatusView:
    """Tell where a message stands; a publisher sees what it sent itself, staff see everything.

    What is accepted and not looked at yet is `pending`, for those who have the status URL.
    """
    found = await desk.statuses.of(name)
    was_told = mac is not None and hmac.compare_digest(mac.encode(), desk.mac(name).encode())
    if found is None:
        if not was_told:
            raise NotFound("there is no such feedback")
        return StatusView(id=name, reference=reference_of(name), state=State.PENDING)
    if not _may_see(caller, found, was_told):
        raise NotFound("there is no such feedback")
    return _view(found, await desk.statuses.of_its_case(found))


def _may_see(caller: Principal, found: FeedbackStatus, was_told: bool) -> bool:
    is_staff = bool(caller.roles - {"publisher"})
    return is_staff or found.client == caller.subject or (found.client is None and was_told)


def _view(found: FeedbackStatus, case: CaseStatus | None) -> StatusView:
    latest = case or found
    return StatusView(
        id=found.id,
        reference=found.reference,
        state=latest.state,
        case_id=found.case_id,
        received_at=found.received_at,
        changed_at=latest.changed_at,
        historical=found.historical,
        exercise=found.exercise,
    )
