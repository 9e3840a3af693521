"""``stages``: one bar of a task that is made of parts, each with its weight; parts may be made of parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from threading import RLock
from types import TracebackType
from typing import Any, Self, TypeVar

from eventbus.errors import InvalidStage
from eventbus.operations.events import TaskPart
from worker_adapter.tracking.files import Readable, TrackedFile
from worker_adapter.tracking.fractions import WeightedProgress, known, share_of, time_left
from worker_adapter.tracking.rate import RateEstimator
from worker_adapter.tracking.reporter import ProgressReporter, outcome
from worker_adapter.tracking.steps import Progress, iterate, length

__all__ = ["Stage", "Stages", "stages"]

T = TypeVar("T")


class _Tree:
    """What all stages of one bar share.

    Attributes:
        lock: of everything in it; of the same thread's again, as the lock in Bar.
        whole: the stages that are the bar.
        shown: the part whose word was the last one.
    """

    __slots__ = ("bar", "lock", "shown", "whole")

    def __init__(self, bar: ProgressReporter, whole: Stages) -> None:
        self.bar = bar
        self.lock = RLock()
        self.whole = whole
        self.shown: Stage | Stages | None = None

    def show(self, part: Stage | Stages | None, *, force: bool = False) -> None:
        """A word is due, and ``part`` is what runs; its beginning is sent with ``force``."""
        self.shown = part
        self.bar.report("running", self.whole.measure, force=force)


class Stages:
    """What ``stages`` returns: a context manager, and the place where its parts are begun."""

    __slots__ = ("_left", "_live", "_message", "_name", "_pace", "_parent", "_shares", "_tree")

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        tree: _Tree | None = None,
        bar: ProgressReporter | None = None,
        parent: Stages | None = None,
        name: str = "",
        message: str = "",
    ) -> None:
        self._tree = tree or _Tree(bar or ProgressReporter(""), self)
        self._shares = WeightedProgress(weights)
        self._message = message
        self._parent = parent
        self._name = name
        self._pace: RateEstimator | None = None
        self._live: dict[str, Stage | Stages] = {}
        self._left: set[str] = set()

    @property
    def share(self) -> float:
        """How full the bar is, from 0 to 1."""
        with self._tree.lock:
            for name, child in self._live.items():
                self._shares.fill(name, child.share)
            return self._shares.share

    def stage(self, name: str, total: float | None = None, *, unit: str = "", message: str = "") -> Stage:
        """One of the stages, to be entered and stepped like a ``progress``; its threads step this one.

        Without a ``total`` the bar stands until the stage is finished. Raises InvalidStage for a name that
        ``stages()`` was not given.
        """
        self._shares.check(name)
        return Stage(self._tree, self, name, total, unit=unit, message=message)

    def stages(self, name: str, weights: Mapping[str, float] | None = None, /, **more: float) -> Stages:
        """One of the stages that is itself made of stages. Raises InvalidStage."""
        self._shares.check(name)
        return Stages({**(weights or {}), **more}, tree=self._tree, parent=self, name=name)

    def track(
        self, name: str, iterable: Iterable[T], total: float | None = None, *, unit: str = "", message: str = ""
    ) -> Iterator[T]:
        """One of the stages as a loop, as ``track``. Raises InvalidStage."""
        return iterate(iterable, self.stage(name, length(iterable, total), unit=unit, message=message))

    def track_file(self, name: str, file: Readable, *, message: str = "") -> TrackedFile:
        """One of the stages as the reading of a file, as ``track_file``. Raises InvalidStage."""
        return TrackedFile.of(file, lambda total: self.stage(name, total, unit="bytes", message=message))

    def __enter__(self) -> Self:
        if self._parent is not None:
            self._parent.enter(self._name, self)
        else:
            self._tree.bar.begin()
        if self._tree.bar.is_active:
            self._pace = self._tree.bar.pace()
            self._tree.show(None if self._parent is None else self, force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._tree.lock:
            if completed(error):
                self._shares.finish()
        if self._parent is not None:
            self._parent.leave(self._name, self, error)
        else:
            if outcome(error) == "done":
                self._tree.shown = None
            self._tree.bar.end(error, self.measure)

    def enter(self, name: str, child: Stage | Stages) -> None:
        """A part begins. Raises InvalidStage if it runs already."""
        with self._tree.lock:
            if name in self._live:
                raise InvalidStage(f"stage {name!r} runs already; let its threads step the same one", stage=name)
            self._live[name] = child
            for left in self._left:
                self._shares.fill(left, 1.0)
            self._left.clear()

    def leave(self, name: str, child: Stage | Stages, error: BaseException | None) -> None:
        """A part ends, as full as it is.

        A loop that is left, by break or by an error, does not know by which. It was break if another part begins.
        """
        with self._tree.lock:
            self._shares.fill(name, child.share)
            self._live.pop(name, None)
            if isinstance(error, GeneratorExit):
                self._left.add(name)

    def path(self, name: str) -> str:
        """A part's name with those of the stages around it."""
        if self._parent is None:
            return name
        return f"{self._parent.path(self._name)}/{name}"

    def described(self, now: float) -> TaskPart:
        """What the page hears of it as a part."""
        assert self._parent is not None
        return TaskPart(name=self._parent.path(self._name), **self.numbers(now))

    def numbers(self, now: float) -> dict[str, Any]:
        """The members that count, as they stand."""
        assert self._pace is not None
        with self._tree.lock:
            share, done = self.share, self._shares.done
        rate = self._pace.record(now, done)
        left = time_left(done, self._shares.total, rate)
        return {
            "done": done,
            "total": self._shares.total,
            "share": share,
            "rate": rate,
            "left": left,
            "message": self._message[: self._tree.bar.settings.message_chars],
        }

    def measure(self, now: float) -> dict[str, Any]:
        """The members of the whole's word."""
        shown = self._tree.shown
        return {**self.numbers(now), "part": None if shown is None else shown.described(now)}


class Stage(Progress):
    """One stage that counts steps. Its words are the whole's."""

    __slots__ = ("_finished", "_name", "_parent", "_tree")

    def __init__(
        self, tree: _Tree, parent: Stages, name: str, total: float | None, *, unit: str = "", message: str = ""
    ) -> None:
        super().__init__(tree.bar, total, unit, message)
        self._tree = tree
        self._parent = parent
        self._name = name
        self._finished = False

    @property
    def share(self) -> float | None:
        """How full it is; None where nobody knows."""
        return 1.0 if self._finished else share_of(known(self.done) or 0, known(self.total))

    def __enter__(self) -> Self:
        self._parent.enter(self._name, self)
        self.own()
        if self._reporter.is_active:
            self._pace = self._reporter.pace()
            self._tree.show(self, force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished = completed(error)
        self._parent.leave(self._name, self, error)

    def _report(self) -> None:
        self._tree.show(self)

    def described(self, now: float) -> TaskPart:
        """What the page hears of it."""
        return TaskPart(name=self._parent.path(self._name), **self.measure(now))


def completed(error: BaseException | None) -> bool:
    """Whether a block was left because all in it was done."""
    return outcome(error) == "done" and not isinstance(error, GeneratorExit)


def stages(
    weights: Mapping[str, float] | None = None, /, *, stage: str = "", message: str = "", **more: float
) -> Stages:
    """One bar of a task that is made of parts.

        with stages(read=1, embed=8, store=1) as parts:
            for page in parts.track("read", pages):
                read(page)
            with parts.stage("embed", total=len(passages)) as steps:
                steps.step()
            with parts.stage("store"):
                store()

    Weights are how long the stages take beside each other; names that are no words, or ``stage`` and ``message``, go
    into the mapping. Emits one ``task.progress`` as ``progress`` does, and a word when a stage begins. A stage that is
    left without an error is full; one that fails stays where it was; a loop that is left early does so until the next
    stage begins. The whole equals its total, the sum of the weights, when the block has ended without an error, and
    not before.

    Raises:
        InvalidStage: no stage, or a weight that is not above 0.
    """
    return Stages({**(weights or {}), **more}, bar=ProgressReporter(stage), message=message)
