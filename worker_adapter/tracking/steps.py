"""``progress`` and ``track``: report how far a loop is, a few times a second.

Both find the running operation by themselves, so they work in any function that a task calls. Outside of every
operation, for example in a test, they count and emit nothing.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from threading import RLock, get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from worker_adapter.tracking.fractions import finite, fraction_of, time_left
from worker_adapter.tracking.rate import RateEstimator
from worker_adapter.tracking.reporter import ProgressReporter

__all__ = ["Progress", "atrack", "iterate", "length", "progress", "track"]

T = TypeVar("T")


class Progress:
    """Progress of a block; ``progress`` returns it. Several threads may step it at the same time.

    The thread that entered the block counts without a lock. All other threads count together under a lock. A lock for
    all threads would treble the cost of a step.

    Args:
        reporter: emits the events.
        total: number of steps, None if unknown.
        unit: name of a step, for example ``bytes``.
        message: text that the page shows.

    Attributes:
        total: number of steps, None if unknown.
    """

    __slots__ = ("_lock", "_message", "_others", "_own", "_owner", "_rate", "_reporter", "_unit", "total")

    def __init__(self, reporter: ProgressReporter, total: float | None, unit: str, message: str) -> None:
        self.total = total
        self._own: float = 0
        self._others: float = 0
        self._owner = get_ident()
        self._reporter = reporter
        self._unit = unit
        self._message = message
        self._rate: RateEstimator | None = None
        # Reentrant for the same reason as the lock of ProgressReporter.
        self._lock = RLock()

    @property
    def done(self) -> float:
        """Steps so far."""
        return self._own + self._others

    def __enter__(self) -> Self:
        self.own()
        if self._reporter.begin():
            self._rate = self._reporter.new_rate()
            self._report()
        return self

    def own(self) -> None:
        """Make the current thread the one that counts without a lock."""
        with self._lock:
            self._own, self._others, self._owner = self.done, 0, get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporter.end(error, self.measure)

    def step(self, n: float = 1, message: str | None = None) -> None:
        """Count steps. While no event is due, a call costs well below a microsecond.

        Args:
            n: number of steps.
            message: replaces the text that the page shows.

        Raises:
            OperationCancelled: the operation was cancelled.
        """
        if get_ident() == self._owner:
            self._own += n
        else:
            with self._lock:
                self._others += n
        if message is not None:
            self._message = message
        if monotonic() >= self._reporter.next:
            self._report()

    def set(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Set the count.

        Args:
            done: steps so far.
            total: replaces the number of steps; None keeps it.
            message: replaces the text that the page shows; None keeps it.

        Raises:
            OperationCancelled: the operation was cancelled.
        """
        with self._lock:
            if get_ident() == self._owner:
                self._own, self._others = done, 0
            else:
                self._others = done - self._own
        if total is not None:
            self.total = total
        if message is not None:
            self._message = message
        if monotonic() >= self._reporter.next:
            self._report()

    def _report(self) -> None:
        self._reporter.report("running", self.measure)

    def measure(self, now: float) -> dict[str, Any]:
        """Return the members of an event that depend on the count.

        Args:
            now: seconds of a monotonic clock.
        """
        assert self._rate is not None
        # A step of NaN spoils the count for good. The end of the block is reported all the same.
        done, total = finite(self.done) or 0, finite(self.total)
        rate = self._rate.record(now, done)
        return {
            "done": done,
            "total": total,
            "share": fraction_of(done, total),
            "rate": rate,
            "left": time_left(done, total, rate),
            "unit": self._unit,
            "message": self._message[: self._reporter.settings.message_chars],
        }


def progress(total: float | None = None, *, stage: str = "", unit: str = "", message: str = "") -> Progress:
    """Report the steps of a block of the running task.

        with progress(total=len(pages), stage="reading") as steps:
            for page in pages:
                read(page)
                steps.step()

    The block emits ``task.progress`` when it begins, then at most once per ``EVENTBUS_WORKER_PROGRESS_INTERVAL``, and
    always when it ends: ``done``, or ``failed`` if an exception leaves it. Outside of every operation it only counts.

    Args:
        total: number of steps, None if unknown.
        stage: name that distinguishes several progresses of one task.
        unit: name of a step, for example ``bytes``.
        message: text that the page shows.

    Returns:
        A context manager whose value counts the steps.
    """
    return Progress(ProgressReporter(stage), total, unit, message)


def track(
    iterable: Iterable[T], total: float | None = None, *, stage: str = "", unit: str = "", message: str = ""
) -> Iterator[T]:
    """Iterate with one step of ``progress`` per item.

        for page in track(pages, stage="reading"):
            read(page)

    An item counts when the loop requests the next one. After ``break`` the progress ends ``done`` at its last count.
    It changes to ``failed`` if the task then fails.

    Args:
        iterable: the items.
        total: number of items; by default the length of the iterable, if it has one.
        stage: as in ``progress``.
        unit: as in ``progress``.
        message: as in ``progress``.

    Returns:
        An iterator over the items.
    """
    return iterate(iterable, progress(length(iterable, total), stage=stage, unit=unit, message=message))


async def atrack(
    iterable: AsyncIterable[T], total: float | None = None, *, stage: str = "", unit: str = "", message: str = ""
) -> AsyncIterator[T]:
    """``track`` for ``async for``.

    Args:
        iterable: the items.
        total: number of items, None if unknown.
        stage: as in ``progress``.
        unit: as in ``progress``.
        message: as in ``progress``.

    Yields:
        The items.
    """
    with progress(total, stage=stage, unit=unit, message=message) as steps:
        async for item in iterable:
            yield item
            steps.step()


def length(iterable: Iterable[object], total: float | None) -> float | None:
    """Return ``total``, or the length of the iterable if it has one.

    Args:
        iterable: the items.
        total: number of items, if the caller knows it.
    """
    if total is not None:
        return total
    hint = operator.length_hint(iterable, -1)
    return hint if hint >= 0 else None


def iterate(iterable: Iterable[T], counted: Progress) -> Iterator[T]:
    """Iterate with one step per item.

    Args:
        iterable: the items.
        counted: the progress; the loop enters and leaves it.

    Yields:
        The items.
    """
    with counted as steps:
        for item in iterable:
            yield item
            steps.step()
