"""Routing on one page: what it consumes, what it owns, what it works with."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

from rapport.common.events.topics import (
    ANALYTICS,
    CASES,
    COMMUNICATIONS,
    CRISES,
    FEEDBACK,
    KNOWLEDGE,
    NOTIFICATIONS,
)
from rapport.common.events.vocabulary import Language
from rapport.common.policy import load_policy
from rapport.common.runtime import Host, Service
from rapport.routing.api import router
from rapport.routing.domain.assessment import LexiconAssessor
from rapport.routing.domain.calendars import Calendars
from rapport.routing.domain.case import Case
from rapport.routing.domain.clocks import Clocks, Timing
from rapport.routing.domain.crisis import Crisis
from rapport.routing.domain.history import CaseHistory
from rapport.routing.domain.lexicon import Lexicon
from rapport.routing.domain.policies import KeptPolicy, Policies
from rapport.routing.domain.rules import Rules
from rapport.routing.domain.teams import Teams
from rapport.routing.handlers import DECLARED
from rapport.routing.repository import Resources, Workloads
from rapport.routing.settings import Settings

LANGUAGES: Final = (Language.EN, Language.ZH, Language.FA)


def load_policies(folder: Path | None = None) -> Policies:
    """Return the policies in force; raises Invalid with file and line for every mistake."""
    teams = load_policy("routing", "teams", Teams, folder).rules
    calendars = load_policy("routing", "calendars", Calendars, folder).rules
    rules = load_policy("routing", "rules", Rules, folder, {"teams": teams.teams}).rules
    clocks = load_policy("routing", "clocks", Clocks, folder, {"calendars": calendars.root}).rules
    return Policies(rules, teams, Timing(clocks=clocks, calendars=calendars))


@cache
def built_in_assessor() -> LexiconAssessor:
    """Return the assessor with our own lexicons; it never changes, and takes long to build."""
    return load_assessor()


def load_assessor(folder: Path | None = None) -> LexiconAssessor:
    """Return the assessor with the lexicons in force."""
    return LexiconAssessor(
        load_policy("routing", f"lexicons/{language}", Lexicon, folder).rules
        for language in LANGUAGES
    )


def resources(host: Host) -> Resources:
    """Read the policies and lexicons that the settings name."""
    settings: Settings = host.settings
    folder = settings.policy_dir
    return Resources(
        store=host.store,
        engine=host.engine,
        assessor=load_assessor(folder) if folder else built_in_assessor(),
        policies=load_policies(folder),
        workloads=Workloads(
            host.store, host.clock, timedelta(seconds=settings.routing_count_loads_seconds)
        ),
    )


async def keep_policies(routing: Resources) -> None:
    """Keep the policies in force, so that the clocks that pin them can be worked out again."""
    for policy in routing.policies.to_keep():
        await routing.engine.change(KeptPolicy, policy.id, policy.unless_kept, cause=policy.id)


SERVICE: Final = Service(
    name="routing",
    title="Rapport routing",
    consumes=(FEEDBACK, CASES, CRISES, NOTIFICATIONS, COMMUNICATIONS, KNOWLEDGE, ANALYTICS),
    kinds=(Case, CaseHistory, Crisis, KeptPolicy),
    declared=DECLARED,
    router=router,
    resources=resources,
    settings=Settings,
    begin=keep_policies,
)
