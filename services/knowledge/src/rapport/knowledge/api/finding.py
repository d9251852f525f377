"""/search and /suggestions: what may be said now, found."""

from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import BaseModel

from rapport.common.events.vocabulary import Language
from rapport.common.http import Router
from rapport.knowledge.api.shared import Given, Listing, Reader
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.words import Name, WrittenLanguage
from rapport.knowledge.search import Hit
from rapport.knowledge.search.catalogue import name

router = Router(tags=["finding"])

KEY_MESSAGES: Final = 3
"""Key messages that come with suggestions, at most."""

Kind = Literal["article", "key_message", "statement"]
Range = tuple[int, int]


class SnippetView(BaseModel):
    """The part of a text that matched best, from character `start`, and what matched within it."""

    start: int
    text: str
    ranges: tuple[Range, ...]


class HitView(BaseModel):
    """Something that was found; `score` is from 0 to 1, ranges are [start, end) in characters."""

    kind: Kind
    id: str
    language: Language
    title: str
    title_ranges: tuple[Range, ...]
    snippet: SnippetView
    product: str | None
    score: float


class SuggestionView(HitView):
    """Something that may help with a case, with its whole text to answer with."""

    text: str


@router.get("/search", summary="Search articles, key messages and statements in force")
async def search(
    reader: Reader,
    given: Given,
    q: Annotated[str, Query(min_length=1, max_length=1_000, description="Words or a question.")],
    language: Annotated[WrittenLanguage | None, Query(description="Only in this one.")] = None,
    kind: Annotated[Kind | None, Query(description="Only of this kind.")] = None,
    limit: Annotated[int, Query(ge=1, le=50, description="How many at most.")] = 10,
) -> Listing[HitView]:
    """Return what fits best, the best first; a text in several languages is several hits."""
    hits = given.catalogue.search(q, language=language, kind=kind, limit=limit)
    return Listing(items=[HitView(**_shown(hit)) for hit in hits], next=None)


@router.get("/suggestions", summary="Suggest what may help with a case")
async def suggest(
    reader: Reader,
    given: Given,
    case_id: Annotated[Name, Query(description="The case.")],
    limit: Annotated[int, Query(ge=1, le=20, description="How many articles at most.")] = 5,
) -> Listing[SuggestionView]:
    """Return articles, then up to three key messages, by what the person said.

    What is in the case's language comes first. There is nothing for a case without words, or one
    that is closed.
    """
    case = await given.repository.one(CaseText, case_id)
    hits = [
        *given.catalogue.suggest(case, kind="article", limit=limit),
        *given.catalogue.suggest(case, kind="key_message", limit=KEY_MESSAGES),
    ]
    items = [SuggestionView(**_shown(hit), text=hit.entry.text) for hit in hits]
    return Listing(items=items, next=None)


def _shown(hit: Hit) -> dict[str, object]:
    entry, snippet = hit.entry, hit.snippet
    return {
        "kind": entry.kind,
        "id": name(entry),
        "language": entry.language,
        "title": entry.title,
        "title_ranges": hit.title_ranges,
        "snippet": SnippetView(start=snippet.start, text=snippet.text, ranges=snippet.ranges),
        "product": entry.product,
        "score": round(hit.score, 4),
    }
