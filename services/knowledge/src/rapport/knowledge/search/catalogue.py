"""The catalogue: what may be said now, and how it is found.

Everything that is published has a place: an article or a key message its own, a statement the one
for its crisis and purpose. A place holds the latest that was put there, in whatever order it is
heard of, so once something is replaced, neither search nor suggestions return it (A5). What is said
in a drill has no place here.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from rapport.common.events.envelope import sequence
from rapport.common.events.vocabulary import Language
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.domain.statements import State, Statement
from rapport.knowledge.repository import Said
from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.index import Hit, Index

LANGUAGES: Final = tuple(language for language in Language if language is not Language.UND)


class Shown(NamedTuple):
    """What a place holds: its rank there (text that sorts) and the entries that are found."""

    place: str
    rank: str
    entry_id: str
    entries: tuple[Entry, ...]


class Catalogue:
    """What may be said now. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._index = Index()
        self._places: dict[str, Shown] = {}

    def show(self, said: Iterable[Said]) -> None:
        """Let these be found as they are now, or not any more; what is older changes nothing."""
        for item in said:
            shown = _shown(item)
            if shown is not None:
                self._put(shown)

    def search(
        self, query: str, *, language: str | None, kind: str | None, limit: int
    ) -> list[Hit]:
        """Return what fits a query best; None is any language or kind."""
        return self._index.search(query, language=language, kind=kind, limit=limit)

    def suggest(self, case: CaseText, *, kind: str, limit: int) -> list[Hit]:
        """Return what may help with a case: in its language first, then from other languages."""
        hits = self._suggestions(case, case.language, kind, limit)
        if len(hits) < limit:
            others = [language for language in LANGUAGES if language != case.language]
            more = (hit for other in others for hit in self._suggestions(case, other, kind, limit))
            hits += sorted(more, key=lambda hit: -hit.score)
        return list(_each_once(hits))[:limit]

    def _suggestions(self, case: CaseText, language: str, kind: str, limit: int) -> list[Hit]:
        return self._index.suggest(
            case.words, language=language, product=case.product, kind=kind, limit=limit
        )

    def _put(self, shown: Shown) -> None:
        before = self._places.get(shown.place)
        if before is not None:
            if shown.rank < before.rank:
                return
            self._index.remove(before.entry_id)
        for entry in shown.entries:
            self._index.put(entry)
        self._places[shown.place] = shown._replace(entries=())


def name(entry: Entry) -> str:
    """Return the id of the article, key message or statement that an entry is of."""
    return entry.id.partition("/")[2]


def _each_once(hits: Iterable[Hit]) -> Iterator[Hit]:
    seen: set[str] = set()
    for hit in hits:
        if hit.entry.id not in seen:
            seen.add(hit.entry.id)
            yield hit


def _shown(said: Said) -> Shown | None:
    match said:
        case Article():
            return _article(said)
        case KeyMessage():
            return _key_message(said)
        case Statement():
            return _statement(said)


def _article(article: Article) -> Shown:
    id, content = f"article/{article.id}", article.content
    entries = (
        Entry(
            id=id,
            kind="article",
            language=language,
            title=content.title[language],
            text=text,
            paraphrases=content.paraphrases.get(language, ()),
            product=content.product,
            tags=content.topics,
        )
        for language, text in content.text.items()
    )
    return Shown(id, sequence(article.version, 0), id, () if article.retired else tuple(entries))


def _key_message(message: KeyMessage) -> Shown:
    id, content = f"key_message/{message.id}", message.content
    entries = (
        Entry(
            id=id,
            kind="key_message",
            language=language,
            title="",
            text=text,
            product=content.product,
            tags=content.topics,
        )
        for language, text in content.text.items()
    )
    return Shown(id, sequence(message.version, 0), id, () if message.retired else tuple(entries))


def _statement(statement: Statement) -> Shown | None:
    """What was never released, or in a drill, has no place; what was superseded leaves it."""
    if statement.released_at is None or statement.exercise is not None:
        return None
    id, crisis = f"statement/{statement.id}", statement.crisis_id
    place = id if crisis is None else f"crisis/{crisis}/{statement.purpose}"
    rank = f"{statement.released_at.isoformat(timespec='microseconds')}/{statement.id}"
    entries = (
        Entry(id=id, kind="statement", language=language, title=wording.subject, text=wording.text)
        for language, wording in statement.draft.released.items()
    )
    return Shown(place, rank, id, tuple(entries) if statement.state is State.RELEASED else ())
