"""Measures the cost of `install` for an empty task: without it, outside of operations, and inside an operation.

`python -m bench.overhead` starts a Redis and two prefork workers. It prints tasks per second, CPU time per task of the
worker, of Redis and of the publisher, and the ratios. There is no result backend, because its cost would hide the
difference.

Two more cases help to read the others. The case without `install` runs twice, which shows the noise of the machine.
Tasks that run one small script in Redis are the floor: an operation needs at least one round trip per task.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import redis
from celery import Celery, group

from bench.processes import Child, cpu_of
from bench.redis_server import running_redis
from eventbus import BusSettings
from eventbus.backends.redis.connections.blocking import BlockingConnection
from worker_adapter import install, start_operation

__all__ = ["app", "plain"]

_OPERATION_TASKS: Final = 100  # tasks of one operation
_TIMEOUT: Final = 120.0
_TARGET: Final = 1.1

_broker = os.environ.get("BENCH_REDIS")
plain = Celery("bench.overhead.plain", broker=_broker, set_as_current=False)
app = Celery("bench.overhead.app", broker=_broker, set_as_current=False)
for _app in (plain, app):
    _app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)
if os.environ.get("BENCH_INSTALL"):
    # Signals belong to the process. The worker of `plain` must not connect them, even for another application.
    install(app)


@plain.task(name="bench.overhead.nothing")  # type: ignore[untyped-decorator]
def nothing_plain() -> None:
    """An empty task."""


@app.task(name="bench.overhead.nothing")  # type: ignore[untyped-decorator]
def nothing() -> None:
    """An empty task of the application with `install`."""


@cache
def _connection() -> BlockingConnection:
    return BlockingConnection(BusSettings())


@plain.task(name="bench.overhead.round_trip")  # type: ignore[untyped-decorator]
def round_trip() -> None:
    """Run one script in Redis: one round trip that writes one number."""
    _connection().round_trip([("EVAL", "return redis.call('INCR', KEYS[1])", 1, "bench-floor")])


class Case(NamedTuple):
    """A way to run tasks. ``publish`` sends a number of tasks to a queue."""

    title: str
    worker: str
    publish: Callable[[int, str], None]


class Figures(NamedTuple):
    """The figures of one round: tasks per second, and microseconds of CPU time per task."""

    rate: float
    worker: float
    redis: float
    publisher: float


def _flat(task: object, count: int, queue: str) -> None:
    for _ in range(count):
        task.apply_async(queue=queue)  # type: ignore[attr-defined] # Celery ships no types


def _operations(count: int, queue: str) -> None:
    for _ in range(count // _OPERATION_TASKS):
        flow = group(nothing.si().set(queue=queue) for _ in range(_OPERATION_TASKS))
        start_operation(flow, user="bench")


CASES: Final = (
    Case("without install", "plain", lambda count, queue: _flat(nothing_plain, count, queue)),
    Case("the same again", "plain", lambda count, queue: _flat(nothing_plain, count, queue)),
    Case("without, and one round trip", "plain", lambda count, queue: _flat(round_trip, count, queue)),
    Case("installed, outside of operations", "app", lambda count, queue: _flat(nothing, count, queue)),
    Case("installed, inside", "app", _operations),
)


class Worker:
    """A worker that consumes a separate queue on request."""

    def __init__(self, name: str, process: Child, client: redis.Redis) -> None:
        self.name = name
        self._process = process
        self._client = client
        self._app = {"plain": plain, "app": app}[name]

    def run(self, queue: str, count: int, redis_pid: int) -> tuple[float, float, float]:
        """Run the tasks of the queue. Returns the duration and the CPU time of worker and Redis, in seconds."""
        before, redis_before = self._cpu(), cpu_of(redis_pid)
        self._app.control.add_consumer(queue, destination=[f"{self.name}@bench"])
        deadline = time.monotonic() + _TIMEOUT
        began = 0.0
        while True:
            left = int(self._client.llen(queue)) + int(self._client.hlen("unacked"))
            now = time.monotonic()
            if not began and left < count - 10:
                began, first = now, left
            if not left:
                break
            if now > deadline:
                raise TimeoutError(f"cannot finish the tasks: {left} are left in {queue}")
            time.sleep(0.002)
        time.sleep(0.05)  # includes events that are still in flight
        used, redis_used = self._cpu() - before, cpu_of(redis_pid).since(redis_before).total
        self._app.control.cancel_consumer(queue, destination=[f"{self.name}@bench"])
        return (now - began) * count / first, used, redis_used

    def _cpu(self) -> float:
        return sum(cpu_of(pid).total for pid in [self._process.pid, *_children(self._process.pid)])


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _round(case: Case, number: int, worker: Worker, count: int, redis_pid: int) -> Figures:
    queue = f"{case.worker}-{CASES.index(case)}-{number}"
    began = time.process_time()
    case.publish(count, queue)
    published = time.process_time() - began
    seconds, used, redis_used = worker.run(queue, count, redis_pid)
    return Figures(count / seconds, used / count * 1e6, redis_used / count * 1e6, published / count * 1e6)


def _worker_command(name: str, processes: int) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        f"bench.overhead:{name}",
        "worker",
        "-n",
        f"{name}@bench",
        "-Q",
        f"idle-{name}",
    ]
    return [
        *command,
        "-c",
        str(processes),
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "-l",
        "WARNING",
    ]


def measure(rounds: int, count: int, processes: int) -> dict[str, list[Figures]]:
    """Measure all cases in turn. The first round of each is a warm-up and is not counted."""
    found: dict[str, list[Figures]] = {case.title: [] for case in CASES}
    with running_redis() as server, TemporaryDirectory(prefix="bench-") as folder:
        os.environ.update({"BENCH_REDIS": server.url, "EVENTBUS_REDIS_URL": server.url, "EVENTBUS_SPOOL_DIR": folder})
        install(app)
        for each in (plain, app):
            each.conf.broker_url = server.url
        client = redis.Redis.from_url(server.url)
        environment = {"BENCH_REDIS": server.url, "EVENTBUS_REDIS_URL": server.url}
        with (
            Path(folder, "log").open("ab") as log,
            Child(_worker_command("plain", processes), environment, stderr=log) as first,
            Child(_worker_command("app", processes), {**environment, "BENCH_INSTALL": "1"}, stderr=log) as second,
        ):
            workers = {"plain": Worker("plain", first, client), "app": Worker("app", second, client)}
            for name, each in (("plain", plain), ("app", app)):
                while not each.control.ping([f"{name}@bench"], timeout=1):
                    continue
            for number in range(rounds + 1):
                order = CASES[number % len(CASES) :] + CASES[: number % len(CASES)]
                for case in order:
                    figures = _round(case, number, workers[case.worker], count, server.pid)
                    if number:
                        found[case.title].append(figures)
    return found


def _show(found: dict[str, list[Figures]]) -> None:
    reference = found[CASES[0].title]
    heads = {"tasks/s": 18, "worker us/task": 20, "Redis us/task": 18, "publisher us/task": 20, "rate": 8, "CPU": 8}
    print(" " * 34 + "".join(title.rjust(width) for title, width in heads.items()))
    for title, rounds in found.items():
        cells = ""
        for name, width, digits in (("rate", 18, 0), ("worker", 20, 0), ("redis", 18, 0), ("publisher", 20, 0)):
            values = [getattr(each, name) for each in rounds]
            cells += f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})".rjust(width)
        # The ratios are per round, because the load of the machine changes less within a round.
        rate_ratio = median(base.rate / each.rate for each, base in zip(rounds, reference, strict=True))
        cpu_ratio = median(each.worker / base.worker for each, base in zip(rounds, reference, strict=True))
        print(f"{title:<34}{cells}{rate_ratio:>7.2f}x{cpu_ratio:>7.2f}x")
    print(
        "rate: factor of the duration, CPU: factor of the CPU time of the worker, compared with the first case; "
        f"medians over the rounds. Target: {_TARGET}x"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tasks", type=int, default=2_000, help="number of tasks in one round")
    parser.add_argument("--processes", type=int, default=2, help="number of processes of each worker")
    options = parser.parse_args()
    _show(measure(options.rounds, options.tasks, options.processes))


if __name__ == "__main__":
    # Import the module by its name, as the worker does.
    from bench.overhead import main as run

    run()
