"""What the API works with: the policy, the repository and the catalogue that follows the store."""

from dataclasses import dataclass

from rapport.common.policy import Policy, load_policy
from rapport.common.runtime import Host
from rapport.knowledge.catalogue import Catalogue
from rapport.knowledge.domain.approvals import ApprovalRules
from rapport.knowledge.follower import Follower
from rapport.knowledge.repository import Repository


@dataclass(frozen=True)
class Resources:
    """Built once per process."""

    approvals: Policy[ApprovalRules]
    repository: Repository
    catalogue: Catalogue
    follower: Follower


def resources(host: Host) -> Resources:
    """Build them; raises Invalid where the approval policy has mistakes."""
    repository = Repository(host.store)
    catalogue = Catalogue()
    return Resources(
        load_policy("knowledge", "approvals", ApprovalRules, host.settings.policy_dir),
        repository,
        catalogue,
        Follower(catalogue, repository, host.bus, host.clock),
    )


async def begin(resources: Resources) -> None:
    """Fill the catalogue and keep it current."""
    await resources.follower.start()


async def end(resources: Resources) -> None:
    """Let go of the topic."""
    await resources.follower.stop()
