"""`make bench-check`: has a hot path become dearer? Compared with the figures in `hotpaths.json`.

Counts instructions with callgrind where there are valgrind and a C compiler: the same on a busy machine as on an idle
one. Elsewhere it takes CPU time, with a wide tolerance. Both are taken as a ratio to a calibration loop, so that
another processor, or another build of the same Python, moves both alike. Another Python need not: that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.hotpaths import CALIBRATION, EVENTS, loops

__all__ = ["HERE", "compare", "main", "stored_elsewhere"]

STORED: Final = Path(__file__).parent / "hotpaths.json"
_MARKERS: Final = Path(__file__).parent / "callgrind" / "markers.c"
_TOLERANCE: Final = {"instructions": 0.08, "cpu": 0.6}
_ROUNDS: Final = 7
_SECONDS: Final = 300

HERE: Final = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
Figures = dict[str, float]


def count_instructions() -> Figures | None:
    """Instructions per event of each path; None where they cannot be counted."""
    compiler = shutil.which("cc")
    if shutil.which("valgrind") is None or compiler is None:
        return None
    with TemporaryDirectory(prefix="bench-check-") as folder:
        markers, dump = Path(folder, "markers.so"), Path(folder, "counts")
        build = [compiler, "-shared", "-fPIC", "-o", str(markers), str(_MARKERS)]
        if subprocess.run(build, capture_output=True, check=False).returncode:
            return None  # valgrind's header is in a package of its own
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dump}"]
        command = [*tool, sys.executable, "-m", "bench.hotpaths", str(markers)]
        # A fixed seed of hashes: dictionaries collide alike each time.
        env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=_SECONDS)
        return dict(_read_dump(part.read_text()) for part in Path(folder).glob("counts.*"))


def _read_dump(text: str) -> tuple[str, float]:
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if name is None or total is None:
        raise SystemExit("callgrind's output could not be read; compare CPU time with make bench-check ARGS=--cpu")
    return name[1], int(total[1]) / EVENTS


def measure_cpu() -> Figures:
    """Microseconds of CPU time per event of each path: the best of some rounds, which alternate."""
    best: Figures = {}
    running = loops()
    for _ in range(_ROUNDS):
        for name, loop in running.items():
            begin = time.process_time_ns()
            loop()
            took = (time.process_time_ns() - begin) / 1000 / EVENTS
            best[name] = min(took, best.get(name, took))
    return best


def compare(kind: str, stored: Figures, now: Figures) -> list[str]:
    """Print a table; return a sentence for each path that has become dearer than the tolerance allows."""
    failures, unit = [], "instructions" if kind == "instructions" else "us of CPU"
    print(f"{'per event':27}{'stored':>10}{'now':>10}   {unit}; change against the calibration loop")
    for name, value in now.items():
        if name not in stored:
            failures.append(f"{name} has no stored figure")
            continue
        change = value / now[CALIBRATION] / (stored[name] / stored[CALIBRATION]) - 1
        print(f"{name:27}{stored[name]:10.1f}{value:10.1f}{change:+9.1%}")
        if change > _TOLERANCE[kind]:
            more = f"{change:.0%} more than stored ({_TOLERANCE[kind]:.0%} allowed)"
            failures.append(f"{name} costs {value:.1f} {unit} an event, {more}")
        elif change < -_TOLERANCE[kind]:
            print(f"  {name} has become cheaper: store that, so that it stays so")
    failures += [f"{name} is stored and no longer measured" for name in stored.keys() - now.keys()]
    return failures


def stored_elsewhere(kind: str, stored: dict[str, Any]) -> str | None:
    """A warning where the figures are another interpreter's."""
    there = stored.get(f"{kind}_with", "")
    if there == HERE:
        return None
    return f"stored with {there}, measured with {HERE}: a path may differ for that alone"


def main() -> None:
    """Measure, then compare or store."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("--store", action="store_true", help="store what is measured as what is to be kept")
    parser.add_argument("--cpu", action="store_true", help="CPU time even where instructions can be counted")
    asked = parser.parse_args()
    stored: dict[str, Any] = json.loads(STORED.read_text()) if STORED.exists() else {}
    counted = None if asked.cpu else count_instructions()
    if counted is None and not asked.cpu:
        print("no valgrind with its headers, or no C compiler: CPU time is compared, within wide limits")
    kind, now = ("cpu", measure_cpu()) if counted is None else ("instructions", counted)
    if asked.store:
        stored[kind] = {name: round(value, 3) for name, value in now.items()}
        STORED.write_text(json.dumps({**stored, f"{kind}_with": HERE}, indent=2) + "\n")
        print(f"stored in {STORED}: {kind} of {len(now)} paths, {HERE}")
        return
    if kind not in stored:
        raise SystemExit(
            f"{STORED} has no figures of this kind ({kind}); store them with make bench-check ARGS=--store"
        )
    failures = compare(kind, stored[kind], now)
    warning = stored_elsewhere(kind, stored)
    if warning:
        print(f"\n{warning}")
    if failures:
        remedy = "If that is what you want, say why in the commit and store it: make bench-check ARGS=--store"
        raise SystemExit("\n".join(("", *failures, remedy)))


if __name__ == "__main__":
    main()
