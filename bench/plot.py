"""Plots the results as SVG: bars of CPU time per delivery, a group per case, a logarithmic scale."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.cases import Case
from bench.payload import EVENT_BYTES
from bench.results import Results, machine
from bench.svg import page, text

__all__ = ["write_plot"]

_WIDTH: Final = 900
_LEFT: Final = 210  # left end of the bars, after the names
_RIGHT: Final = 660  # right end of the longest bar, before the figures
_BAR: Final = 16
_STEP: Final = 22
_GROUP: Final = 40
_TOP: Final = 74
_COLOURS: Final = {
    "ours": "#2f6fde",
    "ours-fed": "#2f6fde",
    "plain": "#c9772b",
    "channels": "#3f8f5b",
    "socketio": "#8a5fb0",
    "node": "#b0507f",
    "floor-plain": "#8b939c",
    "floor-coalesced": "#b4bac1",
}


class _Scale:
    """Maps microseconds to pixels, between the powers of ten around the values."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(values))))

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return _LEFT + share * (_RIGHT - _LEFT)


def _bar(scale: _Scale, y: float, results: Results, name: str, case: Case) -> list[str]:
    cost, rate = results.spread(name, case.name, "cpu_us"), results.spread(name, case.name, "rate")
    if cost is None or rate is None:
        return []
    end, middle = scale(cost.median), y + _BAR / 2
    behind = ", falls behind" if results.worst(name, case.name, "behind") else ""
    colour = _COLOURS.get(name, "#777")
    return [
        text(_LEFT - 8, y + 13, results.titles[name], anchor="end"),
        f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
        f'<line class="range" x1="{scale(cost.least):.1f}" x2="{scale(cost.most):.1f}" y1="{middle}" y2="{middle}"/>',
        text(max(end, scale(cost.most)) + 8, y + 13, f"{cost.median:.3g} us, {rate.median:,.0f}/s{behind}"),
    ]


def _grid(scale: _Scale, bottom: float) -> list[str]:
    lines = []
    for power in range(scale.low, scale.high + 1):
        x = scale(10.0**power)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{bottom}"/>')
        lines.append(text(x, bottom + 16, f"{10.0**power:g} us", "small", "middle"))
    return lines


def _groups(results: Results, scale: _Scale) -> tuple[list[str], float]:
    parts: list[str] = []
    y: float = _TOP
    for case in results.plan.cases:
        parts.append(text(_LEFT, y + 12, case.title, "case"))
        y += _STEP
        for name in results.titles:
            bar = _bar(scale, y, results, name, case)
            parts += bar
            y += _STEP if bar else 0
        y += _GROUP - _STEP
    return parts, y


def write_plot(results: Results, path: Path) -> None:
    """Plot the costs of all cases. Writes nothing without figures."""
    spreads = [results.spread(name, case.name, "cpu_us") for name in results.titles for case in results.plan.cases]
    costs = [value for spread in spreads if spread for value in spread if value > 0]
    if not costs:
        return
    scale = _Scale(costs)
    parts, bottom = _groups(results, scale)
    plan = results.plan
    loads = f"{plan.connections:,} connections, events of {EVENT_BYTES} bytes"
    facts = f"{loads}, median of {plan.rounds} x {plan.seconds:g} s; line: smallest to largest."
    date = time.strftime("%Y-%m-%d", time.gmtime(results.begun))
    body = [
        text(24, 30, "CPU time of one server process per delivery (user and system; less is better)", "head"),
        text(24, 50, facts, "small"),
        *_grid(scale, bottom),
        *parts,
        text(24, bottom + 44, f"{date}. {machine()}", "small"),
    ]
    path.write_text(page(_WIDTH, bottom + 70, "CPU time of one server process per delivery", body))
