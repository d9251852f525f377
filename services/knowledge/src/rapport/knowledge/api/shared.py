"""What the parts of the HTTP interface share."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Path, Request
from pydantic import BaseModel

from rapport.common.errors import NotFound
from rapport.common.events.envelope import Instant
from rapport.common.http import Command, Principal, may
from rapport.knowledge.domain.approvals import ApprovalRules
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.repository import Repository
from rapport.knowledge.search.catalogue import Catalogue
from rapport.knowledge.search.follower import Follower

P = TypeVar("P", Article, KeyMessage)
View = TypeVar("View", bound=BaseModel)

PREFIX = "/knowledge/v1"

Id = Annotated[
    str,
    Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Letters, digits and . _ -"),
]
Reader = Annotated[Principal, may("knowledge.read")]


@dataclass(frozen=True, slots=True)
class Resources:
    """What the endpoints work with."""

    approvals: ApprovalRules
    repository: Repository
    catalogue: Catalogue
    follower: Follower


def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


Given = Annotated[Resources, Depends(_resources)]


class Listing(BaseModel, Generic[View]):
    """A page of a list; `next` is the cursor of the page after, null where there is none."""

    items: list[View]
    next: str | None


class Published(BaseModel):
    """What is known of every publication besides its content."""

    id: str
    version: int
    retired: bool
    created_at: Instant
    published_at: Instant
    published_by: str


def shown(publication: Article | KeyMessage) -> dict[str, Any]:
    """Return a publication's values for its view."""
    return {
        "id": publication.id,
        "version": publication.edition,
        "retired": publication.retired,
        "created_at": publication.created_at,
        "published_at": publication.published_at,
        "published_by": publication.published_by,
        **dict(publication.content),
    }


async def publish(kind: type[P], id: str, content: Any, wish: Command, given: Resources) -> P:
    """Publish a version and let it be found at once."""

    def decide(current: P | None) -> P | None:
        return kind.publish(current, id, content, wish.by.subject, wish.at)

    published = await wish.change(kind, id, decide)
    given.catalogue.show([published])
    return published


async def retire(kind: type[P], id: str, wish: Command, given: Resources) -> None:
    """Retire a publication and let it be found no more; raises NotFound."""

    def decide(current: P | None) -> P | None:
        if current is None:
            raise NotFound("there is nothing of this id")
        return current.retire(wish.by.subject)

    retired = await wish.change(kind, id, decide)
    given.catalogue.show([retired])
