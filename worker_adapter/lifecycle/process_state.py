"""State of this process: the cancelled operations that it knows, its running tasks, and its Redis client.

It is kept in one object, which a forked child renews: it must not use a connection, a lock or a thread of its parent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from eventbus.backends.redis.operation_client import Operations
from eventbus.operations.events import OperationRef
from eventbus.process_state import renew_in_child

if TYPE_CHECKING:
    from worker_adapter.lifecycle.running_tasks import RunningTasks

__all__ = ["CancelledOperations", "ProcessState", "RevokedStamps", "process"]

# So much of the list is read again each time: a gateway reads the time before it writes the cancellation.
_CLOCK_SKEW_MS: Final = 600_000
_DEFAULT_LIMIT: Final = 10_000


class RevokedStamps(list[str]):
    """Revoked values of the operation's stamp, the newest last.

    Celery's remote control expects a list. Celery also tests ``value in list`` for each message, so this list has a
    constant-time ``in``.

    Args:
        values: the values.
    """

    def __init__(self, values: Iterable[str]) -> None:
        super().__init__(values)
        self._members = frozenset(self)

    def __contains__(self, value: object) -> bool:
        return value in self._members


class CancelledOperations:
    """A bounded set of cancelled operations, the newest last. Any thread may read it; one thread adds.

    Args:
        limit: largest number of operations.

    Attributes:
        limit: largest number of operations.
        kept_current: whether the worker's bootstep reads all cancellations into this set.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept_current = False
        self._known: dict[OperationRef, int] = {}
        self._newest = 0

    def __contains__(self, operation: object) -> bool:
        return operation in self._known

    def __len__(self) -> int:
        return len(self._known)

    @property
    def since(self) -> int:
        """Time from which cancellations are to be read (milliseconds since 1970)."""
        return max(self._newest - _CLOCK_SKEW_MS, 0)

    def add(self, found: Iterable[tuple[OperationRef, int]]) -> bool:
        """Add operations.

        Args:
            found: operations, each with the time of its cancellation in milliseconds since 1970.

        Returns:
            Whether any of them is new.
        """
        new = {ref: when for ref, when in found if ref not in self._known}
        if not new:
            return False
        self._newest = max(self._newest, *new.values())
        known = {**self._known, **new}
        for ref in list(known)[: len(known) - self.limit]:
            del known[ref]
        self._known = known  # replaced and never changed, since other threads read it
        return True

    def stamps(self, others: Iterable[str] = ()) -> RevokedStamps:
        """Return the stamps of all operations, limited to the newest ``limit``.

        Args:
            others: stamps that come before them.
        """
        ours = [ref.stamp for ref in self._known]
        return RevokedStamps(list(dict.fromkeys([*others, *ours]))[-self.limit :])


class ProcessState:
    """The state.

    Attributes:
        cancelled: the cancelled operations that this process knows.
        running: the tasks that run here; None before the first.
        operations: client for a question about a cancellation; None before the first.
        lock: held while ``operations`` is used.
    """

    def __init__(self) -> None:
        self.cancelled: Final = CancelledOperations(_DEFAULT_LIMIT)
        self._begin()

    def _begin(self) -> None:
        self.running: RunningTasks | None = None
        self.operations: Operations | None = None
        self.lock = threading.Lock()
        self.cancelled.kept_current = False

    def after_fork(self) -> None:
        """Drop what a child must not use. The cancelled operations stay known."""
        self._begin()


process: Final = ProcessState()
"""The state of this process."""

renew_in_child(process.after_fork)
