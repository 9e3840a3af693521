"""The load of this process: CPU, memory, and the delay of its event loop."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["LoadReading", "ProcessLoad"]

# Seconds. Four wake-ups a second cost nothing that can be measured, and no long delay falls between two of them.
_TICK: Final = 0.25
_STATM: Final = Path("/proc/self/statm")


class LoadReading(NamedTuple):
    """The load of the process since the reading before.

    Attributes:
        cpu: share of one core.
        memory: resident memory in bytes; on systems without ``/proc``, the largest so far.
        lag: longest delay of the event loop, in seconds.
    """

    cpu: float
    memory: int
    lag: float


class ProcessLoad:
    """Measures the process. Start it in the event loop whose delay it measures."""

    def __init__(self) -> None:
        self._since, self._used = time.monotonic(), time.process_time()
        self._lag = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure the event loop's delay from now on."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """End the measurement of the event loop's delay."""
        if self._timer is not None:
            self._timer.cancel()

    def read(self) -> LoadReading:
        """Return what was used since the last call, and begin again."""
        now, used, lag = time.monotonic(), time.process_time(), self._lag
        cpu = (used - self._used) / max(now - self._since, 1e-6)
        self._since, self._used, self._lag = now, used, 0.0
        return LoadReading(round(cpu, 4), _memory(), round(lag, 4))

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(loop.time() + _TICK, self._tick, loop, loop.time() + _TICK)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lag = max(self._lag, loop.time() - due)
        self._schedule(loop)


def _memory() -> int:
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        # Kilobytes on Linux, bytes on macOS: getrusage(2).
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * resource.getpagesize()
