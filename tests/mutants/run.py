"""Runs the tests against mutants, several at a time, and keeps the results."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tests.mutants.child import Copy, Outcome, preload
from tests.mutants.coverage import Coverage, digest, statements
from tests.mutants.guard import Guard
from tests.mutants.lua_changes import lua_changes, valid_lua
from tests.mutants.mutant import Mutant, named
from tests.mutants.patch import replacements
from tests.mutants.python_changes import python_changes

T = TypeVar("T")

__all__ = ["Result", "Run", "mutants_of", "sample"]

LIMIT = 60.0
"""Seconds of tests against one mutant, as traced."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a mutant.

    Attributes:
        status: ``killed``, ``survived`` or ``uncovered``.
        test: the test that killed it, or ``timeout``.
        seconds: how long the tests ran.
        source: hash of the source.
        tests: hash of the files of its tests.
    """

    status: str
    test: str
    seconds: float
    source: str
    tests: str


def mutants_of(root: Path, path: Path) -> list[Mutant]:
    """Return all mutants of a file in their order."""
    source = (root / path).read_bytes()
    changes = lua_changes(source) if path.suffix == ".lua" else python_changes(source)
    return [*named(path.as_posix(), source, changes)]


def sample(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return ``count`` of the mutants; the same ones for the same seed. 0: all."""
    if not count or count >= len(mutants):
        return mutants
    chosen = random.Random(f"{seed}:{mutants[0].path}").sample(range(len(mutants)), count)
    return [mutants[index] for index in sorted(chosen)]


class Run:
    """A mutation run.

    Args:
        root: root of the project.
        folder: for copies, traces and results.
        jobs: how many runs of pytest at a time.
        fresh: forget former results.
        libraries: what to import once for all runs.
    """

    def __init__(
        self, root: Path, folder: Path, *, jobs: int, fresh: bool = False, libraries: Iterable[str] = ()
    ) -> None:
        self.root, self._folder = root, folder
        self.coverage = Coverage(root, folder / "traces")
        self._file = folder / "results.json"
        self._results: dict[str, Result] = {}
        self._sources: list[str] = []
        self._tests: list[str] = []
        if self._file.exists() and not fresh:
            self._results = {key: Result(**value) for key, value in json.loads(self._file.read_text()).items()}
        preload(libraries)
        guard = Guard()
        self._copies = [Copy(root, folder / f"copy{number}", guard) for number in range(jobs)]

    def trace(self, sources: list[Path], tests: list[Path], notify: Callable[[str], None]) -> None:
        """Trace the test files that are new or changed."""
        names = self._sources = [source.as_posix() for source in sources]
        self._tests = [test.as_posix() for test in tests]
        stale = [test for test in tests if not self.coverage.load(test)]

        def start(copy: Copy, test: Path) -> None:
            copy.start([test.as_posix()], seconds=600, trace=names)

        for copy, test, outcome in self._each(iter(stale), start):
            if outcome.status not in {"passed", "failed"} or not copy.traced.exists():
                notify(f"cannot trace {test}: {outcome.status}\n{outcome.output}")
                continue
            notify(f"traced {test} in {outcome.seconds:.0f} s" + (f": {outcome.test} FAILED" if outcome.test else ""))
            self.coverage.store(test, copy.traced)
            copy.traced.unlink()
            self.coverage.load(test)

    def close(self) -> None:
        """End what runs."""
        for copy in self._copies:
            copy.close()

    def test(self, mutants: list[Mutant], notify: Callable[[Mutant, Result], None]) -> dict[str, Result]:
        """Run the tests against the mutants of one file.

        Args:
            mutants: mutants of one file.
            notify: is called for each new result.

        Returns:
            The results by key, known ones too. A Lua mutant that is no valid Lua has none.
        """
        path = mutants[0].path
        source = (self.root / path).read_bytes()
        spans = {} if path.endswith(".lua") else statements(source)
        plans = {mutant.key: self.coverage.tests_of(mutant, spans, LIMIT) for mutant in mutants}
        prints = {
            key: digest(*sorted({self.root / test.split("::")[0] for test in plan})) for key, plan in plans.items()
        }
        of_source = digest(self.root / path)
        found: dict[str, Result] = {}
        to_do = []
        for mutant in mutants:
            known = self._results.get(mutant.key)
            if not plans[mutant.key]:
                found[mutant.key] = Result("uncovered", "", 0, of_source, "")
            elif (
                known and known.source == of_source and (known.status == "killed" or known.tests == prints[mutant.key])
            ):
                found[mutant.key] = known
            elif not path.endswith(".lua") or valid_lua(mutant.apply(source)):
                to_do.append(mutant)

        def start(copy: Copy, mutant: Mutant) -> None:
            plan, changed = plans[mutant.key], mutant.apply(source)
            seconds = 20 + 2 * self.coverage.seconds(plan)
            copy.write(path, changed)
            if path.endswith(".lua") or replacements(path, source, changed):
                copy.ask(path, plan, seconds=seconds)
            else:
                copy.start(plan, seconds=seconds)

        for copy in self._copies[: len(to_do)]:
            copy.serve(self._tests, self._sources)
        for copy, mutant, outcome in self._each(iter(to_do), start):
            copy.restore(path)
            if outcome.status == "broken":
                raise RuntimeError(f"pytest did not run for {mutant.key}:\n{outcome.output}")
            status = "survived" if outcome.status == "passed" else "killed"
            test = outcome.test or ("" if status == "survived" else outcome.status)
            result = Result(status, test, round(outcome.seconds, 1), of_source, prints[mutant.key])
            found[mutant.key] = self._results[mutant.key] = result
            self._file.write_text(json.dumps({key: asdict(value) for key, value in self._results.items()}, indent=0))
            notify(mutant, result)
        return found

    def _each(self, items: Iterator[T], start: Callable[[Copy, T], None]) -> Iterator[tuple[Copy, T, Outcome]]:
        """Run one item in each copy at a time; yield them as they end."""
        free, running = [*self._copies], dict[Copy, T]()
        while True:
            while free and (item := next(items, None)) is not None:
                copy = free.pop()
                start(copy, item)
                running[copy] = item
            if not running:
                return
            for copy, item in [*running.items()]:
                outcome = copy.outcome()
                if outcome is not None:
                    del running[copy]
                    yield copy, item, outcome
                    free.append(copy)
            time.sleep(0.02)
