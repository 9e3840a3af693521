"""The full-text index of one operation: one SQLite file, written completely or not at all."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Hit", "IndexWriter", "SearchResult", "search_index", "write_index"]

MAX_QUERY: Final = 200
MAX_HITS: Final = 30
# Delimit a found word in a snippet. ``read_text`` removes control characters, so a document has none.
MARKS: Final = ("\x02", "\x03")
_WORD = re.compile(r"\w+")

_SCHEMA = """
CREATE VIRTUAL TABLE passages USING fts5(document UNINDEXED, text, tokenize = "unicode61 remove_diacritics 2");
CREATE VIRTUAL TABLE terms USING fts5vocab(passages, row);
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage. The snippet has ``MARKS`` around the words of the query that were found."""

    document: str
    snippet: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """``total`` passages contain the words of the query. ``hits`` are the best of them."""

    total: int
    hits: tuple[Hit, ...]


class IndexWriter:
    """Writes an index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, passages: Iterable[tuple[str, str]]) -> None:
        """Add pairs of document name and passage."""
        with self._connection:
            self._connection.executemany("INSERT INTO passages VALUES (?, ?)", passages)

    def terms(self) -> int:
        """Optimise the index and return its number of distinct terms."""
        with self._connection:
            self._connection.execute("INSERT INTO passages(passages) VALUES ('optimize')")
        (terms,) = self._connection.execute("SELECT count(*) FROM terms").fetchone()
        return int(terms)


@contextlib.contextmanager
def write_index(path: Path) -> Iterator[IndexWriter]:
    """Create an index in a temporary file and rename it at the end of the block.

    A file at ``path`` is therefore complete, even if a worker was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        temporary = Path(directory) / "index.sqlite"
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.executescript(_SCHEMA)
            yield IndexWriter(connection)
        temporary.replace(path)


def search_index(path: Path, query: str) -> SearchResult:
    """Find passages that contain all terms of the query. The last term also matches as a prefix."""
    expression = _expression(query)
    if not expression:
        return SearchResult(0, ())
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (total,) = connection.execute("SELECT count(*) FROM passages WHERE passages MATCH ?", (expression,)).fetchone()
        rows = connection.execute(
            "SELECT document, snippet(passages, 1, ?, ?, '…', 24) FROM passages WHERE passages MATCH ? "
            "ORDER BY rank LIMIT ?",
            (*MARKS, expression, MAX_HITS),
        ).fetchall()
    return SearchResult(int(total), tuple(Hit(document, snippet) for document, snippet in rows))


def _expression(query: str) -> str:
    # Quoted terms only: the query cannot contain FTS5 syntax.
    terms = [f'"{term}"' for term in _WORD.findall(query[:MAX_QUERY])]
    return f"{' '.join(terms)} *" if terms else ""
