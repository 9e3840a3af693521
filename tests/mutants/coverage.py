"""Which tests run a line, from one traced run of each test file.

A test file is traced again when it changed, or a source that it runs did.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import defaultdict
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.targets import distance
from tests.mutants.trace import IMPORT

__all__ = ["Coverage", "digest", "statements"]


def digest(*paths: Path) -> str:
    """Return a short hash of files; a missing one has the hash of nothing."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.read_bytes() if path.exists() else b"")
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def statements(source: bytes) -> dict[int, range]:
    """Return the lines of the simple statement, or of the head of the compound one, that has each line."""
    spans: dict[int, range] = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        end = body[0].lineno if body else (node.end_lineno or node.lineno) + 1
        span = range(node.lineno, max(end, node.lineno + 1))
        for line in span:
            if line not in spans or len(span) < len(spans[line]):
                spans[line] = span
    return spans


class Coverage:
    """The traces of all test files.

    Args:
        root: root of the project.
        folder: where the traces are kept.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder
        self._seconds: dict[str, float] = {}
        self._tests: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.failed: set[str] = set()

    def load(self, test: Path) -> bool:
        """Load the trace of one test file; False if there is none, or it is out of date."""
        path = self._path(test)
        if not path.exists():
            return False
        stored = json.loads(path.read_text())
        lines: dict[str, dict[str, list[str]]] = stored["lines"]
        if stored.get("digest") != digest(*(self._root / name for name in [str(test), *sorted(lines)])):
            return False
        self._seconds |= stored["seconds"]
        self.failed |= {*stored["failed"]}
        for source, numbers in lines.items():
            for number, tests in numbers.items():
                names = {name or f"{IMPORT}{test}" for name in tests}
                self._tests[source][int(number)] |= names
        return True

    def store(self, test: Path, traced: Path) -> None:
        """Keep the trace of one test file."""
        stored = json.loads(traced.read_text())
        stored["digest"] = digest(*(self._root / name for name in [str(test), *sorted(stored["lines"])]))
        path = self._path(test)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored))

    def tests_of(self, mutant: Mutant, spans: dict[int, range], limit: float) -> list[str]:
        """Return the tests that run a mutant's statement: the nearest first, then the fastest.

        Args:
            mutant: the mutant.
            spans: of its source; empty for Lua.
            limit: seconds that they may take together; the first always counts.

        Returns:
            Node ids. If only an import runs the line: all tests that run anything of the file, and those of its folder.
        """
        lines = self._tests[mutant.path]
        count = mutant.before.count("\n") + 1
        covered = {line for at in range(mutant.line, mutant.line + count) for line in spans.get(at, range(at, at + 1))}
        if mutant.path.endswith(".lua"):
            covered = {0}
        found = {test for line in covered for test in lines.get(line, ())}
        if found and all("::" not in test for test in found):
            found = {test for tests in lines.values() for test in tests}
            # A test that only uses a constant, or the class of a dataclass, runs no line of the file.
            found |= {test for test in self._seconds if distance(mutant.path, test) < 2}
        found = {test for test in found if "::" in test}
        order = sorted(found, key=lambda test: (distance(mutant.path, test), self._seconds[test], test))
        chosen, total = [], 0.0
        for test in order:
            if not chosen or total + self._seconds[test] <= limit:
                chosen.append(test)
                total += self._seconds[test]
        return chosen

    def seconds(self, tests: list[str]) -> float:
        return sum(self._seconds[test] for test in tests)

    def _path(self, test: Path) -> Path:
        return self._folder / f"{test.as_posix().replace('/', '.')}.json"
