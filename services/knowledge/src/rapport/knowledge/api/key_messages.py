"""/key-messages: what everyone says about a matter."""

from typing import Annotated, Any

from fastapi import Query, Response

from rapport.common.http import Command, Cursor, Limit, Router, command, etag, page
from rapport.knowledge.api.shared import (
    PREFIX,
    Given,
    Id,
    Listing,
    Published,
    Reader,
    publish,
    retire,
    shown,
)
from rapport.knowledge.domain.key_messages import KeyMessage, KeyMessageContent
from rapport.knowledge.domain.words import Name

router = Router(prefix="/key-messages", tags=["key messages"])

Wish = Annotated[Command, command("key_message.write")]


class KeyMessageView(KeyMessageContent, Published):
    """A key message in its latest version."""

    @classmethod
    def of(cls, message: KeyMessage) -> "KeyMessageView":
        """Show a key message."""
        return cls(**shown(message))


@router.get(
    "", summary="List key messages, the newest first", response_model=Listing[KeyMessageView]
)
async def find(
    reader: Reader,
    given: Given,
    product: Annotated[Name | None, Query(description="Only about this product.")] = None,
    retired: Annotated[bool, Query(description="The retired ones instead.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Any:
    """List what is to be said now, or what has been retired."""
    where = {"product": product, "retired": retired}
    return page(
        await given.repository.newest(KeyMessage, where, limit=limit, cursor=cursor),
        KeyMessageView.of,
    )


@router.post("", summary="Publish a key message", status_code=201)
async def create(
    content: KeyMessageContent, wish: Wish, given: Given, response: Response
) -> KeyMessageView:
    """Publish a key message under an id of its own; a repeat with the same key is the same one."""
    message = await publish(KeyMessage, wish.cause, content, wish, given)
    response.headers.update(etag(message) | {"Location": f"{PREFIX}/key-messages/{message.id}"})
    return KeyMessageView.of(message)


@router.get("/{id}", summary="Read a key message")
async def read(id: Id, reader: Reader, given: Given, response: Response) -> KeyMessageView:
    """Return the latest version."""
    message = await given.repository.one(KeyMessage, id)
    response.headers.update(etag(message))
    return KeyMessageView.of(message)


@router.put("/{id}", summary="Publish a version of a key message")
async def put(
    id: Id, content: KeyMessageContent, wish: Wish, given: Given, response: Response
) -> KeyMessageView:
    """Publish a new version, after which nobody is offered the one before."""
    message = await publish(KeyMessage, id, content, wish, given)
    response.headers.update(etag(message))
    return KeyMessageView.of(message)


@router.delete("/{id}", summary="Retire a key message", status_code=204)
async def delete(id: Id, wish: Wish, given: Given) -> None:
    """Let nobody be offered the message any more; it can still be read, and published again."""
    await retire(KeyMessage, id, wish, given)
