"""`python -m bench`: measures all contenders and compares them."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cases import CASES, FULL, QUICK, Plan
from bench.contenders.contract import Contender
from bench.contenders.registry import NAMES, load
from bench.emit_cost import measure_emits
from bench.load_generator import build
from bench.measurement import measure_contender
from bench.plot import write_plot
from bench.processes import ChildError
from bench.results import Results, machine
from bench.tables import print_tables

_RESULTS = Path(__file__).parent / "results"
_EMIT = "emit"
_CASES = tuple(case.name for case in CASES)
_console = Console(width=190)


def _contenders(names: Sequence[str]) -> list[Contender]:
    found = []
    for name in names:
        try:
            found.append(load(name))
        except KeyError:
            raise typer.BadParameter(f"unknown contender {name}; choose from {', '.join(NAMES)}") from None
        except ImportError as error:
            _console.print(f"[yellow]cannot measure {name}: {error}[/]")
    return found


def _plan(plan: Plan, names: str) -> Plan:
    """Return the plan with the selected cases."""
    selected = names.split(",") if names else [*_CASES, _EMIT]
    unknown = set(selected) - {*_CASES, _EMIT}
    if unknown:
        raise typer.BadParameter(f"unknown case {', '.join(unknown)}; choose from {', '.join(_CASES)}, {_EMIT}")
    cases = tuple(case for case in plan.cases if case.name in selected)
    return replace(plan, cases=cases, emits=plan.emits if _EMIT in selected else 0)


def _measure_server(contender: Contender, results: Results, log: Path) -> None:
    opening, figures = measure_contender(contender, results.plan, log, _console.log)
    results.add(contender.name, "open", opening)
    for case, found in figures.items():
        results.add(contender.name, case, found)


def _measure_emit(contender: Contender, results: Results) -> None:
    _console.log(f"{contender.title}: emit")
    results.add(contender.name, _EMIT, measure_emits(contender.name, results.plan.emits))


def _measure_contender(contender: Contender, results: Results, log: Path) -> None:
    """Measure one contender. A failure is logged, and the other parts continue."""
    parts: list[Callable[[], None]] = []
    if results.plan.cases:
        parts.append(lambda: _measure_server(contender, results, log))
    if results.plan.emits and contender.emitter is not None:
        parts.append(lambda: _measure_emit(contender, results))
    for part in parts:
        try:
            part()
        except ChildError as error:
            _console.log(f"[red]{contender.title}: {error}; see {log.name} in bench/results[/]")


def _run(contenders: Sequence[Contender], plan: Plan) -> None:
    _RESULTS.mkdir(exist_ok=True)
    results = Results(plan, {contender.name: contender.title for contender in contenders})
    stem = time.strftime("%Y%m%d-%H%M%S")
    for number in range(plan.rounds):
        # Each round starts with another contender, so that none always has the idle or the warm machine.
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            _measure_contender(contender, results, _RESULTS / f"{stem}.log")
    print_tables(results, _console)
    results.write(_RESULTS / f"{stem}.json")
    write_plot(results, _RESULTS / f"{stem}.svg")
    _console.print(f"{machine()}. Medians of {plan.rounds} round(s) (least-most).")
    _console.print(f"Written to bench/results: {stem}.json, {stem}.svg")


def main(
    *,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds; each measures all contenders.", min=1)] = None,
    only: Annotated[str, typer.Option(help=f"Contenders, separated by commas: {', '.join(NAMES)}.")] = "",
    cases: Annotated[str, typer.Option(help=f"Cases, separated by commas: {', '.join(_CASES)}, {_EMIT}.")] = "",
    connections: Annotated[
        int, typer.Option(help="Number of WebSocket connections, each of a separate user.", min=1)
    ] = QUICK.connections,
    full: Annotated[bool, typer.Option("--full", help="More and longer rounds.")] = False,
    tries: Annotated[
        int,
        typer.Option(help="Attempts of a case if other processes use the machine; the least disturbed counts.", min=1),
    ] = 3,
) -> None:
    """Measure CPU time per delivery, latency, memory and the cost of an emit on the loopback interface."""
    plan = _plan(FULL if full else QUICK, cases)
    contenders = _contenders(only.split(",") if only else NAMES)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every child is stopped
    build()
    _run(contenders, replace(plan, connections=connections, rounds=rounds or plan.rounds, tries=tries))


if __name__ == "__main__":
    typer.run(main)
