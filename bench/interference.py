"""Detects other processes that use the machine, so that a disturbed measurement can be repeated.

It reads the CPU clocks of the processes. The sums of the kernel (`/proc/stat`) are samples, and on an idle virtual
machine they may show half a core.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

__all__ = ["cpu_of_all_processes", "cpu_of_others", "wait_until_idle"]

_INTERVAL_S: Final = 0.5
_IDLE_LIMIT: Final = 0.2  # cores


def cpu_of_all_processes() -> Mapping[int, float]:
    """Return the CPU time of each running process in seconds."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            found[pid] = time.clock_gettime((~pid << 3) | 2)
        except OSError:  # the process has ended
            continue
    return found


def cpu_of_others(before: Mapping[int, float], after: Mapping[int, float], own: Collection[int] = ()) -> float:
    """Return the CPU time in seconds of other processes between two readings, except processes that have ended."""
    return sum(cpu - before.get(pid, 0.0) for pid, cpu in after.items() if pid not in own)


def wait_until_idle(seconds: float) -> None:
    """Wait until the machine is idle, at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, began = cpu_of_all_processes(), time.monotonic()
        time.sleep(_INTERVAL_S)
        if cpu_of_others(before, cpu_of_all_processes()) / (time.monotonic() - began) < _IDLE_LIMIT:
            return
