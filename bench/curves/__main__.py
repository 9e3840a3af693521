"""`python -m bench.curves`: measure the curves, draw them, print them."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.contenders.registry import load
from bench.curves.plot import write_curve
from bench.curves.results import Findings, Row
from bench.curves.sweeps import FULL, OPENING, QUICK, SWEEPS, Extent, Stop, Sweep
from bench.load_generator import build
from bench.measurement import measure_turn
from bench.processes import ChildError

_RESULTS = Path(__file__).parent.parent / "results"
_NAMES = tuple(sweep.name for sweep in SWEEPS)
_console = Console(width=150)


def _visit(sweep: Sweep, stop: Stop, findings: Findings, log: Path) -> None:
    """One set of servers, and all loads on it. What fails is said, and the rest goes on."""
    try:
        opening, figures = measure_turn(load(stop.contender), stop.plan, log, lambda _: None)
    except ChildError as error:
        _console.log(f"[red]{sweep.name}, {stop.contender}: {error}; see {log.name} in bench/results[/]")
        return
    for case, found in {OPENING: opening, **figures}.items():
        if case in stop.places:
            line, x = stop.places[case]
            findings.rows[sweep.name].append(Row(line, x, found))


def _measure(sweeps: Sequence[Sweep], extent: Extent, findings: Findings, log: Path) -> None:
    for number in range(extent.plan.rounds):
        for sweep in sweeps:
            stops = sweep.stops(extent)
            # To and fro, so that nothing that drifts looks like a slope.
            for stop in stops if number % 2 == 0 else reversed(stops):
                _console.log(f"round {number + 1}, {sweep.name}: {next(iter(stop.places.values()))}, {stop.contender}")
                _visit(sweep, stop, findings, log)


def _table(sweep: Sweep, findings: Findings) -> Table:
    table = Table(title=f"{sweep.title} ({sweep.name})", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column(sweep.axis, justify="right")
    lines = {figure: findings.lines(sweep.name, figure) for figure, _ in sweep.panels}
    for _, title in sweep.panels:
        table.add_column(title, justify="right")
    for line, x in sorted({(row.line, row.x) for row in findings.rows[sweep.name]}):
        cells = []
        for figure, _ in sweep.panels:
            spread = lines[figure].get(line, {}).get(x)
            cells.append(f"{spread.median:.3g} ({spread.least:.3g}-{spread.most:.3g})" if spread else "-")
        behind = " (falls behind)" if findings.behind(sweep.name, line, x) else ""
        table.add_row(line + behind, f"{x:,.0f}", *cells)
    return table


def _show(sweeps: Sequence[Sweep], findings: Findings, folder: Path, prefix: str) -> None:
    for sweep in sweeps:
        if findings.rows[sweep.name]:
            _console.print(_table(sweep, findings))
            write_curve(sweep, findings, folder / f"{prefix}-{sweep.name}.svg")


def main(
    *,
    only: Annotated[str, typer.Option(help=f"Curves, joined by commas: {', '.join(_NAMES)}.")] = "",
    rounds: Annotated[int | None, typer.Option(help="How often each point is measured.", min=1)] = None,
    full: Annotated[bool, typer.Option("--full", help="More points, longer, twice.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: print and draw this file of figures.")] = None,
) -> None:
    """Measure how cost and latency of the gateway grow, and draw it."""
    wanted = only.split(",") if only else _NAMES
    sweeps = [sweep for sweep in SWEEPS if sweep.name in wanted]
    if len(sweeps) != len(wanted):
        raise typer.BadParameter(f"there are {', '.join(_NAMES)}")
    if draw is not None:
        _show(sweeps, Findings.read(draw), draw.parent, draw.stem)
        return
    extent = FULL if full else QUICK
    extent = replace(extent, plan=replace(extent.plan, rounds=rounds or extent.plan.rounds))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every child is ended
    build()
    _RESULTS.mkdir(exist_ok=True)
    stem = f"curves-{time.strftime('%Y%m%d-%H%M%S')}"
    findings = Findings()
    try:
        _measure(sweeps, extent, findings, _RESULTS / f"{stem}.log")
    finally:
        findings.write(_RESULTS / f"{stem}.json")
    _show(sweeps, findings, _RESULTS, stem)
    _console.print(f"{findings.machine}. Faults: {findings.faults()}. Written to bench/results: {stem}*")


if __name__ == "__main__":
    typer.run(main)
