"""``stages``: one progress of a task that consists of weighted stages. A stage may consist of stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from eventbus.errors import InvalidStage
from eventbus.operations.events import TaskPart
from worker_adapter.tracking.files import Readable, TrackedFile
from worker_adapter.tracking.fractions import WeightedProgress, time_left
from worker_adapter.tracking.rate import RateEstimator
from worker_adapter.tracking.reporter import ProgressReporter, outcome
from worker_adapter.tracking.stage import Reportable, Stage, StageTree, is_complete
from worker_adapter.tracking.steps import iterate, length

__all__ = ["Stages", "stages"]

T = TypeVar("T")


class Stages:
    """Progress that consists of stages; ``stages`` returns it. A context manager."""

    __slots__ = ("_interrupted", "_message", "_name", "_parent", "_progress", "_rate", "_running", "_tree")

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        tree: StageTree | None = None,
        reporter: ProgressReporter | None = None,
        parent: Stages | None = None,
        name: str = "",
        message: str = "",
    ) -> None:
        """Made by ``stages`` and ``Stages.stages``.

        Args:
            weights: weight of each stage by its name.
            tree: state of the whole progress; None for the outermost stages.
            reporter: of the outermost stages.
            parent: the stages around these.
            name: name within the parent.
            message: text that the page shows.
        """
        self._tree = tree or StageTree(reporter or ProgressReporter(""), self)
        self._progress = WeightedProgress(weights)
        self._message = message
        self._parent = parent
        self._name = name
        self._rate: RateEstimator | None = None
        self._running: dict[str, Reportable] = {}
        self._interrupted: set[str] = set()

    @property
    def share(self) -> float:
        """Fraction of the whole that is done, from 0 to 1."""
        with self._tree.lock:
            for name, child in self._running.items():
                self._progress.fill(name, child.share)
            return self._progress.fraction

    def stage(self, name: str, total: float | None = None, *, unit: str = "", message: str = "") -> Stage:
        """Begin one of the stages as a block, as with ``progress``. Threads of the stage step the same object.

        Args:
            name: name of the stage.
            total: number of steps. Without it the stage counts as 0 until it has ended.
            unit: name of a step, for example ``bytes``.
            message: text that the page shows.

        Returns:
            A context manager whose value counts the steps.

        Raises:
            InvalidStage: there is no such stage.
        """
        self._progress.check(name)
        return Stage(self._tree, self, name, total, unit=unit, message=message)

    def stages(self, name: str, weights: Mapping[str, float] | None = None, /, **more: float) -> Stages:
        """Begin one of the stages that itself consists of stages.

        Args:
            name: name of the stage.
            weights: weights of its stages by name.
            **more: further weights.

        Returns:
            A context manager.

        Raises:
            InvalidStage: there is no such stage, or a weight is not above 0.
        """
        self._progress.check(name)
        return Stages({**(weights or {}), **more}, tree=self._tree, parent=self, name=name)

    def track(
        self, name: str, iterable: Iterable[T], total: float | None = None, *, unit: str = "", message: str = ""
    ) -> Iterator[T]:
        """Run one of the stages as a loop, as ``track`` does.

        Args:
            name: name of the stage.
            iterable: the items.
            total: number of items; by default the length of the iterable, if it has one.
            unit: name of a step, for example ``bytes``.
            message: text that the page shows.

        Returns:
            An iterator over the items.

        Raises:
            InvalidStage: there is no such stage.
        """
        return iterate(iterable, self.stage(name, length(iterable, total), unit=unit, message=message))

    def track_file(self, name: str, file: Readable, *, message: str = "") -> TrackedFile:
        """Read a file as one of the stages, as ``track_file`` does.

        Args:
            name: name of the stage.
            file: a path, or a file opened for bytes.
            message: text that the page shows.

        Returns:
            A binary file that counts the bytes that are read.

        Raises:
            InvalidStage: there is no such stage.
            OSError: the path cannot be opened.
            TypeError: the file is opened for text.
        """
        return TrackedFile.of(file, lambda total: self.stage(name, total, unit="bytes", message=message))

    def __enter__(self) -> Self:
        if self._parent is not None:
            self._parent.begin_stage(self._name, self)
        else:
            self._tree.reporter.begin()
        if self._tree.reporter.is_active:
            self._rate = self._tree.reporter.new_rate()
            self._tree.report(None if self._parent is None else self, force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._tree.lock:
            if is_complete(error):
                self._progress.finish()
        if self._parent is not None:
            self._parent.end_stage(self._name, self, error)
        else:
            if outcome(error) == "done":
                self._tree.current = None
            self._tree.reporter.end(error, self.measure)

    def begin_stage(self, name: str, child: Reportable) -> None:
        """Note that a stage begins.

        Args:
            name: name of the stage.
            child: its progress.

        Raises:
            InvalidStage: the stage runs already.
        """
        with self._tree.lock:
            if name in self._running:
                raise InvalidStage(f"stage {name!r} runs already; let its threads step the same one", stage=name)
            self._running[name] = child
            for interrupted in self._interrupted:
                self._progress.fill(interrupted, 1.0)
            self._interrupted.clear()

    def end_stage(self, name: str, child: Reportable, error: BaseException | None) -> None:
        """Note that a stage has ended, at its present fraction.

        When a ``track()`` loop ends early, Python closes its generator with ``GeneratorExit``, after a ``break`` and
        after an exception alike. It was a ``break``, and the stage is complete, if another stage begins.

        Args:
            name: name of the stage.
            child: its progress.
            error: the exception that left the stage, if any.
        """
        with self._tree.lock:
            self._progress.fill(name, child.share)
            self._running.pop(name, None)
            if isinstance(error, GeneratorExit):
                self._interrupted.add(name)

    def path(self, name: str) -> str:
        """Return the name of a stage with the names of the stages around it.

        Args:
            name: name of the stage.
        """
        if self._parent is None:
            return name
        return f"{self._parent.path(self._name)}/{name}"

    def as_part(self, now: float) -> TaskPart:
        """Return this progress as the ``part`` of an event.

        Args:
            now: seconds of a monotonic clock.
        """
        assert self._parent is not None
        return TaskPart(name=self._parent.path(self._name), **self.numbers(now))

    def numbers(self, now: float) -> dict[str, Any]:
        """Return the members of an event that depend on the count.

        Args:
            now: seconds of a monotonic clock.
        """
        assert self._rate is not None
        with self._tree.lock:
            share, done = self.share, self._progress.done
        rate = self._rate.record(now, done)
        return {
            "done": done,
            "total": self._progress.total,
            "share": share,
            "rate": rate,
            "left": time_left(done, self._progress.total, rate),
            "message": self._message[: self._tree.reporter.settings.message_chars],
        }

    def measure(self, now: float) -> dict[str, Any]:
        """Return the members of an event about the whole, with the current stage as its part.

        Args:
            now: seconds of a monotonic clock.
        """
        current = self._tree.current
        return {**self.numbers(now), "part": None if current is None else current.as_part(now)}


def stages(
    weights: Mapping[str, float] | None = None, /, *, stage: str = "", message: str = "", **more: float
) -> Stages:
    """Report one progress of a task that consists of stages.

        with stages(read=1, embed=8, store=1) as whole:
            for page in whole.track("read", pages):
                read(page)
            with whole.stage("embed", total=len(passages)) as steps:
                steps.step()
            with whole.stage("store"):
                store()

    Weights say how long the stages take compared with each other. The block emits ``task.progress`` as ``progress``
    does, and one more event when a stage begins. A stage that ends without an error is complete. A stage that fails
    keeps its fraction. A loop that ends early keeps its fraction until the next stage begins. The whole reaches its
    total, the sum of the weights, when the block has ended without an error, and not before.

    Args:
        weights: weights by name, for names that are no identifiers and for ``stage`` and ``message``.
        stage: name that distinguishes several progresses of one task.
        message: text that the page shows.
        **more: weights by name.

    Returns:
        A context manager that begins the stages.

    Raises:
        InvalidStage: there is no stage, or a weight is not above 0.
    """
    return Stages({**(weights or {}), **more}, reporter=ProgressReporter(stage), message=message)
