"""Analytics on one page: what it consumes, what it owns, what it works with."""

from rapport.analytics.api import router
from rapport.analytics.domain.burst import BurstPolicy
from rapport.analytics.domain.digest import Digest, DigestPolicy, DigestSchedule
from rapport.analytics.domain.facts import (
    CaseStep,
    ClockOutcome,
    CrisisStep,
    Heard,
    Measurement,
    MessageOutcome,
)
from rapport.analytics.domain.kpis import KpiPolicy, TargetReview
from rapport.analytics.domain.watch import BrandWatch, Listening, Signal, Watch
from rapport.analytics.handlers import DECLARED, begin
from rapport.analytics.repository import Resources
from rapport.analytics.settings import Settings
from rapport.common.events.topics import ANALYTICS, CASES, CRISES, NOTIFICATIONS
from rapport.common.policy import load_policy
from rapport.common.runtime import Host, Service


def resources(host: Host) -> Resources:
    """Read the policies; raises Invalid where one has mistakes."""
    folder = host.settings.policy_dir
    return Resources(
        store=host.store,
        engine=host.engine,
        kpis=load_policy("analytics", "kpis", KpiPolicy, folder),
        bursts=load_policy("analytics", "bursts", BurstPolicy, folder),
        digests=load_policy("analytics", "digests", DigestPolicy, folder),
    )


SERVICE = Service(
    name="analytics",
    title="Rapport analytics: what is measured and what stands out",
    consumes=(CASES, CRISES, NOTIFICATIONS, ANALYTICS),
    kinds=(
        BrandWatch,
        CaseStep,
        ClockOutcome,
        CrisisStep,
        Digest,
        DigestSchedule,
        Heard,
        Listening,
        Measurement,
        MessageOutcome,
        Signal,
        TargetReview,
        Watch,
    ),
    declared=DECLARED,
    router=router,
    resources=resources,
    settings=Settings,
    begin=begin,
)
