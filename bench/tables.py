"""Prints the results as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.cases import Case
from bench.contenders.registry import FLOORS, OURS
from bench.load_generator import FAULTS
from bench.results import Results, Spread

__all__ = ["print_tables"]

_LOAD_LIMIT = 0.9  # fraction of a core above which the load generator or the publisher may be the limit
_MISSING = "-"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _median(spread: Spread | None) -> str:
    return _number(spread.median) if spread else _MISSING


def _with_spread(spread: Spread | None) -> str:
    return f"{_number(spread.median)} ({_number(spread.least)}-{_number(spread.most)})" if spread else _MISSING


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else _MISSING


def _percent(spread: Spread | None) -> str:
    return f"{spread.median:.0%}" if spread else _MISSING


def _verdict(results: Results, contender: str, case: Case) -> str:
    """Return the faults of the events, and whether the server was the limit."""
    parts = []
    for figure in FAULTS:
        count = results.worst(contender, case.name, figure)
        if count:
            parts.append(f"{count:,.0f} {figure}")
    if results.worst(contender, case.name, "behind"):
        parts.append("falls behind")
    if not parts:
        parts.append("all, once, in order")
    if not case.rate:
        busy = results.spread(contender, case.name, "busy")
        limit = {name: results.worst(contender, case.name, f"{name}_busy") for name in ("load", "publisher")}
        if busy and busy.median < _LOAD_LIMIT:
            parts.append(f"server not saturated ({', '.join(f'{name} {share:.0%}' for name, share in limit.items())})")
    return "; ".join(parts)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="left" if column == "events" else "right")
    return table


def _case_table(results: Results, case: Case) -> Table:
    columns = [
        "CPU us/delivery",
        "user",
        "system",
        "deliveries/s",
        "busy",
        "p50 ms",
        "p99 ms",
        "x ours",
        "x floor",
        "Redis us/event",
    ]
    table = _table(case.title, [*columns, "events"])
    for name, title in results.titles.items():
        cost = results.spread(name, case.name, "cpu_us")
        if cost is None:
            continue
        cells = [_median(results.spread(name, case.name, figure)) for figure in ("user_us", "system_us", "rate")]
        late = [_median(results.spread(name, case.name, figure)) for figure in ("p50_ms", "p99_ms")]
        ratios = [
            _ratio(results.ratio((name, case.name), other, "cpu_us")) for other in ((OURS, case.name), case.floor)
        ]
        redis = _median(results.spread(name, case.name, "redis_us")) if not name.startswith("floor") else _MISSING
        busy = _percent(results.spread(name, case.name, "busy"))
        table.add_row(title, _with_spread(cost), *cells, busy, *late, *ratios, redis, _verdict(results, name, case))
    return table


def _open_table(results: Results) -> Table:
    table = _table(
        f"{results.plan.connections:,} connections",
        ["open, s", "CPU ms/connection", "KB/connection", "resident MB", "CPU x ours"],
    )
    for name, title in results.titles.items():
        figures = [
            results.spread(name, "open", figure)
            for figure in ("open_seconds", "open_cpu_ms", "memory_kb", "resident_mb")
        ]
        if figures[0]:
            table.add_row(
                title,
                *map(_with_spread, figures[:3]),
                _median(figures[3]),
                _ratio(results.ratio((name, "open"), (OURS, "open"), "open_cpu_ms")),
            )
    return table


def _emit_table(results: Results) -> Table:
    table = _table(
        "emit, in one worker process", ["calm p50 us", "p99", "flat out p50 us", "p99", "events/s into Redis"]
    )
    for name, title in results.titles.items():
        figures = ("calm_p50_us", "calm_p99_us", "busy_p50_us", "busy_p99_us", "flushed_per_second")
        spreads = [results.spread(name, "emit", figure) for figure in figures]
        if spreads[0]:
            table.add_row(title, *map(_median, spreads[:4]), _with_spread(spreads[4]))
    return table


def print_tables(results: Results, console: Console) -> None:
    """Print all tables, then the CPU time of the load generator."""
    cases = results.plan.cases
    for table in [*(_case_table(results, case) for case in cases), _open_table(results), _emit_table(results)]:
        if table.row_count:
            console.print(table)
    if not cases:
        return
    servers = [name for name in results.titles if name not in FLOORS]
    for group, names in (("for the servers", servers), ("for the floors", FLOORS)):
        shares = [f"{case.name} {_most(results, names, case):.0%}" for case in cases]
        console.print(f"The load generator used at most, of one core, {group}: {', '.join(shares)}.")


def _most(results: Results, names: Sequence[str], case: Case) -> float:
    return max((results.worst(name, case.name, "load_busy") for name in names), default=0.0)
