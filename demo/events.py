"""What the worker tells the page. Each class says by itself how its events are to be delivered."""

from __future__ import annotations

from datetime import timedelta

from eventbus import Event

__all__ = ["BatchProgress", "DocumentFailed", "DocumentIndexed", "IndexReady"]


class DocumentIndexed(Event, name="document.indexed"):
    """A document has been read, split and tokenised. Kept in the log: the page's list must lack none."""

    document: str
    passages: int
    words: int
    bytes: int
    milliseconds: float


class DocumentFailed(Event, name="document.failed", lane="high"):
    """A document could not be read. Urgent, and kept like the rest of the list."""

    document: str
    reason: str


class BatchProgress(Event, name="batch.progress", lane="low", keep="latest", key="batch", ttl=timedelta(minutes=10)):
    """How far one task is, and what it reads now. Only the newest per batch matters, and that one a reload gets too.

    ``task`` is Celery's id, by which Flower and ``task.failed`` call it.
    """

    batch: int
    task: str
    document: str
    done: int
    total: int


class IndexReady(Event, name="index.ready", lane="high"):
    """The full-text index can be searched."""

    documents: int
    failed: int
    passages: int
    words: int
    terms: int
