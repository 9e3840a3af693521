"""`python -m bench.end_to_end`: 10,000 connections, 100,000 deliveries/s on one machine, from tasks of a Celery worker.

Two tasks emit at the same time, one to all users and one to single users in turn. Redis (broker and bus), the worker,
the gateways (`--gateways`) and the load generator share the machine. Each connection checks every event. The latency
starts at the scheduled time in the task. The exit code is 1 if an event was lost, repeated or out of order, or if p99
is above the limit.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer
from celery.result import AsyncResult
from rich.console import Console

from bench.contenders.contract import Launch
from bench.contenders.eventbus import OURS
from bench.end_to_end_tasks import app, pump
from bench.interference import cpu_of_all_processes, cpu_of_others, wait_until_idle
from bench.load_generator import FAULTS, LoadGenerator, build, running_load, write_tokens
from bench.processes import Child, cpu_of, free_port, resident_bytes, wait_until_ready
from bench.redis_server import RedisServer, running_redis
from bench.results import machine

_RESULTS: Final = Path(__file__).parent / "results"
_WARM: Final = 3.0
_TIMEOUT: Final = 30.0
_INTERFERENCE_LIMIT: Final = 0.15  # cores that others use
_LIMIT_MS: Final = 100.0
_console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Workload:
    """The load: events/s to all users and to single users."""

    connections: int
    broadcast: float
    direct: float
    seconds: float
    gateways: int

    @property
    def deliveries(self) -> float:
        return self.broadcast * self.connections + self.direct


def _tasks(load: Workload) -> list[AsyncResult[dict[str, float]]]:
    seconds = _WARM + load.seconds
    kinds = [(load.broadcast, False), (load.direct, True)]
    return [pump.apply_async((rate, seconds, load.connections, direct)) for rate, direct in kinds if rate]


def _has_faults(figures: Mapping[str, float]) -> bool:
    """Whether an event was lost, repeated, out of order or misrouted, or a connection ended."""
    return any(figures[name] for name in ("lost", *FAULTS))


def _wait_for_deliveries(generator: LoadGenerator, due: int) -> dict[str, Any]:
    deadline = time.monotonic() + _TIMEOUT
    while (report := generator.report())["received"] < due and time.monotonic() < deadline:
        time.sleep(0.05)
    return report


def _process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _process_tree(int(child)))]


def _measure(
    load: Workload, generator: LoadGenerator, servers: Sequence[Child], redis: RedisServer, worker: Child
) -> dict[str, float]:
    generator.start()
    results = _tasks(load)
    time.sleep(_WARM)
    generator.mark()
    gateways, tasks = [server.pid for server in servers], _process_tree(worker.pid)
    own = [*gateways, *tasks, redis.pid, generator.pid, os.getpid()]
    before = {pid: cpu_of(pid) for pid in own}
    began, all_before = time.monotonic(), cpu_of_all_processes()
    time.sleep(load.seconds - 0.5)
    counted = generator.report()
    wall = time.monotonic() - began
    used = {pid: cpu_of(pid).since(cpu).total for pid, cpu in before.items()}
    others = cpu_of_others(all_before, cpu_of_all_processes(), own)
    done = [result.get(timeout=_TIMEOUT) for result in results]
    events = [
        done[0]["published"] * load.connections if load.broadcast else 0,
        *(each["published"] for each in done[1:]),
    ]
    due = int(sum(events))
    last = _wait_for_deliveries(generator, due)
    return {
        "rate": counted["events"] / counted["seconds"],
        **{f"{name}_ms": counted["latency_us"][name] / 1000 for name in ("p50", "p90", "p99", "p999", "max")},
        "lost": due - last["received"],
        **{name: last[name] for name in FAULTS},
        "gateway_busy": max(used[pid] for pid in gateways) / wall,
        "gateway_us": sum(used[pid] for pid in gateways) / counted["events"] * 1e6,
        "redis_busy": used[redis.pid] / wall,
        "load_busy": (counted["cpu_user"] + counted["cpu_system"]) / counted["seconds"],
        "worker_busy": sum(used[pid] for pid in tasks) / wall,
        "others_busy": others / wall,
        "gateway_mb": max(map(resident_bytes, gateways)) / 2**20,
    }


def _run(load: Workload, redis: RedisServer, log: Path) -> dict[str, float]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        write_tokens(folder / "tokens", load.connections)
        progress = folder / "progress"
        progress.write_bytes(bytes(4096))
        errors = stack.enter_context(log.open("ab"))
        launches = [Launch(free_port(), redis.url, load.connections, progress) for _ in range(load.gateways)]
        commands = [OURS.command(launch) for launch in launches]
        servers = [stack.enter_context(Child(each.argv, each.env, stderr=errors)) for each in commands]
        for server, launch in zip(servers, launches, strict=True):
            wait_until_ready(server, launch.port, OURS.ready_path)
        app.conf.update(broker_url=redis.url, result_backend=redis.url)
        environment = {"BENCH_REDIS": redis.url, "EVENTBUS_REDIS_URL": redis.url}
        worker = [sys.executable, "-m", "celery", "-A", "bench.end_to_end_tasks", "worker", "--concurrency", "2"]
        tasks = stack.enter_context(Child([*worker, "--loglevel", "WARNING"], environment, stderr=errors))
        generator = stack.enter_context(running_load(OURS, launches, load.connections))
        generator.open()
        return _measure(load, generator, servers, redis, tasks)


def main(
    *,
    connections: Annotated[int, typer.Option(min=1)] = 10_000,
    broadcast: Annotated[float, typer.Option(help="Events/s to all users.", min=0.1)] = 9.6,
    direct: Annotated[float, typer.Option(help="Events/s to single users.", min=0)] = 4_000,
    seconds: Annotated[float, typer.Option(min=1)] = 20,
    gateways: Annotated[int, typer.Option(help="Number of gateways; they share the connections.", min=1)] = 1,
    tries: Annotated[int, typer.Option(help="Attempts if other processes use the machine.", min=1)] = 3,
) -> None:
    """Measure, print the figures, and check them against the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build()
    _RESULTS.mkdir(exist_ok=True)
    load = Workload(connections, broadcast, direct, seconds, gateways)
    stem = f"end-to-end-{time.strftime('%Y%m%d-%H%M%S')}"
    with running_redis() as redis:  # one for all attempts, because Celery keeps its connections
        for _ in range(tries):
            wait_until_idle(_TIMEOUT)
            figures = _run(load, redis, _RESULTS / f"{stem}.log")
            if figures["others_busy"] < _INTERFERENCE_LIMIT or _has_faults(figures):
                break  # a loss counts even on a busy machine
    (_RESULTS / f"{stem}.json").write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    requested = f"{load.deliveries:,.0f} deliveries/s requested, {seconds:g} s"
    _console.print(f"{connections:,} connections, {gateways} gateway(s), {requested}")
    for name, value in figures.items():
        _console.print(f"  {name:<14}{value:>14,.2f}")
    _console.print(f"{machine()}. Written to bench/results: {stem}.json")
    good = not _has_faults(figures) and figures["p99_ms"] < _LIMIT_MS
    _console.print("within the limit" if good else f"NOT within the limit (no faults, p99 {_LIMIT_MS:g} ms)")
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
