"""Who else uses the machine: a measurement beside others' work says little, so it is noticed, and taken again.

By the processes' own clocks: the kernel's sums over the machine (`/proc/stat`) are samples, and on a virtual machine
they may say half a core where nothing runs.
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
    """CPU time of each process that runs now, in seconds."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            found[pid] = time.clock_gettime((~pid << 3) | 2)
        except OSError:  # it has ended
            continue
    return found


def cpu_of_others(before: Mapping[int, float], after: Mapping[int, float], own: Collection[int] = ()) -> float:
    """CPU time between two looks, in seconds, of what is not ours. What has ended in between is not seen."""
    return sum(cpu - before.get(pid, 0.0) for pid, cpu in after.items() if pid not in own)


def wait_until_idle(seconds: float) -> None:
    """Return once hardly anything runs, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, began = cpu_of_all_processes(), time.monotonic()
        time.sleep(_INTERVAL_S)
        if cpu_of_others(before, cpu_of_all_processes()) / (time.monotonic() - began) < _IDLE_LIMIT:
            return
