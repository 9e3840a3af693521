"""`python -m bench.sizing`: calculates the gateways and the Redis masters of a load, by default a million connections.

It reads figures of `bench.curves` (`--figures`; default: those of the repository), compares the model of
`capacity_model.py` with them, and measures nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from bench.calibration import calibrate, checks
from bench.capacity_model import Costs, Limits, Workload, size_for
from bench.curves.results import CurveResults

_FIGURES: Final = Path(__file__).parent / "results" / "sample-curves.json"
_MILLION: Final = 1_000_000
_console = Console(width=150)


def _print_costs(costs: Costs) -> None:
    _console.print("Costs, microseconds of CPU time (memory: KB), from the points marked *:")
    _console.print("  " + ", ".join(f"{name} {value:.3g}" for name, value in asdict(costs).items()))


def _print_checks(results: CurveResults, costs: Costs) -> None:
    table = Table(title="model and measurement", title_justify="left", title_style="bold")
    for column in ("load", "at", "figure", "measured", "model", "model/measured"):
        table.add_column(column, justify="left" if column in {"load", "figure"} else "right")
    for check in checks(results, costs):
        cells = (f"{check.x:,.0f}", check.figure, f"{check.measured:.3g}", f"{check.predicted:.3g}")
        table.add_row(check.load, *cells, f"{check.ratio:.2f}{'*' if check.used else ''}")
    _console.print(table)


def _print_sizing(costs: Costs, limits: Limits, connections: int, deliveries: float, event_bytes: int) -> None:
    table = Table(
        title=f"{connections:,} connections, {deliveries:,.0f} deliveries/s, events of {event_bytes} bytes",
        title_justify="left",
        title_style="bold",
    )
    for column in ("an event goes to", "events/s", "gateways", "limited by", "busy", "MB", "copies", "Redis cores"):
        table.add_column(column, justify="right")
    table.add_column("Redis")
    for receivers in (1, 10, 100, 1_000, connections):
        load = Workload(connections, deliveries / receivers, receivers, event_bytes)
        sizing = size_for(costs, load, limits)
        table.add_row(
            f"{receivers:,}",
            f"{load.events:,.0f}",
            f"{sizing.gateways:,}",
            sizing.bound,
            f"{sizing.gateway_busy:.0%}",
            f"{sizing.gateway_mb:,.0f}",
            f"{sizing.copies:.1f}",
            f"{sizing.redis_busy:.3g}",
            sizing.topology,
        )
    _console.print(table)


def main(
    *,
    figures: Annotated[Path, typer.Option(help="A JSON file of bench.curves.")] = _FIGURES,
    connections: Annotated[int, typer.Option(min=1)] = _MILLION,
    deliveries: Annotated[float, typer.Option(help="Deliveries per second.", min=1)] = _MILLION,
    event_bytes: Annotated[int, typer.Option(min=200)] = 235,
    gateway_busy: Annotated[float, typer.Option(help="Largest fraction of a core.", min=0.05, max=0.95)] = 0.5,
    gateway_connections: Annotated[
        int, typer.Option(help="Largest number of connections of one gateway.", min=1)
    ] = 50_000,
    reconnect_s: Annotated[float, typer.Option(help="Seconds until all clients have reconnected.", min=1)] = 60.0,
) -> None:
    """Print the processes that a load needs, and the accuracy of the model."""
    found = CurveResults.read(figures)
    costs = calibrate(found)
    _print_costs(costs)
    _print_checks(found, costs)
    limits = Limits(gateway_busy=gateway_busy, connections=gateway_connections, reconnect_s=reconnect_s)
    _print_sizing(costs, limits, connections, deliveries, event_bytes)
    _console.print(f"{limits}. Measured on: {found.machine}.")


if __name__ == "__main__":
    typer.run(main)
