"""Operations that somebody wants stopped, as far as this process knows, and how a task hears of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from celery.exceptions import Ignore

from eventbus.backends.redis.operation_client import Operations
from eventbus.bus import Bus
from eventbus.errors import TransportError
from eventbus.operations.events import OperationRef, current_operation

__all__ = ["CancelledOperations", "OperationCancelled", "RevokedStamps", "ask", "check_cancelled", "known"]

# The clocks of those who press the button may differ: so much is read again each time.
_SKEW_MS: Final = 600_000


class OperationCancelled(Ignore):  # type: ignore[misc] # Celery ships no types
    """Somebody wants the operation stopped. Let it pass: what it unwinds (``finally``, ``with``) can clean up.

    Celery treats it as ``Ignore``: no retry, no failure. The result's state becomes REVOKED.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return f"operation {self.operation} was cancelled"


class RevokedStamps(list[str]):
    """Values of our stamp that are revoked, the newest last. A list, as Celery's remote control expects it; but with
    an ``in`` that does not look at all of them for each message.
    """

    def __init__(self, values: Iterable[str]) -> None:
        super().__init__(values)
        self._members = frozenset(self)

    def __contains__(self, value: object) -> bool:
        return value in self._members


class CancelledOperations:
    """A bounded memory of cancelled operations, the newest last. Read from any thread, fed by one."""

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
        """From which moment on to ask (milliseconds since 1970)."""
        return max(self._newest - _SKEW_MS, 0)

    def add(self, found: Iterable[tuple[OperationRef, int]]) -> bool:
        """Take operations in, with the moments at which they were cancelled. Whether any of them is news."""
        news = {ref: when for ref, when in found if ref not in self._known}
        if not news:
            return False
        self._newest = max(self._newest, *news.values())
        known = {**self._known, **news}
        for ref in list(known)[: len(known) - self.limit]:
            del known[ref]
        self._known = known  # replaced, never changed: others are reading it
        return True

    def stamps(self, others: Iterable[str] = ()) -> RevokedStamps:
        """The stamps of all of them, after ``others``; the newest ``limit``."""
        ours = [ref.stamp for ref in self._known]
        return RevokedStamps(list(dict.fromkeys([*others, *ours]))[-self.limit :])


known: Final = CancelledOperations(10_000)
"""What this process knows."""

_operations: Operations | None = None
_one_at_a_time = threading.Lock()


def _forget() -> None:
    # Neither a connection nor a lock of the parent's is to be used.
    global _operations, _one_at_a_time
    _operations, _one_at_a_time = None, threading.Lock()
    known.kept_current = False


os.register_at_fork(after_in_child=_forget)


def check_cancelled() -> None:
    """Stop here if somebody wants the running operation stopped; outside of any, nothing. Costs a look into a dict.

    ``progress`` and ``track`` do so by themselves whenever a word is due.

    Raises:
        OperationCancelled: let it pass; it ends the task.
    """
    operation = current_operation.get()
    if operation is not None and operation in known:
        raise OperationCancelled(operation.op)


def ask(bus: Bus, operation: OperationRef) -> bool:
    """Whether an operation is cancelled, by asking Redis if it is not known already. False while Redis is away."""
    global _operations  # noqa: PLW0603 - one connection per process
    if operation in known:
        return True
    if bus.broker is not None or bus.outbox.failures:
        return False
    try:
        with _one_at_a_time:
            if _operations is None:
                _operations = Operations(bus.settings)
            found = _operations.cancelled_of([operation])
    except TransportError:
        return False  # said elsewhere; here it must not stop anything
    known.add((ref, 0) for ref in found)
    return bool(found)
