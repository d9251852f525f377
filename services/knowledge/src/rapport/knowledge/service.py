"""The knowledge service, declared."""

from rapport.common.events.topics import CASES, CRISES, FEEDBACK, KNOWLEDGE
from rapport.common.policy import load_policy
from rapport.common.runtime import Host, Service
from rapport.knowledge.api import router
from rapport.knowledge.api.shared import Resources
from rapport.knowledge.domain.approvals import ApprovalRules
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.crises import KnownCrisis
from rapport.knowledge.domain.in_force import InForce
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.domain.statements import Statement
from rapport.knowledge.handlers import DECLARED
from rapport.knowledge.repository import Repository
from rapport.knowledge.search.catalogue import Catalogue
from rapport.knowledge.search.follower import Follower
from rapport.knowledge.settings import Settings


def resources(host: Host) -> Resources:
    """Build what the service works with; raises Invalid where the approval policy has mistakes."""
    approvals = load_policy("knowledge", "approvals", ApprovalRules, host.settings.policy_dir)
    repository = Repository(host.store)
    catalogue = Catalogue()
    follower = Follower(catalogue, repository, host.bus, host.clock)
    return Resources(approvals.rules, repository, catalogue, follower)


async def begin(resources: Resources) -> None:
    """Fill the catalogue and keep it current."""
    await resources.follower.start()


async def end(resources: Resources) -> None:
    """Follow the topic no more."""
    await resources.follower.stop()


SERVICE = Service(
    name="knowledge",
    title="Rapport knowledge: what may be said, with whose approval",
    consumes=(FEEDBACK, CASES, CRISES, KNOWLEDGE),
    kinds=(Article, KeyMessage, Statement, InForce, CaseText, KnownCrisis),
    declared=DECLARED,
    router=router,
    resources=resources,
    settings=Settings,
    begin=begin,
    end=end,
)
