"""The database of the application: the result of each document, for a page that has lost events."""

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
    """A file to index. ``name`` is unique within an operation; the page shows it.

    ``kills``: the file kills the process that reads it, as a file that crashes a parser would.
    """

    name: str
    path: Path
    kills: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation. ``cursor`` precedes its first event. ``state`` is the state of the index."""

    id: str
    user: str
    label: str
    cursor: str
    state: str
    terms: int
    total: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is indexed or has failed."""

    document: str
    state: Literal["indexed", "failed"]
    passages: int
    words: int
    bytes: int
    reason: str


class Store:
    """The database. Worker processes and the site write to it concurrently, so it uses a write-ahead log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Create the tables."""
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    def add(self, operation: str, user: str, label: str, sources: Sequence[Source]) -> None:
        """Store an operation before it starts."""
        with self._open() as connection:
            connection.execute("INSERT INTO operations (id, user, label) VALUES (?, ?, ?)", (operation, user, label))
            connection.executemany(
                "INSERT INTO documents (operation, number, name, path, kills) VALUES (?, ?, ?, ?, ?)",
                [(operation, number, item.name, str(item.path), item.kills) for number, item in enumerate(sources)],
            )

    def started(self, operation: str, cursor: str) -> None:
        """Store the cursor that the page connects with."""
        with self._open() as connection:
            connection.execute("UPDATE operations SET cursor = ? WHERE id = ?", (cursor, operation))

    def ended(self, operation: str, state: Literal["ready", "failed"], terms: int = 0) -> None:
        """Store the end. The passages stay, because a repeated task reads them again."""
        with self._open() as connection:
            connection.execute("UPDATE operations SET state = ?, terms = ? WHERE id = ?", (state, terms, operation))

    def source(self, operation: str, number: int) -> Source:
        """Return a document by its number."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT name, path, kills FROM documents WHERE operation = ? AND number = ?", (operation, number)
            ).fetchone()
        return Source(row[0], Path(row[1]), bool(row[2]))

    def indexed(self, operation: str, number: int, text: Text) -> None:
        """Store the text of an indexed document. A repeated call writes the same rows."""
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
        """Store that a document could not be read."""
        with self._open() as connection:
            connection.execute(
                "UPDATE documents SET state = 'failed', finished = ?, reason = ? "
                "WHERE operation = ? AND number = ? AND state = 'waiting'",
                (time.time_ns(), reason, operation, number),
            )

    def passages(self, operation: str) -> list[tuple[str, str]]:
        """Return all passages with the names of their documents, in the order of the documents."""
        with self._open() as connection:
            return connection.execute(
                "SELECT documents.name, passages.text FROM passages JOIN documents USING (operation, number) "
                "WHERE operation = ? ORDER BY number, position",
                (operation,),
            ).fetchall()

    def operation(self, operation: str, user: str) -> Operation | None:
        """Return an operation of this user, or None."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT id, user, label, cursor, state, terms, "
                "(SELECT count(*) FROM documents WHERE operation = operations.id) "
                "FROM operations WHERE id = ? AND user = ?",
                (operation, user),
            ).fetchone()
        return None if row is None else Operation(*row)

    def documents(self, operation: str) -> list[Document]:
        """Return the finished documents in the order of their completion."""
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
            # The demo does not survive a power failure, so it need not wait for the disk.
            connection.execute("PRAGMA synchronous = OFF")
            with connection:
                yield connection
