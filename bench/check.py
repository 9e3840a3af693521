"""`make bench-check`: compares the cost of the hot paths with the figures in `hotpaths.json`.

With valgrind and a C compiler it counts instructions, which do not depend on the load of the machine. Otherwise it
measures CPU time with a wide tolerance. Both are ratios to a calibration loop, so another processor or another build of
the same Python changes both. Another Python version may change single paths; the output then has a warning.
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
    """Return the instructions per event of each path, or None if they cannot be counted."""
    compiler = shutil.which("cc")
    if shutil.which("valgrind") is None or compiler is None:
        return None
    with TemporaryDirectory(prefix="bench-check-") as folder:
        markers, dump = Path(folder, "markers.so"), Path(folder, "counts")
        build = [compiler, "-shared", "-fPIC", "-o", str(markers), str(_MARKERS)]
        if subprocess.run(build, capture_output=True, check=False).returncode:
            return None  # the header of valgrind is not installed
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dump}"]
        command = [*tool, sys.executable, "-m", "bench.hotpaths", str(markers)]
        # With a fixed hash seed, dictionaries have the same collisions in each run.
        env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=_SECONDS)
        return dict(_read_dump(part.read_text()) for part in Path(folder).glob("counts.*"))


def _read_dump(text: str) -> tuple[str, float]:
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if name is None or total is None:
        raise SystemExit("cannot read the output of callgrind; compare CPU time with make bench-check ARGS=--cpu")
    return name[1], int(total[1]) / EVENTS


def measure_cpu() -> Figures:
    """Return the CPU time in us per event of each path: the best of several rounds."""
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
    """Print a table. Returns a message for each path whose cost exceeds the tolerance."""
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
            print(f"  {name} costs less: store the new figure to keep it")
    failures += [f"{name} has a stored figure but is not measured" for name in stored.keys() - now.keys()]
    return failures


def stored_elsewhere(kind: str, stored: dict[str, Any]) -> str | None:
    """Return a warning if the stored figures are of another interpreter."""
    there = stored.get(f"{kind}_with", "")
    if there == HERE:
        return None
    return f"stored with {there}, measured with {HERE}: figures may differ for this reason"


def main() -> None:
    """Measure and compare, or store."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("--store", action="store_true", help="store the measured figures")
    parser.add_argument("--cpu", action="store_true", help="measure CPU time even if instructions can be counted")
    options = parser.parse_args()
    stored: dict[str, Any] = json.loads(STORED.read_text()) if STORED.exists() else {}
    counted = None if options.cpu else count_instructions()
    if counted is None and not options.cpu:
        print("valgrind, its headers or a C compiler is missing: comparing CPU time, with a wide tolerance")
    kind, now = ("cpu", measure_cpu()) if counted is None else ("instructions", counted)
    if options.store:
        stored[kind] = {name: round(value, 3) for name, value in now.items()}
        STORED.write_text(json.dumps({**stored, f"{kind}_with": HERE}, indent=2) + "\n")
        print(f"stored in {STORED}: {kind} of {len(now)} paths, {HERE}")
        return
    if kind not in stored:
        raise SystemExit(
            f"cannot compare: {STORED} has no figures for {kind}; store them with make bench-check ARGS=--store"
        )
    failures = compare(kind, stored[kind], now)
    warning = stored_elsewhere(kind, stored)
    if warning:
        print(f"\n{warning}")
    if failures:
        remedy = "To accept the new cost, run make bench-check ARGS=--store and give the reason in the commit."
        raise SystemExit("\n".join(("", *failures, remedy)))


if __name__ == "__main__":
    main()
