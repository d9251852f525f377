"""/articles: common questions, guides, communication practice."""

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
from rapport.knowledge.domain.articles import Article, ArticleContent
from rapport.knowledge.domain.words import Name

router = Router(prefix="/articles", tags=["articles"])

Wish = Annotated[Command, command("article.write")]


class ArticleView(ArticleContent, Published):
    """An article in its latest version."""

    @classmethod
    def of(cls, article: Article) -> "ArticleView":
        """Show an article."""
        return cls(**shown(article))


@router.get("", summary="List articles, the newest first", response_model=Listing[ArticleView])
async def find(
    reader: Reader,
    given: Given,
    product: Annotated[Name | None, Query(description="Only about this product.")] = None,
    retired: Annotated[bool, Query(description="The retired ones instead.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Any:
    """List what is published, or what has been retired."""
    where = {"product": product, "retired": retired}
    return page(
        await given.repository.newest(Article, where, limit=limit, cursor=cursor), ArticleView.of
    )


@router.post("", summary="Publish an article", status_code=201)
async def create(
    content: ArticleContent, wish: Wish, given: Given, response: Response
) -> ArticleView:
    """Publish an article under an id of its own; a repeat with the same key is the same article."""
    article = await publish(Article, wish.cause, content, wish, given)
    response.headers.update(etag(article) | {"Location": f"{PREFIX}/articles/{article.id}"})
    return ArticleView.of(article)


@router.get("/{id}", summary="Read an article")
async def read(id: Id, reader: Reader, given: Given, response: Response) -> ArticleView:
    """Return the latest version."""
    article = await given.repository.one(Article, id)
    response.headers.update(etag(article))
    return ArticleView.of(article)


@router.put("/{id}", summary="Publish a version of an article")
async def put(
    id: Id, content: ArticleContent, wish: Wish, given: Given, response: Response
) -> ArticleView:
    """Publish a new version, or the first; the same content again is no new version."""
    article = await publish(Article, id, content, wish, given)
    response.headers.update(etag(article))
    return ArticleView.of(article)


@router.delete("/{id}", summary="Retire an article", status_code=204)
async def delete(id: Id, wish: Wish, given: Given) -> None:
    """Let nobody find the article any more; it can still be read, and published again."""
    await retire(Article, id, wish, given)
