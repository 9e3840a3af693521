"""The application's own database: what became of each document, for a page that has lost the thread."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demo.text import Text

__all__ = ["Document", "Operation", "Source", "Store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, label TEXT NOT NULL, cursor TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'running', terms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS documents (
    operation TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL,
    kills INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting', finished INTEGER, passages INTEGER NOT NULL DEFAULT 0,
    words INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (operation, number));
CREATE TABLE IF NOT EXISTS passages (
    operation TEXT NOT NULL, number INTEGER NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (operation, number, position)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to index, under the name that the page shows; names of one operation differ.

    ``kills``: its task is to kill the process that reads it, as a file would that a parser crashes on.
    """

    name: str
    path: Path
    kills: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """``cursor``: the user's channel before the operation's first event. ``state`` is about the index."""

    id: str
    user: str
    label: str
    cursor: str
    state: str
    terms: int
    total: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is done, well or not."""

    document: str
    state: Literal["indexed", "failed"]
    passages: int
    words: int
    bytes: int
    reason: str


class Store:
    """Written by the worker's processes and by the site at once; SQLite's write-ahead log keeps them apart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Make the tables."""
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    def add(self, operation: str, user: str, label: str, sources: Sequence[Source]) -> None:
        """Note an operation before it starts."""
        with self._open() as connection:
            connection.execute("INSERT INTO operations (id, user, label) VALUES (?, ?, ?)", (operation, user, label))
            connection.executemany(
                "INSERT INTO documents (operation, number, name, path, kills) VALUES (?, ?, ?, ?, ?)",
                [(operation, number, one.name, str(one.path), one.kills) for number, one in enumerate(sources)],
            )

    def started(self, operation: str, cursor: str) -> None:
        """Note where the page has to begin to read."""
        with self._open() as connection:
            connection.execute("UPDATE operations SET cursor = ? WHERE id = ?", (cursor, operation))

    def ended(self, operation: str, state: Literal["ready", "failed"], terms: int = 0) -> None:
        """Note the end. The passages stay: should the task run again, it has to find them."""
        with self._open() as connection:
            connection.execute("UPDATE operations SET state = ?, terms = ? WHERE id = ?", (state, terms, operation))

    def source(self, operation: str, number: int) -> Source:
        """A document by its number."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT name, path, kills FROM documents WHERE operation = ? AND number = ?", (operation, number)
            ).fetchone()
        return Source(row[0], Path(row[1]), bool(row[2]))

    def indexed(self, operation: str, number: int, text: Text) -> None:
        """A document is done. A task that runs again writes the same again."""
        with self._open() as connection:
            connection.execute(
                "UPDATE documents SET state = 'indexed', finished = ?, passages = ?, words = ?, bytes = ? "
                "WHERE operation = ? AND number = ? AND state = 'waiting'",
                (time.time_ns(), len(text.passages), text.words, text.size, operation, number),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO passages VALUES (?, ?, ?, ?)",
                [(operation, number, position, passage) for position, passage in enumerate(text.passages)],
            )

    def failed(self, operation: str, number: int, reason: str) -> None:
        """A document could not be read."""
        with self._open() as connection:
            connection.execute(
                "UPDATE documents SET state = 'failed', finished = ?, reason = ? "
                "WHERE operation = ? AND number = ? AND state = 'waiting'",
                (time.time_ns(), reason, operation, number),
            )

    def passages(self, operation: str) -> list[tuple[str, str]]:
        """All passages with their documents' names, in the order of the documents."""
        with self._open() as connection:
            return connection.execute(
                "SELECT documents.name, passages.text FROM passages JOIN documents USING (operation, number) "
                "WHERE operation = ? ORDER BY number, position",
                (operation,),
            ).fetchall()

    def operation(self, operation: str, user: str) -> Operation | None:
        """An operation, for its owner only."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT id, user, label, cursor, state, terms, "
                "(SELECT count(*) FROM documents WHERE operation = operations.id) "
                "FROM operations WHERE id = ? AND user = ?",
                (operation, user),
            ).fetchone()
        return None if row is None else Operation(*row)

    def documents(self, operation: str) -> list[Document]:
        """Documents that are done, in the order in which they were."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT name, state, passages, words, bytes, reason FROM documents "
                "WHERE operation = ? AND state != 'waiting' ORDER BY finished, number",
                (operation,),
            ).fetchall()
        return [Document(*row) for row in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as connection:
            # After a power cut the demo begins anew anyway; so no waiting for the disk at every document.
            connection.execute("PRAGMA synchronous = OFF")
            with connection:
                yield connection
