"""``progress`` and ``track``: how far a loop is, told a few times a second.

They find the running operation by themselves, so they work in any function that a task calls. Outside of every
operation, in a test or on the command line, they count and say nothing.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from threading import RLock, get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from worker_adapter.tracking.fractions import known, share_of, time_left
from worker_adapter.tracking.rate import RateEstimator
from worker_adapter.tracking.reporter import ProgressReporter

__all__ = ["Progress", "atrack", "iterate", "length", "progress", "track"]

T = TypeVar("T")


class Progress:
    """What ``progress`` returns: a context manager. Several threads may step it at the same time.

    The thread that has entered it counts by itself, all others together under a lock: a lock for everybody would treble
    the price of a step, and ``+=`` from several threads would lose some.

    Attributes:
        total: steps that there are, None where nobody knows.
    """

    __slots__ = ("_lock", "_message", "_others", "_own", "_owner", "_pace", "_reporter", "_unit", "total")

    def __init__(self, bar: ProgressReporter, total: float | None, unit: str, message: str) -> None:
        self.total = total
        self._own: float = 0
        self._others: float = 0
        self._owner = get_ident()
        self._reporter = bar
        self._unit = unit
        self._message = message
        self._pace: RateEstimator | None = None
        # Of the same thread's again, as the lock in Bar.
        self._lock = RLock()

    @property
    def done(self) -> float:
        """Steps so far."""
        return self._own + self._others

    def __enter__(self) -> Self:
        self.own()
        if self._reporter.begin():
            self._pace = self._reporter.pace()
            self._report()
        return self

    def own(self) -> None:
        """This thread is the one that counts without a lock."""
        with self._lock:
            self._own, self._others, self._owner = self.done, 0, get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporter.end(error, self.measure)

    def step(self, n: float = 1, message: str | None = None) -> None:
        """``n`` more are done. Costs well below a microsecond while no word is due."""
        if get_ident() == self._owner:
            self._own += n
        else:
            with self._lock:
                self._others += n
        if message is not None:
            self._message = message
        if monotonic() >= self._reporter.next:
            self._report()

    def set(self, done: float, total: float | None = None) -> None:
        """So many are done by now; ``total``, where given, replaces the former one."""
        with self._lock:
            if get_ident() == self._owner:
                self._own, self._others = done, 0
            else:
                self._others = done - self._own
        if total is not None:
            self.total = total
        if monotonic() >= self._reporter.next:
            self._report()

    def _report(self) -> None:
        self._reporter.report("running", self.measure)

    def measure(self, now: float) -> dict[str, Any]:
        """The members that count, as they stand."""
        assert self._pace is not None
        # A step of NaN spoils the count for good; the page is told all the same that the block has ended.
        done, total = known(self.done) or 0, known(self.total)
        rate = self._pace.record(now, done)
        return {
            "done": done,
            "total": total,
            "share": share_of(done, total),
            "rate": rate,
            "left": time_left(done, total, rate),
            "unit": self._unit,
            "message": self._message[: self._reporter.settings.message_chars],
        }


def progress(total: float | None = None, *, stage: str = "", unit: str = "", message: str = "") -> Progress:
    """Steps of the running task, as a block.

        with progress(total=len(pages), stage="reading") as steps:
            for page in pages:
                read(page)
                steps.step()

    Emits ``task.progress`` at the beginning, then at most once per ``progress_interval``, and at the end always:
    ``done``, or ``failed`` if an exception leaves the block. ``stage`` tells several progresses of one task apart;
    ``unit`` says what is counted, ``bytes`` for instance. Outside of every operation it only counts.
    """
    return Progress(ProgressReporter(stage), total, unit, message)


def track(
    iterable: Iterable[T], total: float | None = None, *, stage: str = "", unit: str = "", message: str = ""
) -> Iterator[T]:
    """Iterate with one step of ``progress`` per item.

        for page in track(pages, stage="reading"):
            read(page)

    ``total`` is taken from the iterable's length where it has one. An item counts when the loop asks for the next. A
    loop that is left early ends ``done`` where it was, and ``failed`` if the task then fails.
    """
    return iterate(iterable, progress(length(iterable, total), stage=stage, unit=unit, message=message))


async def atrack(
    iterable: AsyncIterable[T], total: float | None = None, *, stage: str = "", unit: str = "", message: str = ""
) -> AsyncIterator[T]:
    """``track`` for ``async for``."""
    with progress(total, stage=stage, unit=unit, message=message) as steps:
        async for item in iterable:
            yield item
            steps.step()


def length(iterable: Iterable[object], total: float | None) -> float | None:
    """``total``, or what the iterable says of its length."""
    if total is not None:
        return total
    hint = operator.length_hint(iterable, -1)
    return hint if hint >= 0 else None


def iterate(iterable: Iterable[T], counted: Progress) -> Iterator[T]:
    """The items, each a step of ``counted``, which lasts as long as the loop."""
    with counted as steps:
        for item in iterable:
            yield item
            steps.step()
