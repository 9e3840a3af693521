"""Who else uses the machine: a measurement beside others' work says little, so it is noticed, and taken again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

__all__ = ["busy_seconds", "wait_until_quiet"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_GUESTS: Final = 8  # from here on what is in other columns already
_LOOK_S: Final = 0.5
_QUIET: Final = 0.2  # cores


def busy_seconds() -> float:
    """CPU time that everything on this machine, and its hypervisor for others, has used since it started."""
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(ticks) for number, ticks in enumerate(columns[:_GUESTS]) if number not in _IDLE) / _TICKS


def wait_until_quiet(seconds: float) -> None:
    """Return once hardly anything runs, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, began = busy_seconds(), time.monotonic()
        time.sleep(_LOOK_S)
        if (busy_seconds() - before) / (time.monotonic() - began) < _QUIET:
            return
