"""One change of a source file, and the name by which a run finds it again after other lines have moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Change", "Mutant", "named"]


@dataclass(frozen=True, slots=True)
class Change:
    """A replacement of some bytes of a source.

    Attributes:
        start: offset of its first byte.
        end: offset after its last byte.
        text: what comes in their place.
        operator: the kind of the change, such as ``comparison``.
    """

    start: int
    end: int
    text: bytes
    operator: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one file.

    Attributes:
        path: the file, relative to the root.
        line: the line where the change begins, from 1.
        before: the changed lines as they are, without indentation.
        after: the changed lines as they become.
        nth: the how-manieth mutant of the file with the same ``before`` and ``after``, from 1.
        change: the change.
    """

    path: str
    line: int
    before: str
    after: str
    nth: int
    change: Change

    @property
    def key(self) -> str:
        """Its name. It does not contain the number of the line."""
        name = f"{self.path}: {self.before} -> {self.after}"
        return name if self.nth == 1 else f"{name} ({self.nth})"

    def apply(self, source: bytes) -> bytes:
        return source[: self.change.start] + self.change.text + source[self.change.end :]


def named(path: str, source: bytes, changes: Iterable[Change]) -> Iterator[Mutant]:
    """Name the changes of one file; two that make the same text are one."""
    seen: Counter[tuple[str, str]] = Counter()
    made: set[bytes] = set()
    for change in sorted(changes, key=lambda one: (one.start, one.end, one.text)):
        first = source.rfind(b"\n", 0, change.start) + 1
        end = source.find(b"\n", change.end)
        last = len(source) if end < 0 else end
        before = " ".join(source[first:last].decode().split())
        after = " ".join((source[first : change.start] + change.text + source[change.end : last]).decode().split())
        whole = source[: change.start] + change.text + source[change.end :]
        if before == after or whole in made:
            continue
        made.add(whole)
        seen[before, after] += 1
        yield Mutant(path, source.count(b"\n", 0, change.start) + 1, before, after, seen[before, after], change)
