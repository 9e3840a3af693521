"""The operations of the site without HTTP: start indexing, return its state, search."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final
from uuid import uuid4

from kombu.exceptions import OperationalError
from starlette.datastructures import UploadFile

from demo.fault_injection import kill_worker
from demo.index import search_index
from demo.settings import DemoSettings
from demo.sources import UploadRefused, installed_text, poisoned_text, save_uploads
from demo.store import Operation, Source
from demo.tasks import TaskFactory, app, batch_tasks, index_path, indexing, single_tasks, store_of
from eventbus.backends.redis.operation_client import Operations
from eventbus.errors import TransportError
from eventbus.operations.state import OperationState
from worker_adapter import start_operation

__all__ = ["IndexingService", "Unavailable"]

log = logging.getLogger(__name__)

# States of an operation without an index: from the bus's name to the page's.
_STATES: Final[Mapping[OperationState, str]] = {
    "lost": "lost",
    "cancelling": "stopping",
    "cancelled": "cancelled",
    "failed": "failed",
}


class Unavailable(RuntimeError):
    """The site cannot do this now. The message asks the user to try again."""


class IndexingService:
    """Operations and indexes of all visitors. A visitor can access their own only."""

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._store = store_of(settings)
        self._store.create()

    def installed(self) -> Sequence[Source]:
        """Return the documents that are installed on this machine."""
        return installed_text(self._settings.limit)

    def index_installed(self, user: str) -> dict[str, Any]:
        """Start indexing the installed documents."""
        sources = self.installed()
        tasks = batch_tasks(len(sources), self._settings.batch)
        return self._start(uuid4().hex, user, "The text on this machine", sources, tasks)

    def index_poisoned(self, user: str) -> dict[str, Any]:
        """Start indexing a few documents and one file that kills the process that reads it."""
        operation = uuid4().hex
        sources = poisoned_text(self.installed(), self._settings.data / "uploads" / operation)
        return self._start(operation, user, "A file that kills its worker", sources, single_tasks(len(sources)))

    def index_uploads(self, user: str, files: Sequence[UploadFile]) -> dict[str, Any]:
        """Start indexing uploaded files. Raises UploadRefused."""
        operation = uuid4().hex
        directory = self._settings.data / "uploads" / operation
        try:
            sources = save_uploads(files, directory, self._settings)
        except UploadRefused:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        label = sources[0].name if len(sources) == 1 else f"{len(sources)} uploaded files"
        return self._start(operation, user, label, sources, single_tasks(len(sources)))

    def operation(self, operation: str, user: str) -> dict[str, Any] | None:
        """Return state, cursor and the finished documents, or None if the visitor has no such operation."""
        found = self._store.operation(operation, user)
        if found is None:
            return None
        found = replace(found, state=self._state(found))
        answer = {name: value for name, value in asdict(found).items() if name not in ("id", "user")}
        documents = [asdict(document) for document in self._store.documents(operation)]
        return {"operation": operation, **answer, "documents": documents}

    def search(self, operation: str, user: str, query: str) -> dict[str, Any] | None:
        """Search an index. Returns None if the visitor has no such index."""
        found = self._store.operation(operation, user)
        path = index_path(self._settings, operation)
        if found is None or not path.exists():
            return None
        return asdict(search_index(path, query))

    def kill_worker(self) -> None:
        """Kill the worker with all its processes. Raises Unavailable if none runs."""
        if not kill_worker(app):
            raise Unavailable("no worker is running now; the demo starts it again after some seconds")

    def _state(self, found: Operation) -> str:
        """Ask the bus for the state: a killed or cancelled task cannot write it to the database."""
        if found.state == "ready":
            return found.state
        try:
            with Operations() as operations:
                known = operations.get(found.user, found.id)
        except TransportError:
            known = None
        return found.state if known is None else _STATES.get(known.state, found.state)

    def _start(
        self, operation: str, user: str, label: str, sources: Sequence[Source], tasks: TaskFactory
    ) -> dict[str, Any]:
        self._store.add(operation, user, label, sources)
        flow = indexing(operation, tasks)
        try:
            # The cursor precedes the first event, so a page that connects with it receives all events.
            started = start_operation(flow, user=user, label=label, op=operation)
        except (OperationalError, OSError) as error:
            self._store.ended(operation, "failed")
            log.warning("cannot start an operation: %s", error)
            raise Unavailable("the task queue is unreachable; try again in a moment") from error
        self._store.started(operation, started.cursor)
        return {"operation": operation, "cursor": started.cursor, "label": label, "total": len(sources)}
