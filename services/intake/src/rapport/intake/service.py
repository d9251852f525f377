"""Intake on one page: what it consumes, what it owns, what it works with."""

from rapport.common.events.topics import CASES, DEAD_LETTERS, FEEDBACK, INBOUND
from rapport.common.runtime import Host, Service
from rapport.intake.api import router
from rapport.intake.api.load import AT_ONCE
from rapport.intake.api.reception import Reception
from rapport.intake.domain.status import CaseStatus, FeedbackStatus
from rapport.intake.handlers import DECLARED
from rapport.intake.repository import Statuses, load_mappings
from rapport.intake.settings import Settings


def resources(host: Host) -> Reception:
    """Read the mappings and open the reception."""
    settings: Settings = host.settings
    return Reception(
        host.bus,
        host.clock,
        Statuses(host.store),
        load_mappings(settings.mapping_dir),
        person_key=settings.person_key.get_secret_value().encode(),
        status_key=settings.status_key.get_secret_value().encode(),
    )


SERVICE = Service(
    name="intake",
    title="Rapport intake",
    consumes=(FEEDBACK, CASES, DEAD_LETTERS, INBOUND),
    kinds=(CaseStatus, FeedbackStatus),
    declared=DECLARED,
    router=router,
    resources=resources,
    settings=Settings,
    at_once=AT_ONCE,
)
