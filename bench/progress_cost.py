"""Measures the cost of a progress step in a worker: `progress.step()` and `self.update_state(...)`.

`python -m bench.progress_cost` starts a Redis and a worker. It prints both costs and their ratio.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, Final

from celery import Celery
from celery.canvas import Signature

from bench.processes import Child
from bench.redis_server import running_redis
from worker_adapter import install, progress, start_operation

__all__ = ["app"]

_SECONDS: Final = 3.0  # duration of each loop; several progress events are due in it
_CHUNK: Final = 100
_CALM: Final = 1_000
_PAUSE: Final = 0.001  # seconds of other work between two calm steps
_TIMEOUT: Final = 60.0
_TARGET: Final = 20

Figures = dict[str, float]

app = Celery("bench.progress_cost", broker=os.environ.get("BENCH_REDIS"), backend=os.environ.get("BENCH_REDIS"))
install(app)


def _calm(step: Callable[[int], None]) -> Figures:
    """Make about one step per millisecond, as a task with other work does."""
    took = []
    for number in range(_CALM):
        time.sleep(_PAUSE)
        before = time.perf_counter_ns()
        step(number)
        took.append((time.perf_counter_ns() - before) / 1000)
    return {"calm_mean": fmean(took), "calm_p50": median(took), "calm_p99": sorted(took)[_CALM * 99 // 100]}


def _loop(step: Callable[[int], None]) -> Figures:
    """Make steps as fast as possible."""
    number, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < _SECONDS:
        for _ in range(_CHUNK):
            step(number)
            number += 1
    return {"loop_mean": (time.perf_counter() - begin) / number * 1e6}


@app.task(bind=True, name="bench.progress_cost.measure")  # type: ignore[untyped-decorator]
def measure(self: Any) -> dict[str, Figures]:
    """Return microseconds per step for both calls."""

    def update(number: int) -> None:
        self.update_state(state="PROGRESS", meta={"done": number, "total": 1_000_000})

    with progress(1_000_000_000) as steps:
        stepping = {**_calm(lambda _: steps.step()), **_loop(lambda _: steps.step())}
    return {"progress.step()": stepping, "self.update_state(...)": {**_calm(update), **_loop(update)}}


def _measured(redis_url: str, log: Path) -> dict[str, Figures]:
    app.conf.update(broker_url=redis_url, result_backend=redis_url)
    environment = {"BENCH_REDIS": redis_url, "EVENTBUS_REDIS_URL": redis_url}
    os.environ.update(environment)
    command = [sys.executable, "-m", "celery", "-A", "bench.progress_cost", "worker", "--pool", "solo"]
    command += ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    with log.open("ab") as errors, Child(command, environment, stderr=errors):
        flow: Signature = measure.si()
        operation = start_operation(flow, user="bench")
        figures: dict[str, Figures] = operation.result.get(timeout=_TIMEOUT)
        return figures


def main() -> None:
    """Measure and print."""
    with running_redis() as redis, TemporaryDirectory(prefix="bench-") as folder:
        figures = _measured(redis.url, Path(folder, "worker.log"))
    stepping, updating = figures.values()
    print(f"{'microseconds a step':<28}" + "".join(f"{name:>24}" for name in figures) + f"{'ratio':>10}")
    titles = {
        "loop_mean": "in a loop, mean",
        "calm_mean": "once a millisecond, mean",
        "calm_p50": "once a millisecond, median",
        "calm_p99": "once a millisecond, p99",
    }
    for name, title in titles.items():
        ratio = updating[name] / stepping[name]
        print(f"{title:<28}{stepping[name]:>24.2f}{updating[name]:>24.1f}{ratio:>9.0f}x")
    worst = min(updating[name] / stepping[name] for name in ("loop_mean", "calm_mean"))
    print(f"target: at least {_TARGET} times less by the means; {'met' if worst >= _TARGET else 'missed'}")


if __name__ == "__main__":
    # Import the module by its name, as the worker does.
    from bench.progress_cost import main as run

    run()
