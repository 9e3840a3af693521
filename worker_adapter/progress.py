"""``progress`` and ``track``: how far a loop is, told a few times a second.

They find the running operation by themselves, so they work in any function that a task calls. Outside of every
operation, in a test or on the command line, they count and say nothing.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Iterator
from time import monotonic
from types import TracebackType
from typing import Literal, Self, TypeVar

from celery.exceptions import Ignore, Retry

from eventbus.bus import default_bus
from eventbus.operation import OperationRef, TaskProgress, current_operation
from worker_adapter.cancelled import OperationCancelled
from worker_adapter.pace import Pace
from worker_adapter.scope import Scope, current_scope
from worker_adapter.settings import WorkerSettings
from worker_adapter.watch import heed

__all__ = ["Progress", "progress", "track"]

log = logging.getLogger(__name__)

T = TypeVar("T")
State = Literal["running", "done", "failed"]


class Progress:
    """What ``progress`` returns: a context manager. Nothing in it raises for the bus' sake; steps raise
    ``OperationCancelled`` when somebody wants the operation stopped.

    Attributes:
        done: steps so far.
        total: steps that there are, None where nobody knows.
    """

    __slots__ = ("_message", "_operation", "_pace", "_scope", "_settings", "_stage", "_task", "done", "total")

    def __init__(self, total: float | None, stage: str, message: str) -> None:
        self.done: float = 0
        self.total = total
        self._stage = stage
        self._message = message
        self._operation: OperationRef | None = None
        self._pace = Pace(1.0, 1.0)
        self._pace.next = float("inf")  # silent until it is entered within an operation

    def __enter__(self) -> Self:
        self._operation = current_operation.get()
        if self._operation is not None:
            self._scope: Scope | None = current_scope.get()
            self._settings = self._scope.settings if self._scope is not None else WorkerSettings()
            self._task = (self._scope.task if self._scope is not None else "") or self._operation.op
            self._pace = Pace(self._settings.progress_interval, self._settings.rate_window)
            self._tell("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._operation is None:
            return
        self._pace.next = float("inf")
        if isinstance(error, GeneratorExit) and self._scope is not None:
            # A loop over track() was left. Python does not tell a generator whether by break or by an error; the end
            # of the task does.
            self._scope.on_failure.append(self._fail)
        self._tell(_outcome(error))

    def step(self, n: float = 1, message: str | None = None) -> None:
        """``n`` more are done. Costs well below a microsecond while no word is due."""
        self.done += n
        if message is not None:
            self._message = message
        if monotonic() >= self._pace.next:
            self._tell("running")

    def set(self, done: float, total: float | None = None) -> None:
        """So many are done by now; ``total``, where given, replaces the former one."""
        self.done = done
        if total is not None:
            self.total = total
        if monotonic() >= self._pace.next:
            self._tell("running")

    def _fail(self) -> None:
        self._tell("failed")

    def _tell(self, state: State) -> None:
        assert self._operation is not None
        ended = self._pace.next == float("inf")
        word: TaskProgress | None = None
        try:
            rate = self._pace.say(monotonic(), self.done)
            word = TaskProgress(
                task=self._task,
                stage=self._stage,
                done=self.done,
                total=self.total,
                rate=rate,
                message=self._message[: self._settings.message_chars],
                state=state,
            )
            default_bus().emit(self._operation.user, self._operation.op, word)
        except Exception:
            # A bar that cannot be drawn must not stop the work that it is about.
            log.exception("progress could not be told")
        if ended:
            self._pace.next = float("inf")
        elif word is not None:
            heed(self._scope, word)


def _outcome(error: BaseException | None) -> State:
    if isinstance(error, OperationCancelled):
        return "failed"
    if error is None or isinstance(error, (GeneratorExit, Ignore)):
        return "done"
    return "running" if isinstance(error, Retry) else "failed"


def progress(total: float | None = None, *, stage: str = "", message: str = "") -> Progress:
    """Steps of the running task, as a block.

        with progress(total=len(pages), stage="reading") as steps:
            for page in pages:
                read(page)
                steps.step()

    Emits ``task.progress`` at the beginning, then at most once per ``progress_interval``, and at the end always:
    ``done``, or ``failed`` if an exception leaves the block. ``stage`` tells several progresses of one task apart.
    Outside of every operation it only counts.
    """
    return Progress(total, stage, message)


def track(iterable: Iterable[T], total: float | None = None, *, stage: str = "", message: str = "") -> Iterator[T]:
    """Iterate with one step of ``progress`` per item.

        for page in track(pages, stage="reading"):
            read(page)

    ``total`` is taken from the iterable's length where it has one. An item counts when the loop asks for the next. A
    loop that is left early ends ``done`` where it was, and ``failed`` if the task then fails.
    """
    if total is None:
        hint = operator.length_hint(iterable, -1)
        total = hint if hint >= 0 else None
    with progress(total, stage=stage, message=message) as steps:
        for item in iterable:
            yield item
            steps.step()
