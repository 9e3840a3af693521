"""Measures one contender: starts it, opens connections, applies each load, and reads the CPU time."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

from bench.cases import Case, Plan
from bench.contenders.contract import Contender, Launch
from bench.interference import cpu_of_all_processes, cpu_of_others, wait_until_idle
from bench.load_generator import FAULTS, LoadGenerator, running_load, write_tokens
from bench.payload import SIZE_VARIABLE
from bench.processes import Child, ChildError, Cpu, cpu_of, free_port, resident_bytes, wait_until_ready
from bench.redis_server import running_redis

__all__ = ["Figures", "least_disturbed", "measure_contender"]

Figures = dict[str, float]
"""The figures of one case by name; README.md describes them."""

_WARMUP_CONNECTIONS = 10  # opened and closed before the reading of the memory, so that it excludes imports and caches
_ANSWER_SECONDS = 30.0
_INTERFERENCE_LIMIT = 0.15  # cores that other processes use
_BEHIND_RATIO = 0.95  # ratio of delivered to due events below which the server has fallen behind


@dataclass(frozen=True, slots=True)
class Session:
    """The servers of a contender with open connections."""

    servers: Sequence[Child]
    redis_pid: int
    load: LoadGenerator
    publisher: Child
    opening: Figures

    @property
    def processes(self) -> set[int]:
        """The processes of the benchmark."""
        servers = {server.pid for server in self.servers}
        return servers | {self.redis_pid, self.load.pid, self.publisher.pid, os.getpid()}


class _Snapshot(NamedTuple):
    server: Cpu
    redis: Cpu
    everything: Mapping[int, float]  # CPU time by process
    time: float

    @classmethod
    def take(cls, session: Session) -> _Snapshot:
        return cls(_cpu(session.servers), cpu_of(session.redis_pid), cpu_of_all_processes(), time.monotonic())


def _cpu(servers: Sequence[Child]) -> Cpu:
    used = [cpu_of(server.pid) for server in servers]
    return Cpu(*map(sum, zip(*used, strict=True)))


def _resident(servers: Sequence[Child]) -> int:
    return sum(resident_bytes(server.pid) for server in servers)


def _open(
    contender: Contender, servers: Sequence[Child], launches: Sequence[Launch], plan: Plan, stack: ExitStack
) -> tuple[LoadGenerator, Figures]:
    with running_load(contender, launches, _WARMUP_CONNECTIONS * plan.gateways) as warmup:
        warmup.open()
    time.sleep(plan.settle)
    memory, cpu = _resident(servers), _cpu(servers)
    load = stack.enter_context(running_load(contender, launches, plan.connections, plan.collections))
    opened = load.open()
    used = _cpu(servers).since(cpu)
    time.sleep(plan.settle)
    return load, {
        "open_seconds": opened["seconds"],
        "open_cpu_ms": used.total / plan.connections * 1e3,
        "memory_kb": (_resident(servers) - memory) / plan.connections / 1024,
        "resident_mb": _resident(servers) / 2**20,
        **(_idle(servers, load, plan) if plan.idle else {}),
    }


def _idle(servers: Sequence[Child], load: LoadGenerator, plan: Plan) -> Figures:
    """Measure idle connections, which only have pings."""
    load.mark()
    before = _cpu(servers)
    time.sleep(plan.idle)
    used, pings = _cpu(servers).since(before).total, load.report()["pings"]
    return {
        "idle_us": used / plan.connections / plan.idle * 1e6,
        "pings": pings,
        "ping_us": used / max(1, pings) * 1e6,
    }


def _start(
    contender: Contender, plan: Plan, redis_url: str, progress: Path, errors: IO[bytes], stack: ExitStack
) -> tuple[list[Launch], list[Child]]:
    launches, servers = [], []
    for _ in range(plan.gateways):
        launch = Launch(free_port(), redis_url, plan.connections, progress, plan.event_bytes)
        command = contender.command(launch)
        server = stack.enter_context(Child(command.argv, {**command.env, **plan.env}, stderr=errors))
        wait_until_ready(server, launch.port, contender.ready_path)
        launches.append(launch)
        servers.append(server)
    return launches, servers


@contextmanager
def _session(contender: Contender, plan: Plan, log: Path) -> Iterator[Session]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        write_tokens(folder / "tokens", max(plan.connections, _WARMUP_CONNECTIONS * plan.gateways))
        progress = folder / "progress"
        progress.write_bytes(bytes(4096))
        redis = stack.enter_context(running_redis())
        errors = stack.enter_context(log.open("ab"))
        launches, servers = _start(contender, plan, redis.url, progress, errors, stack)
        publisher = servers[0]
        if contender.publisher is not None:
            size = {SIZE_VARIABLE: str(plan.event_bytes)}
            arguments = [contender.name, redis.url, str(plan.connections), str(progress)]
            publisher = stack.enter_context(Child([sys.executable, "-m", "bench.publisher", *arguments], size))
            publisher.receive()
        load, opening = _open(contender, servers, launches, plan, stack)
        yield Session(servers, redis.pid, load, publisher, opening)


def _wait_for_deliveries(session: Session, due: int, seconds: float) -> dict[str, Any]:
    """Return the counters when all published events have arrived, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        report = session.load.report()
        if report["received"] >= due or time.monotonic() > deadline:
            return report
        time.sleep(0.02)


def _figures(case: Case, plan: Plan, counted: dict[str, Any], before: _Snapshot, after: _Snapshot) -> Figures:
    server, wall = after.server.since(before.server), after.time - before.time
    deliveries = max(1, counted["events"])
    events = deliveries / case.receivers(plan.connections)
    latency = counted["latency_us"]
    return {
        "cpu_us": server.total / deliveries * 1e6,
        "user_us": server.user / deliveries * 1e6,
        "system_us": server.system / deliveries * 1e6,
        "rate": counted["events"] / counted["seconds"],
        "busy": server.total / wall,
        "redis_us": after.redis.since(before.redis).total / events * 1e6,
        "load_busy": (counted["cpu_user"] + counted["cpu_system"]) / counted["seconds"],
        "event_bytes": counted["bytes"] / deliveries,
        "frames_per_read": counted["events"] / max(1, counted["reads"]),
        **{f"{name}_ms": latency[name] / 1000 for name in ("p50", "p90", "p99", "p999", "max")},
    }


def _measure(case: Case, plan: Plan, session: Session) -> Figures:
    session.load.start()
    kind = "direct" if case.direct else "fanout"
    seconds = plan.seconds * case.stretch
    session.publisher.send(f"{kind} {case.rate} {plan.warm} {seconds} {case.window}")
    steady = session.publisher.receive()
    session.load.mark()
    before = _Snapshot.take(session)
    ended = session.publisher.receive(_ANSWER_SECONDS + seconds)
    counted = session.load.report()
    after = _Snapshot.take(session)
    figures = _figures(case, plan, counted, before, after)
    others = cpu_of_others(before.everything, after.everything, session.processes)
    receivers = case.receivers(plan.connections)
    due = ended["published"] * receivers
    last = _wait_for_deliveries(session, due, plan.drain)
    required = case.rate * receivers * seconds
    return figures | {
        "others_busy": others / (after.time - before.time),
        "window": steady["window"],
        "publisher_busy": ended["cpu"] / seconds,
        "undelivered": due - last["received"],
        **{name: last[name] for name in FAULTS},
        "behind": float(last["received"] < due or counted["events"] < _BEHIND_RATIO * required),
    }


def least_disturbed(tries: Sequence[Figures]) -> Figures:
    """Return the least disturbed try, with the largest number of faults of all tries."""
    chosen = min(tries, key=lambda each: each["others_busy"])
    return chosen | {name: max(each[name] for each in tries) for name in FAULTS}


def measure_contender(
    contender: Contender, plan: Plan, log: Path, report_progress: Callable[[str], None]
) -> tuple[Figures, dict[str, Figures]]:
    """Measure the opening and all cases of one contender.

    A server that fell behind is replaced before the next case. If other processes use the machine, a case is measured
    again, and the least disturbed try counts.

    Raises ChildError if the server does not start; its stderr is in the file `log`.
    """
    if not plan.cases:
        with _session(contender, plan, log) as session:
            return session.opening, {}
    left = [case for case in plan.cases if contender.cases is None or case.name in contender.cases]
    opening: Figures = {}
    found: dict[str, list[Figures]] = defaultdict(list)
    while left:
        wait_until_idle(plan.patience)
        with _session(contender, plan, log) as session:
            opening = opening or session.opening
            while left:
                case = left[0]
                report_progress(f"{contender.title}: {case.title}")
                try:
                    figures = _measure(case, plan, session)
                except (ChildError, OSError) as error:
                    report_progress(f"{contender.title}: {case.title}: {error}; see {log.name}")
                    del left[0]
                    break
                found[case.name].append(figures)
                if figures["others_busy"] < _INTERFERENCE_LIMIT or len(found[case.name]) == plan.tries:
                    del left[0]
                else:
                    wait_until_idle(plan.patience)
                if figures["behind"]:
                    break
    return opening, {name: least_disturbed(tries) for name, tries in found.items()}
