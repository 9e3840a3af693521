"""One stage of a progress, and the state that all of its stages share."""

from __future__ import annotations

from threading import RLock
from types import TracebackType
from typing import Any, Protocol, Self

from eventbus.operations.events import TaskPart
from worker_adapter.tracking.fractions import finite, fraction_of
from worker_adapter.tracking.reporter import ProgressReporter, outcome
from worker_adapter.tracking.steps import Progress

__all__ = ["Container", "Reportable", "Stage", "StageTree", "is_complete"]


class Reportable(Protocol):
    """A stage, or stages, that an event can name."""

    @property
    def share(self) -> float | None:
        """Fraction that is done; None if it is unknown."""

    def as_part(self, now: float) -> TaskPart:
        """Return the progress as the ``part`` of an event.

        Args:
            now: seconds of a monotonic clock.
        """


class Container(Protocol):
    """The stages that a stage is part of."""

    def begin_stage(self, name: str, child: Reportable) -> None:
        """Note that a stage begins.

        Args:
            name: name of the stage.
            child: its progress.
        """

    def end_stage(self, name: str, child: Reportable, error: BaseException | None) -> None:
        """Note that a stage has ended.

        Args:
            name: name of the stage.
            child: its progress.
            error: the exception that left the stage, if any.
        """

    def path(self, name: str) -> str:
        """Return the name of a stage with the names of the stages around it.

        Args:
            name: name of the stage.
        """

    def measure(self, now: float) -> dict[str, Any]:
        """Return the members of an event about these stages.

        Args:
            now: seconds of a monotonic clock.
        """


class StageTree:
    """State that all stages of one progress share.

    Args:
        reporter: emits the events.
        root: the outermost stages.

    Attributes:
        reporter: emits the events.
        lock: guards the stages. Reentrant for the same reason as the lock of ProgressReporter.
        root: the outermost stages.
        current: the stage that an event names.
    """

    __slots__ = ("current", "lock", "reporter", "root")

    def __init__(self, reporter: ProgressReporter, root: Container) -> None:
        self.reporter = reporter
        self.lock = RLock()
        self.root = root
        self.current: Reportable | None = None

    def report(self, stage: Reportable | None, *, force: bool = False) -> None:
        """Emit an event that names a stage.

        Args:
            stage: the stage; None for the whole.
            force: wait for another thread that is reporting. The begin of a stage is always reported.
        """
        self.current = stage
        self.reporter.report("running", self.root.measure, force=force)


class Stage(Progress):
    """One stage; ``Stages.stage`` returns it. A context manager that is stepped like a ``progress``."""

    __slots__ = ("_finished", "_name", "_parent", "_tree")

    def __init__(
        self, tree: StageTree, parent: Container, name: str, total: float | None, *, unit: str, message: str
    ) -> None:
        """Made by ``Stages.stage``.

        Args:
            tree: state of the whole progress.
            parent: the stages around this one.
            name: name within the parent.
            total: number of steps, None if unknown.
            unit: name of a step, for example ``bytes``.
            message: text that the page shows.
        """
        super().__init__(tree.reporter, total, unit, message)
        self._tree = tree
        self._parent = parent
        self._name = name
        self._finished = False

    @property
    def share(self) -> float | None:
        """Fraction of the stage that is done; None if it is unknown."""
        return 1.0 if self._finished else fraction_of(finite(self.done) or 0, finite(self.total))

    def __enter__(self) -> Self:
        self._parent.begin_stage(self._name, self)
        self.own()
        if self._reporter.is_active:
            self._rate = self._reporter.new_rate()
            self._tree.report(self, force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished = is_complete(error)
        self._parent.end_stage(self._name, self, error)

    def _report(self) -> None:
        self._tree.report(self)

    def as_part(self, now: float) -> TaskPart:
        """Return this stage as the ``part`` of an event.

        Args:
            now: seconds of a monotonic clock.
        """
        return TaskPart(name=self._parent.path(self._name), **self.measure(now))


def is_complete(error: BaseException | None) -> bool:
    """Return whether a block ended because all of its work was done.

    Args:
        error: the exception that left the block, if any.
    """
    return outcome(error) == "done" and not isinstance(error, GeneratorExit)
