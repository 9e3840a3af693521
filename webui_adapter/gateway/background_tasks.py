"""Background tasks of a gateway: coroutines that run until they end or the gateway does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

__all__ = ["BackgroundTasks"]

log = logging.getLogger(__name__)


class BackgroundTasks:
    """The running tasks of one gateway. Its length is their number."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine. If it fails, the gateway logs the error and continues.

        Args:
            work: the coroutine.
        """
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel all running tasks."""
        for task in self._running:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("cannot finish a background task", exc_info=task.exception())
