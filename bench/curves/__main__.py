"""`python -m bench.curves`: measures, plots and prints the curves."""

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
from bench.curves.results import CurveResults, Row
from bench.curves.sweeps import FULL, OPENING, QUICK, SWEEPS, Scale, ServerRun, Sweep
from bench.load_generator import build
from bench.measurement import measure_contender
from bench.processes import ChildError

_RESULTS = Path(__file__).parent.parent / "results"
_NAMES = tuple(sweep.name for sweep in SWEEPS)
_console = Console(width=150)


def _measure_run(sweep: Sweep, run: ServerRun, results: CurveResults, log: Path) -> None:
    """Measure all loads on one set of servers. A failure is logged, and the other runs continue."""
    try:
        opening, figures = measure_contender(load(run.contender), run.plan, log, lambda _: None)
    except ChildError as error:
        _console.log(f"[red]{sweep.name}, {run.contender}: {error}; see {log.name} in bench/results[/]")
        return
    for case, found in {OPENING: opening, **figures}.items():
        if case in run.points:
            line, x = run.points[case]
            results.rows[sweep.name].append(Row(line, x, found))


def _measure(sweeps: Sequence[Sweep], scale: Scale, results: CurveResults, log: Path) -> None:
    for number in range(scale.plan.rounds):
        for sweep in sweeps:
            runs = sweep.runs(scale)
            # Rounds alternate in direction, so that a drift of the machine does not look like a slope.
            for run in runs if number % 2 == 0 else reversed(runs):
                _console.log(f"round {number + 1}, {sweep.name}: {next(iter(run.points.values()))}, {run.contender}")
                _measure_run(sweep, run, results, log)


def _table(sweep: Sweep, results: CurveResults) -> Table:
    table = Table(title=f"{sweep.title} ({sweep.name})", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column(sweep.axis, justify="right")
    lines = {figure: results.lines(sweep.name, figure) for figure, _ in sweep.panels}
    for _, title in sweep.panels:
        table.add_column(title, justify="right")
    for line, x in sorted({(row.line, row.x) for row in results.rows[sweep.name]}):
        cells = []
        for figure, _ in sweep.panels:
            spread = lines[figure].get(line, {}).get(x)
            cells.append(f"{spread.median:.3g} ({spread.least:.3g}-{spread.most:.3g})" if spread else "-")
        behind = " (falls behind)" if results.behind(sweep.name, line, x) else ""
        table.add_row(line + behind, f"{x:,.0f}", *cells)
    return table


def _show(sweeps: Sequence[Sweep], results: CurveResults, folder: Path, prefix: str) -> None:
    for sweep in sweeps:
        if results.rows[sweep.name]:
            _console.print(_table(sweep, results))
            write_curve(sweep, results, folder / f"{prefix}-{sweep.name}.svg")


def main(
    *,
    only: Annotated[str, typer.Option(help=f"Curves, separated by commas: {', '.join(_NAMES)}.")] = "",
    rounds: Annotated[int | None, typer.Option(help="Number of measurements of each point.", min=1)] = None,
    full: Annotated[bool, typer.Option("--full", help="More points, longer, two rounds.")] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Print and plot this file of figures, without a measurement.")
    ] = None,
) -> None:
    """Measure and plot cost and latency of the gateway over its load."""
    selected = only.split(",") if only else _NAMES
    sweeps = [sweep for sweep in SWEEPS if sweep.name in selected]
    if len(sweeps) != len(selected):
        raise typer.BadParameter(f"unknown curve; choose from {', '.join(_NAMES)}")
    if draw is not None:
        _show(sweeps, CurveResults.read(draw), draw.parent, draw.stem)
        return
    scale = FULL if full else QUICK
    scale = replace(scale, plan=replace(scale.plan, rounds=rounds or scale.plan.rounds))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every child is stopped
    build()
    _RESULTS.mkdir(exist_ok=True)
    stem = f"curves-{time.strftime('%Y%m%d-%H%M%S')}"
    results = CurveResults()
    try:
        _measure(sweeps, scale, results, _RESULTS / f"{stem}.log")
    finally:
        results.write(_RESULTS / f"{stem}.json")
    _show(sweeps, results, _RESULTS, stem)
    _console.print(f"{results.machine}. Faults: {results.faults()}. Written to bench/results: {stem}*")


if __name__ == "__main__":
    typer.run(main)
