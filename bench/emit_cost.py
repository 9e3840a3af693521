"""Measures the cost of an emit for the caller, and the rate of events into Redis from one process.

In a separate process: `python -m bench.emit_cost NAME REDIS_URL EVENTS` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from bench.contenders.contract import Emission, Emitter
from bench.contenders.registry import load
from bench.payload import user_name
from bench.processes import Child
from bench.redis_server import running_redis

__all__ = ["measure_emits"]

_USERS: Final = 100
_OUTSTANDING: Final = 10_000  # largest number of waiting events
_CHUNK: Final = 500
_PAUSE: Final = 0.001  # seconds between two emits of the calm phase
_CALM_FRACTION: Final = 10  # the calm phase emits a tenth of the events


class _Run:
    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._users = [user_name(number) for number in range(_USERS)]
        self._next = 0

    def emit(self) -> int:
        """Emit one event. Returns the duration in nanoseconds."""
        number = self._next
        self._next += 1
        emission = Emission(self._users[number % _USERS], number // _USERS, time.time_ns() // 1000)
        before = time.perf_counter_ns()
        self._emitter.emit(emission)
        return time.perf_counter_ns() - before

    def calm(self, events: int) -> list[int]:
        """Emit about one event per millisecond, as a task with other work does."""
        took = []
        for _ in range(events):
            took.append(self.emit())
            time.sleep(_PAUSE)
        self._emitter.wait(0)
        return took

    def flat_out(self, events: int) -> tuple[list[int], float]:
        """Emit as fast as Redis accepts events. Returns durations and events/s until Redis has all of them."""
        took: list[int] = []
        begin = time.perf_counter()
        while len(took) < events:
            took += [self.emit() for _ in range(_CHUNK)]
            self._emitter.wait(_OUTSTANDING)
        self._emitter.wait(0)
        return took, len(took) / (time.perf_counter() - begin)


def _quantile(nanoseconds: list[int], fraction: float) -> float:
    """Return a quantile in microseconds."""
    return sorted(nanoseconds)[min(len(nanoseconds) - 1, int(fraction * len(nanoseconds)))] / 1000


def main(name: str, redis_url: str, events: str) -> None:
    """Measure and print."""
    make = load(name).emitter
    if make is None:
        raise SystemExit(f"cannot measure {name}: it has no emitter")
    run = _Run(make(redis_url))
    run.flat_out(_CHUNK)
    calm = run.calm(int(events) // _CALM_FRACTION)
    busy, rate = run.flat_out(int(events))
    figures = {
        "calm_p50_us": _quantile(calm, 0.5),
        "calm_p99_us": _quantile(calm, 0.99),
        "busy_p50_us": _quantile(busy, 0.5),
        "busy_p99_us": _quantile(busy, 0.99),
        "flushed_per_second": rate,
    }
    print(json.dumps(figures), flush=True)


def measure_emits(name: str, events: int) -> dict[str, float]:
    """Measure a contender with a separate Redis. Raises ChildError."""
    with (
        running_redis() as redis,
        Child([sys.executable, "-m", "bench.emit_cost", name, redis.url, str(events)]) as child,
    ):
        return {key: float(value) for key, value in child.receive(120.0).items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
