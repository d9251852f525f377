"""Search over everything that may be said: articles, key messages and statements, in any language.

An in-memory index, rebuilt from the store at start and kept current by whoever tails the topic:
`put` and `remove` are all it takes. A text becomes terms (`terms`): words and three letters of
them, or characters and pairs of Chinese. Segments (`segment`) hold which entries have which terms
and never change but for removals; the index (`index`) merges them like a log-structured tree and
ranks by BM25. What matched is shown by `highlight`, on demand.
"""

from rapport.knowledge.search.entry import Entry
from rapport.knowledge.search.highlight import Snippet
from rapport.knowledge.search.index import Hit, Index

__all__ = ["Entry", "Hit", "Index", "Snippet"]
