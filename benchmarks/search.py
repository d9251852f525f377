"""Search and suggestions against SQLite's full-text index, on the same texts and queries.

The baseline is FTS5 with the trigram tokenizer and bm25, in memory, the title weighing three times
as much as the text, its index optimised after loading. It is asked for any of the words, and bm25
ranks what has some of them; Chinese has no spaces, so there it is asked for trigrams.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from typing import Final

from benchmarks.harness import Row, compare, print_table, rate
from benchmarks.texts import LANGUAGES, Writer
from rapport.knowledge.search import Entry, Index

ARTICLES: Final = 10_000
QUESTIONS: Final = 40
CASES: Final = 8
CHANGES: Final = 40
LIMIT: Final = 10
SEED: Final = 20_261_122
BASELINE: Final = "FTS5, any word"

_WORD: Final = re.compile(r"\w{3,}")


class Fts5:
    """The baseline: the same entries in a table of SQLite, one row each, in the same order."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.execute(
            "CREATE VIRTUAL TABLE entry USING fts5(title, text, tokenize = 'trigram')"
        )
        self._database.execute("INSERT INTO entry(entry, rank) VALUES ('rank', 'bm25(3.0, 1.0)')")
        self._database.execute("BEGIN")
        for row, entry in enumerate(entries):
            self.put(row, entry)
        self._database.execute("COMMIT")
        self._database.execute("INSERT INTO entry(entry) VALUES ('optimize')")

    def put(self, row: int, entry: Entry) -> None:
        """Put an entry into a row, in place of what it held."""
        self._database.execute(
            "INSERT OR REPLACE INTO entry(rowid, title, text) VALUES (?, ?, ?)",
            (row, entry.title, entry.text),
        )

    def search(self, expression: str) -> list[int]:
        """Return the rows that fit an expression best."""
        found = self._database.execute(
            "SELECT rowid FROM entry WHERE entry MATCH ? ORDER BY rank LIMIT ?", (expression, LIMIT)
        )
        return [row for (row,) in found]

    def close(self) -> None:
        self._database.close()


def run() -> list[Row]:
    """Return the rows of each language, and one for articles that change between searches."""
    writers = {language: Writer(language, SEED) for language in LANGUAGES}
    entries = list(islice(_entries(writers), ARTICLES))
    index = Index()
    for entry in entries:
        index.put(entry)
    with closing(Fts5(entries)) as fts5:
        rows = [row for writer in writers.items() for row in _asking(*writer, index, fts5)]
        return [*rows, _changing(entries, writers["en"].question(), index, fts5)]


def _entries(writers: dict[str, Writer]) -> Iterator[Entry]:
    for number, (language, writer) in enumerate(cycle(writers.items())):
        article = writer.article()
        yield Entry(f"article-{number}", "article", language, article.title, article.text)


def _asking(language: str, writer: Writer, index: Index, fts5: Fts5) -> Iterator[Row]:
    questions = [writer.question() for _ in range(QUESTIONS)]
    cases = [writer.case() for _ in range(CASES)]
    asked_questions = [_expression(language, text) for text in questions]
    asked_cases = [_expression(language, text) for text in cases]
    yield compare(
        f"search, {language}",
        BASELINE,
        lambda: _rate(lambda text: index.search(text, language=language, limit=LIMIT), questions),
        lambda: _rate(fts5.search, asked_questions),
        at_least=1.0,
    )
    yield compare(
        f"suggestions for a case, {language}",
        BASELINE,
        lambda: _rate(lambda text: index.suggest(text, language=language, limit=LIMIT), cases),
        lambda: _rate(fts5.search, asked_cases),
        at_least=1.0,
    )


def _changing(entries: Sequence[Entry], question: str, index: Index, fts5: Fts5) -> Row:
    """Compare how fast articles can change when somebody searches after each change."""
    step = len(LANGUAGES) * (ARTICLES // len(LANGUAGES) // CHANGES)
    drafts = {
        row: replace(entries[row], title=f"{entries[row].title} (new)")
        for row in range(0, step * CHANGES, step)
    }
    expression = _expression("en", question)

    def change_ours() -> None:
        for draft in drafts.values():
            index.put(draft)
            index.search(question, language="en", limit=LIMIT)

    def change_theirs() -> None:
        for row, draft in drafts.items():
            fts5.put(row, draft)
            fts5.search(expression)

    return compare(
        "change an article, then search, en",
        BASELINE,
        lambda: rate(CHANGES, change_ours),
        lambda: rate(CHANGES, change_theirs),
        at_least=1.0,
    )


def _expression(language: str, text: str) -> str:
    """Return what FTS5 is asked for: any word of three letters or more, or any trigram."""
    words = _WORD.findall(text)
    if language == "zh":
        words = [word[at : at + 3] for word in words for at in range(len(word) - 2)]
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(words))


def _rate(ask: Callable[[str], object], texts: Sequence[str]) -> float:
    def ask_all() -> None:
        for text in texts:
            ask(text)

    return rate(len(texts), ask_all)


def main() -> None:
    print_table(run())


if __name__ == "__main__":
    main()
