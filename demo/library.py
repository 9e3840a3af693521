"""What the site can do: start indexing, say how it stands, search. No HTTP here."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from kombu.exceptions import OperationalError
from starlette.datastructures import UploadFile

from demo.index import search_index
from demo.settings import DemoSettings
from demo.sources import Refused, installed_text, save_uploads
from demo.store import Source
from demo.tasks import index_path, indexing, store_of
from worker_adapter import start_operation

__all__ = ["Library", "Unavailable"]

log = logging.getLogger(__name__)


class Unavailable(RuntimeError):
    """The work cannot be handed out now."""


class Library:
    """Every visitor's operations and indexes. What does not belong to who asks is not there for them."""

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._store = store_of(settings)
        self._store.create()

    def installed(self) -> Sequence[Source]:
        """The text that is on this machine."""
        return installed_text(self._settings.limit)

    def index_installed(self, user: str) -> dict[str, Any]:
        """Start to index it."""
        return self._start(uuid4().hex, user, "The text on this machine", self.installed())

    def index_uploads(self, user: str, files: Sequence[UploadFile]) -> dict[str, Any]:
        """Start to index what a visitor has sent. Raises Refused."""
        operation = uuid4().hex
        directory = self._settings.data / "uploads" / operation
        try:
            sources = save_uploads(files, directory, self._settings)
        except Refused:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        label = sources[0].name if len(sources) == 1 else f"{len(sources)} files of yours"
        return self._start(operation, user, label, sources)

    def operation(self, operation: str, user: str) -> dict[str, Any] | None:
        """State, cursor and the documents that are done."""
        found = self._store.operation(operation, user)
        if found is None:
            return None
        answer = {name: value for name, value in asdict(found).items() if name not in ("id", "user")}
        documents = [asdict(document) for document in self._store.documents(operation)]
        return {"operation": operation, **answer, "documents": documents}

    def search(self, operation: str, user: str, query: str) -> dict[str, Any] | None:
        """Passages that hold the words; None where there is no index for this visitor."""
        found = self._store.operation(operation, user)
        path = index_path(self._settings, operation)
        if found is None or not path.exists():
            return None
        return asdict(search_index(path, query))

    def _start(self, operation: str, user: str, label: str, sources: Sequence[Source]) -> dict[str, Any]:
        self._store.add(operation, user, label, sources)
        flow = indexing(operation, len(sources), self._settings.batch)
        try:
            # The cursor is from before the first event, so a page that connects with it misses nothing.
            started = start_operation(flow, user=user, label=label, op=operation)
        except (OperationalError, OSError) as error:
            self._store.ended(operation, "failed")
            log.warning("an operation cannot be started: %s", error)
            raise Unavailable("the workers' queue cannot be reached; try again in a moment") from error
        self._store.started(operation, started.cursor)
        return {"operation": operation, "cursor": started.cursor, "label": label, "total": len(sources)}
