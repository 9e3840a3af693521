"""Mutation run over the pure modules and the Lua: ``python -m tests.mutants [PATH …]``, or ``make mutants``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.mutants.accepted import Accepted, accepted
from tests.mutants.mutant import Mutant
from tests.mutants.run import Result, Run, mutants_of, sample
from tests.mutants.targets import LIBRARIES, SOURCES, TESTS, expand


def main() -> int:
    options = _options()
    root: Path = options.root.resolve()
    sources = [path for name in ("*.py", "*.lua") for path in expand(root, options.path or SOURCES, name)]
    traced = [path for name in ("*.py", "*.lua") for path in expand(root, [*SOURCES, *options.path], name)]
    tests = expand(root, options.tests or TESTS, "test_*.py")
    reviewed = accepted(options.accepted or root / "tests/mutants/accepted.toml")
    if options.list:
        for path in sources:
            for mutant in sample(mutants_of(root, path), options.per_file, options.seed):
                print(f"{mutant.line}: {mutant.key}")
        return 0
    run = Run(
        root,
        root / "build/mutants",
        jobs=options.jobs,
        fresh=options.fresh,
        libraries=() if options.tests else LIBRARIES,
    )
    run.trace(traced, tests, notify=_say)
    if run.coverage.failed:
        _say(f"these tests failed or were skipped without any change, and are left out: {sorted(run.coverage.failed)}")
    report = Report(reviewed)
    for path in sources:
        every = mutants_of(root, path)
        chosen = sample(every, options.per_file, options.seed)
        chosen += [mutant for mutant in every if mutant.key in reviewed and mutant not in chosen]
        if chosen:
            report.add(path, every, run.test(chosen, notify=_name_survivor))
    run.close()
    return report.show()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("path", nargs="*", help="files or folders to change; default: the list in targets.py")
    parser.add_argument("--tests", nargs="*", help="test files or folders; default: the list in targets.py")
    parser.add_argument("--per-file", type=int, default=25, help="mutants of each file; 0: all; default: 25")
    parser.add_argument("--seed", type=int, default=1, help="chooses the mutants; default: 1")
    parser.add_argument("--jobs", type=int, default=2, help="runs of pytest at a time; default: 2")
    parser.add_argument("--fresh", action="store_true", help="forget the results in build/mutants")
    parser.add_argument("--list", action="store_true", help="only name the mutants")
    parser.add_argument("--accepted", type=Path, help="the reviewed survivors; default: tests/mutants/accepted.toml")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="root of the project; default: this folder")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


def _name_survivor(mutant: Mutant, result: Result) -> None:
    """Name a survivor as soon as it is found."""
    if result.status == "survived":
        _say(f"survived: {mutant.path}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")


class Report:
    """Counts the results by file."""

    def __init__(self, reviewed: dict[str, Accepted]) -> None:
        self._reviewed = reviewed
        self._rows: list[tuple[str, Counter[str]]] = []
        self._survivors: list[Mutant] = []
        self._stale: list[str] = []

    def add(self, path: Path, every: list[Mutant], results: dict[str, Result]) -> None:
        by_key = {mutant.key: mutant for mutant in every}
        counts: Counter[str] = Counter(mutants=len(results))
        for key, result in results.items():
            status = result.status
            if key in self._reviewed and status == "killed":
                self._stale.append(f"{key}: {result.test} kills it now; remove the entry")
            if key in self._reviewed and status == "survived":
                status = "accepted"
            counts[status] += 1
            if status == "survived":
                self._survivors.append(by_key[key])
        self._stale += [
            f"{key}: there is no such mutant; remove the entry"
            for key, entry in self._reviewed.items()
            if entry.file == path.as_posix() and key not in by_key
        ]
        self._rows.append((path.as_posix(), counts))

    def show(self) -> int:
        """Print all. Return 1 for a survivor that is not reviewed, or an entry that is wrong."""
        print(
            f"\n{'file':52} {'mutants':>8} {'killed':>7} {'accepted':>9} {'survived':>9} {'uncovered':>10} {'rate':>7}"
        )
        total: Counter[str] = Counter()
        for name, counts in [*self._rows]:
            total += counts
            _row(name, counts)
        _row("all", total)
        for mutant in self._survivors:
            print(f"\n{mutant.path}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
        for line in self._stale:
            print(f"\naccepted.toml: {line}")
        return int(bool(self._survivors or self._stale))


def _row(name: str, counts: Counter[str]) -> None:
    matter = counts["killed"] + counts["survived"]
    rate = f"{100 * counts['killed'] / matter:.1f} %" if matter else "-"
    columns = f"{counts['mutants']:8} {counts['killed']:7} {counts['accepted']:9} {counts['survived']:9}"
    print(f"{name[-52:]:52} {columns} {counts['uncovered']:10} {rate:>7}")


if __name__ == "__main__":
    sys.exit(main())
