"""Events from the worker to the page. Each class declares how its events are delivered."""

from __future__ import annotations

from datetime import timedelta

from eventbus import Event

__all__ = ["BatchProgress", "DocumentFailed", "DocumentIndexed", "IndexReady"]


class DocumentIndexed(Event, name="document.indexed"):
    """A document is indexed. The log keeps these events, because the page lists every document."""

    document: str
    passages: int
    words: int
    bytes: int
    milliseconds: float


class DocumentFailed(Event, name="document.failed", lane="high"):
    """A document could not be read. Urgent; the log keeps these events too."""

    document: str
    reason: str


class BatchProgress(Event, name="batch.progress", lane="low", keep="latest", key="batch", ttl=timedelta(minutes=10)):
    """The progress of one task. The bus keeps the newest event per batch, also for a reloaded page.

    ``task`` is the id of the Celery task, as in Flower and in ``task.failed``.
    """

    batch: int
    task: str
    document: str
    done: int
    total: int


class IndexReady(Event, name="index.ready", lane="high"):
    """The full-text index is ready for searches."""

    documents: int
    failed: int
    passages: int
    words: int
    terms: int
