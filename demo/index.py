"""The full-text index of one operation: a SQLite file of its own, written whole or not at all."""

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
# Stand around a found word in a snippet. Documents are read without control characters, so they cannot be forged.
MARKS: Final = ("\x02", "\x03")
_WORD = re.compile(r"\w+")

_SCHEMA = """
CREATE VIRTUAL TABLE passages USING fts5(document UNINDEXED, text, tokenize = "unicode61 remove_diacritics 2");
CREATE VIRTUAL TABLE terms USING fts5vocab(passages, row);
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage; the words that were found stand between ``MARKS``."""

    document: str
    snippet: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """``total`` passages hold the words; ``hits`` are the best of them."""

    total: int
    hits: tuple[Hit, ...]


class IndexWriter:
    """An index that is being written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, passages: Iterable[tuple[str, str]]) -> None:
        """Index pairs of document and passage."""
        with self._connection:
            self._connection.executemany("INSERT INTO passages VALUES (?, ?)", passages)

    def terms(self) -> int:
        """Put it in order, and count how many different terms there are."""
        with self._connection:
            self._connection.execute("INSERT INTO passages(passages) VALUES ('optimize')")
        (terms,) = self._connection.execute("SELECT count(*) FROM terms").fetchone()
        return int(terms)


@contextlib.contextmanager
def write_index(path: Path) -> Iterator[IndexWriter]:
    """An index, under another name until the block has ended: whoever finds the file finds the whole index, also if a
    worker died.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        draft = Path(directory) / "draft.sqlite"
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.executescript(_SCHEMA)
            yield IndexWriter(connection)
        draft.replace(path)


def search_index(path: Path, query: str) -> SearchResult:
    """Passages that hold all words of the query, the last one also as the beginning of a word."""
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
    # Quoted words only: whatever FTS5 would take for syntax is no part of a word.
    words = [f'"{word}"' for word in _WORD.findall(query[:MAX_QUERY])]
    return f"{' '.join(words)} *" if words else ""
