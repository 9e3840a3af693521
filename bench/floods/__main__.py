"""The effect of floods on an honest user, for the stand-alone and the mounted gateway: ``python -m bench.floods``.

Each flood comes from one address and a separate process. The gateway has its default settings. The same user is
measured in three phases, which alternate: without a flood, with the flood, and next to a process that takes as much CPU
time as the attacker and sends nothing. The last one is the control: an attacker on the same machine takes time from all
processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.contenders.contract import SECRET
from bench.floods.attacker import CONTROL, FLOODS
from bench.processes import Child, cpu_of, free_port, resident_bytes, wait_until_ready
from bench.redis_server import running_redis
from webui_adapter.testing import make_token

WAYS = ("stand-alone", "mounted")
# These send nothing that a token would change.
WITHOUT_TOKEN = (
    "1,000 handshakes",
    "100 opens a second",
    "slow heads",
    "large unfinished texts",
    "permitted unfinished texts",
)
GOALS = {"answers": 0.95, "p99": 3.0, "memory": 64.0}


@dataclass(slots=True)
class Phase:
    """The durations of a user's answers and the use of the processes, in all rounds of one phase."""

    durations: list[float] = field(default_factory=list)
    opened: int = 0
    tried: int = 0
    gateway_cpu: float = 0.0
    other_cpu: float = 0.0
    seconds: float = 0.0
    memory: float = 0.0
    attack: dict[str, int] = field(default_factory=dict)

    def quantile(self, share: float) -> float:
        """A quantile of the durations in milliseconds."""
        return sorted(self.durations)[int(len(self.durations) * share)]

    @property
    def answers(self) -> float:
        """Answers per second."""
        return len(self.durations) / self.seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One flood: its three phases."""

    way: str
    flood: str
    token: bool
    calm: Phase
    control: Phase
    flooded: Phase

    @property
    def share(self) -> float:
        """The answers as a share of those without the flood."""
        return self.flooded.answers / min(self.calm.answers, self.control.answers)

    @property
    def slower(self) -> float:
        """The p99 divided by the one without the flood."""
        return self.flooded.quantile(0.99) / max(self.calm.quantile(0.99), self.control.quantile(0.99))

    @property
    def missed(self) -> list[str]:
        """The goals that were missed."""
        checks = {
            "answers": self.share >= GOALS["answers"],
            "p99": self.slower < GOALS["p99"],
            "memory": self.flooded.memory <= GOALS["memory"],
        }
        return [name for name, met in checks.items() if not met]


@contextmanager
def gateway(way: str, redis_url: str) -> Iterator[tuple[Child, int]]:
    port = free_port()
    env = {"EVENTBUS_REDIS_URL": redis_url, "WEBUI_JWT_SECRET": SECRET, "WEBUI_TRUSTED_PROXIES": ""}
    argv = [sys.executable, "-m", "webui_adapter", "--port", str(port)]
    if way == "mounted":
        classes = ("--ws", "webui_adapter.uvicorn:WebSocketProtocol", "--http", "webui_adapter.uvicorn:HttpProtocol")
        argv = [sys.executable, "-m", "uvicorn", "--no-access-log", "--port", str(port), *classes]
        argv.append("bench.floods.site:app")
    with tempfile.TemporaryFile() as log, Child(argv, env, stderr=log) as server:
        wait_until_ready(server, port, "/readyz", 90)
        yield server, port


def token(user: str) -> str:
    return make_token(user, SECRET, seconds=3600)


def measure(phase: Phase, server: Child, visitor: Child, other: Child | None, seconds: float) -> None:
    """Measure one round. ``other`` is the attacker, or the control with the attacker's share of a core."""
    before, memory = cpu_of(server.pid).total, resident_bytes(server.pid)
    others = cpu_of(other.pid).total if other is not None else 0.0
    began, peak = time.monotonic(), memory
    visitor.send(str(seconds))
    while time.monotonic() < began + seconds:
        time.sleep(0.05)
        peak = max(peak, resident_bytes(server.pid))
    heard = visitor.receive(seconds + 60)
    phase.gateway_cpu += (cpu_of(server.pid).total - before) * seconds / (time.monotonic() - began)
    if other is not None:
        for name, count in other.receive(seconds + 60).items():
            phase.attack[name] = phase.attack.get(name, 0) + count
        # The attacker may end later than the user, who begins no command after the time.
        phase.other_cpu += (cpu_of(other.pid).total - others) * seconds / (time.monotonic() - began)
    phase.seconds += seconds
    phase.durations += heard["answers"]
    phase.opened += sum(each is not None for each in heard["opens"])
    phase.tried += len(heard["opens"])
    phase.memory = max(phase.memory, (peak - memory) / 2**20)


def compare(way: str, flood: str, *, with_token: bool, redis_url: str, seconds: float, rounds: int) -> Row:
    """Measure one flood on a fresh gateway."""
    calm, control, flooded = Phase(), Phase(), Phase()
    with ExitStack() as stack:
        server, port = stack.enter_context(gateway(way, redis_url))
        run = [sys.executable, "-m", "bench.floods.visitor", str(port), token("honest")]
        visitor = stack.enter_context(Child(run))
        arguments = [str(port), token("hostile") if with_token else ""]
        attacker = stack.enter_context(Child([sys.executable, "-m", "bench.floods.attacker", flood, *arguments]))
        spinner = stack.enter_context(Child([sys.executable, "-m", "bench.floods.attacker", CONTROL, str(port)]))
        measure(Phase(), server, visitor, None, 1.0)  # warm
        for _ in range(rounds):
            measure(calm, server, visitor, None, seconds)
            attacker.send(f"{seconds} 0")
            measure(flooded, server, visitor, attacker, seconds)
            time.sleep(1.0)  # the gateway ends the attacker's connections
            spinner.send(f"{seconds} {flooded.other_cpu / flooded.seconds}")
            measure(control, server, visitor, spinner, seconds)
    return Row(way, flood, with_token, calm, control, flooded)


HEAD = (
    "| way | flood | token | answers | p50 calm, control, flood | p99 calm, control, flood | p99 ratio "
    "| opens | gateway CPU calm, flood | attacker CPU | attacker's opens, refused, MB | memory | missed |\n"
    + "|---" * 13
    + "|"
)


def line(row: Row) -> str:
    """A row of the table."""
    phases = (row.calm, row.control, row.flooded)
    calm, flood = row.calm, row.flooded
    attack = flood.attack
    cells = [
        row.way,
        row.flood,
        "yes" if row.token else "no",
        f"{row.share:.0%}",
        ", ".join(f"{phase.quantile(0.5):.1f}" for phase in phases) + " ms",
        ", ".join(f"{phase.quantile(0.99):.1f}" for phase in phases) + " ms",
        f"{row.slower:.1f}",
        f"{flood.opened} of {flood.tried}",
        f"{calm.gateway_cpu / calm.seconds:.0%}, {flood.gateway_cpu / flood.seconds:.0%}",
        f"{flood.other_cpu / flood.seconds:.0%}",
        f"{attack['opened']}, {attack['refused']}, {attack['sent'] / 1e6:.1f}",
        f"{flood.memory:+.0f} MB",
        ", ".join(row.missed) or "-",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.floods", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of one phase; default: 3")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the three phases; default: 3")
    parser.add_argument("--only", nargs="+", choices=FLOODS, default=list(FLOODS), help="floods; default: all")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ways of running; default: both")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    rows: list[Row] = []
    print(HEAD, flush=True)
    with running_redis() as redis:
        for way in given.ways:
            for flood in given.only:
                for with_token in (False,) if flood in WITHOUT_TOKEN else (False, True):
                    row = compare(
                        way,
                        flood,
                        with_token=with_token,
                        redis_url=redis.url,
                        seconds=given.seconds,
                        rounds=given.rounds,
                    )
                    print(line(row), flush=True)
                    rows.append(row)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
