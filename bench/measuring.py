"""One contender's turn: start it, open the connections, put each load on it, ask the kernel what it cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.cases import Case, Plan
from bench.contenders.contract import Contender, Launch
from bench.load_generator import LoadGenerator, running_load, write_tokens
from bench.processes import Child, ChildError, Cpu, cpu_of, free_port, resident_bytes, wait_until_ready
from bench.redis_server import running_redis

__all__ = ["Figures", "measure_turn"]

Figures = dict[str, float]
"""Figures of one case in one turn, by name; README.md says what they are."""

_PRIMING = 10  # connections that come and go before memory is looked at, so that imports and caches are no part of it
_BEHIND = 0.95  # delivered over due: below it, the server does not keep up


@dataclass(frozen=True, slots=True)
class Session:
    """A server with its connections open."""

    server: Child
    redis_pid: int
    load: LoadGenerator
    publisher: Child
    opening: Figures


class _Snapshot(NamedTuple):
    server: Cpu
    redis: Cpu
    time: float

    @classmethod
    def take(cls, session: Session) -> _Snapshot:
        return cls(cpu_of(session.server.pid), cpu_of(session.redis_pid), time.monotonic())


def _open(
    contender: Contender, server: Child, launch: Launch, plan: Plan, stack: ExitStack
) -> tuple[LoadGenerator, Figures]:
    with running_load(contender, launch, _PRIMING) as priming:
        priming.open()
    time.sleep(plan.settle)
    memory, cpu = resident_bytes(server.pid), cpu_of(server.pid)
    load = stack.enter_context(running_load(contender, launch, plan.connections))
    opened = load.open()
    used = cpu_of(server.pid).since(cpu)
    time.sleep(plan.settle)
    return load, {
        "open_seconds": opened["seconds"],
        "open_cpu_ms": used.total / plan.connections * 1e3,
        "memory_kb": (resident_bytes(server.pid) - memory) / plan.connections / 1024,
        "resident_mb": resident_bytes(server.pid) / 2**20,
    }


@contextmanager
def _session(contender: Contender, plan: Plan, log: Path) -> Iterator[Session]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        write_tokens(folder / "tokens", plan.connections)
        progress = folder / "progress"
        progress.write_bytes(bytes(4096))
        redis = stack.enter_context(running_redis())
        errors = stack.enter_context(log.open("ab"))
        launch = Launch(free_port(), redis.url, plan.connections, progress)
        command = contender.command(launch)
        server = stack.enter_context(Child(command.argv, command.env, stderr=errors))
        wait_until_ready(server, launch.port, contender.ready_path)
        publisher = server
        if contender.publisher is not None:
            words = [contender.name, redis.url, str(plan.connections), str(progress)]
            publisher = stack.enter_context(Child([sys.executable, "-m", "bench.publisher", *words]))
            publisher.hear()
        load, opening = _open(contender, server, launch, plan, stack)
        yield Session(server, redis.pid, load, publisher, opening)


def _drained(session: Session, due: int, seconds: float) -> dict[str, Any]:
    """The load generator's counters once everything that was published has come, or after `seconds`."""
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
    session.publisher.tell(f"{kind} {case.rate} {plan.warm} {plan.seconds} {case.window}")
    steady = session.publisher.hear()
    session.load.mark()
    before = _Snapshot.take(session)
    ended = session.publisher.hear()
    counted = session.load.report()
    figures = _figures(case, plan, counted, before, _Snapshot.take(session))
    receivers = case.receivers(plan.connections)
    due = ended["published"] * receivers
    last = _drained(session, due, plan.drain)
    wanted = case.rate * receivers * plan.seconds
    return figures | {
        "window": steady["window"],
        "publisher_busy": ended["cpu"] / plan.seconds,
        "undelivered": due - last["received"],
        "missing": last["missing"],
        "repeated": last["repeated"],
        "closes": last["closes"],
        "behind": float(last["received"] < due or counted["events"] < _BEHIND * wanted),
    }


def measure_turn(
    contender: Contender, plan: Plan, log: Path, say: Callable[[str], None]
) -> tuple[Figures, dict[str, Figures]]:
    """Opening and all cases of one contender. A server that fell behind is replaced before the next case.

    Raises ChildError if the server does not come up at all; its stderr is in the file `log`.
    """
    left = [case for case in plan.cases if contender.cases is None or case.name in contender.cases]
    opening: Figures = {}
    results: dict[str, Figures] = {}
    while left:
        with _session(contender, plan, log) as session:
            opening = opening or session.opening
            while left:
                case = left.pop(0)
                say(f"{contender.title}: {case.title}")
                try:
                    results[case.name] = _measure(case, plan, session)
                except (ChildError, OSError) as error:
                    say(f"{contender.title}: {case.title}: {error}; see {log.name}")
                    break
                if results[case.name]["behind"]:
                    break
    return opening, results
