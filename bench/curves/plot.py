"""Plots a curve as SVG: a panel per figure over a logarithmic x axis, and the machine below."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.curves.results import CurveResults
from bench.curves.sweeps import Sweep
from bench.results import Spread
from bench.svg import page, text

__all__ = ["write_curve"]

_PANEL: Final = 300
_HEIGHT: Final = 210
_LEFT: Final = 62  # left margin of a panel for the labels of its axis
_GAP: Final = 26
_TOP: Final = 84
_ROW: Final = 18
_WIDE: Final = 30.0  # ratio of largest to smallest value above which an axis is logarithmic
_COLOURS: Final = ("#2f6fde", "#c9772b", "#3f8f5b", "#8a5fb0")
_GREYS: Final = ("#8b939c", "#b4bac1")  # colours of the floor
_FEW: Final = 4  # points on the x axis up to which each has a label

Lines = dict[str, dict[float, Spread]]


class _Axis:
    """Maps values to pixels."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, logarithmic: bool) -> None:
        found = [value for value in values if value > 0] or [1.0]
        self._start, self._end, self._logarithmic = start, end, logarithmic
        if logarithmic:
            self._low, self._high = min(found), max(*found, min(found) * 1.01)
        else:
            self._low, self._high = 0.0, max(found) * 1.1

    def __call__(self, value: float) -> float:
        if self._logarithmic:
            value = max(value, self._low)
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return round numbers within the axis."""
        if self._logarithmic:
            powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
            every = [1.0] if len(powers) > 3 else [1.0, 3.0]
            found = [factor * 10.0**power for power in powers for factor in every]
            return [value for value in found if self._low * 0.99 <= value <= self._high * 1.01] or [self._low]
        step = 10.0 ** math.floor(math.log10(self._high / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if self._high / (step * factor) <= 5)
        return [step * number for number in range(int(self._high / step) + 1)]


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.3g}"


def _grid(across: _Axis, up: _Axis, places: Collection[float], left: float, bottom: float) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(left - 6, y + 4, _short(value), "small", "end"))
    for value in places if len(places) <= _FEW else across.ticks():
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(text(x, bottom + 15, _short(value), "small", "middle"))
    return parts


def _line(points: Mapping[float, Spread], across: _Axis, up: _Axis, colour: str, behind: set[float]) -> list[str]:
    path = " ".join(f"{across(x):.1f},{up(spread.median):.1f}" for x, spread in points.items())
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, spread in points.items():
        at, fill = across(x), "none" if x in behind else colour
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{up(spread.least):.1f}" y2="{up(spread.most):.1f}" '
            f'stroke="{colour}"/>'
            f'<circle cx="{at:.1f}" cy="{up(spread.median):.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>'
        )
    return parts


def _panel(
    lines: Lines, title: str, left: float, colours: Mapping[str, str], behind: dict[str, set[float]]
) -> list[str]:
    bottom = _TOP + _HEIGHT
    spreads = [spread for points in lines.values() for spread in points.values()]
    values = [value for spread in spreads for value in spread if value > 0]
    wide = bool(values) and max(values) / min(values) > _WIDE
    places = {x for points in lines.values() for x in points}
    across = _Axis(places, left + 8, left + _PANEL - 8, logarithmic=True)
    up = _Axis(values, bottom, _TOP, logarithmic=wide)
    parts = [text(left, _TOP - 12, title, "case"), *_grid(across, up, places, left, bottom)]
    for line, points in lines.items():
        parts += _line(points, across, up, colours[line], behind[line])
    return parts


def _named(lines: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the lines, the event bus first, and their colours."""
    found = sorted(set(lines))
    floors = [name for name in found if name.startswith("floor")]
    ours = [name for name in found if name not in floors]
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(ours)}
    colours |= {name: _GREYS[number % len(_GREYS)] for number, name in enumerate(floors)}
    return [*ours, *floors], colours


def write_curve(sweep: Sweep, results: CurveResults, path: Path) -> None:
    """Plot a sweep that has rows. A hollow point means that the server fell behind."""
    names, colours = _named(row.line for row in results.rows[sweep.name])
    places = {(row.line, row.x) for row in results.rows[sweep.name]}
    behind = {name: {x for line, x in places if line == name and results.behind(sweep.name, line, x)} for name in names}
    parts = [
        text(24, 30, sweep.title, "head"),
        text(24, 50, "medians; vertical line: smallest to largest; hollow: falls behind", "small"),
    ]
    for number, (figure, title) in enumerate(sweep.panels):
        left = 24 + _LEFT + number * (_PANEL + _LEFT + _GAP)
        parts += _panel(results.lines(sweep.name, figure), title, left, colours, behind)
    below = _TOP + _HEIGHT + 34
    parts.append(text(24 + _LEFT, below, f"x: {sweep.axis}", "small"))
    for number, name in enumerate(names):
        y = below + _ROW * (number + 1)
        parts.append(f'<rect x="{24 + _LEFT}" y="{y - 9}" width="14" height="9" fill="{colours[name]}"/>')
        parts.append(text(24 + _LEFT + 22, y, name))
    bottom = below + _ROW * (len(names) + 1) + 8
    date = time.strftime("%Y-%m-%d", time.gmtime(results.begun))
    parts.append(text(24, bottom, f"{date}. {results.machine}", "small"))
    width = 24 + len(sweep.panels) * (_PANEL + _LEFT + _GAP) + 12
    path.write_text(page(width, bottom + 20, sweep.title, parts))
