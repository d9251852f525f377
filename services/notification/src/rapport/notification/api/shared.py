"""What notification's routes have in common: bodies, texts, lists, resources."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from rapport.common.aggregate import Aggregate
from rapport.common.errors import NotFound
from rapport.common.store.port import Page, Store
from rapport.common.text import one_line, paragraphs
from rapport.notification.resources import Resources

A = TypeVar("A", bound=Aggregate)
View = TypeVar("View", bound=BaseModel)


def resources(request: Request) -> Resources:
    """Dependency: what the service works with."""
    found: Resources = request.app.state.resources
    return found


Notifying = Annotated[Resources, Depends(resources)]

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


Line = Annotated[str, AfterValidator(one_line), Field(max_length=200)]
"""A name, a title, a word: one line, which may be empty."""

Text = Annotated[str, AfterValidator(paragraphs), Field(max_length=20_000)]
"""A text of one or many paragraphs."""


class Body(BaseModel):
    """A request's body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Listed(BaseModel, Generic[View]):
    """A page of a list, and the cursor of the next."""

    items: Sequence[View]
    next: str | None


def listed(found: Page[A], show: Callable[[A], View]) -> Listed[View]:
    """Return a page as it is shown."""
    return Listed(items=[show(item) for item in found.items], next=found.next)


def given(**filters: Any) -> dict[str, Any]:
    """Return the filters that were given."""
    return {name: value for name, value in filters.items() if value is not None}


async def existing(store: Store, kind: type[A], id: str) -> A:
    """Return an aggregate; raises NotFound where there is none."""
    found = await store.get(kind, id)
    if found is None:
        raise NotFound(f"there is no such {kind.__name__.lower()}")
    return found
