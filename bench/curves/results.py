"""The results of the curves: rows of figures, their medians over the rounds, and their JSON file."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.load_generator import FAULTS
from bench.measurement import Figures
from bench.results import Spread, machine

__all__ = ["CurveResults", "Row"]


class Row(NamedTuple):
    """The figures of one point of one line in one round."""

    line: str
    x: float
    figures: Figures


@dataclass
class CurveResults:
    """The rows by name of their sweep."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    begun: float = field(default_factory=time.time)
    machine: str = field(default_factory=machine)

    def lines(self, sweep: str, figure: str) -> dict[str, dict[float, Spread]]:
        """Return median and spread of a figure by line and x, for lines that have the figure."""
        found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows.get(sweep, []):
            if figure in row.figures:
                found[row.line][row.x].append(row.figures[figure])
        return {line: {x: Spread.of(values) for x, values in sorted(at.items())} for line, at in found.items()}

    def median(self, sweep: str, line: str, x: float, figure: str) -> float:
        """Return the median of one point. Raises KeyError if it was not measured."""
        return self.lines(sweep, figure)[line][x].median

    def behind(self, sweep: str, line: str, x: float) -> bool:
        """Whether the server fell behind at this point in any round."""
        return any(row.figures.get("behind", 0) > 0 for row in self.rows[sweep] if (row.line, row.x) == (line, x))

    def faults(self) -> dict[str, float]:
        """Return the sums of the load generator's FAULTS."""
        sums = dict.fromkeys(FAULTS, 0.0)
        for rows in self.rows.values():
            for row in rows:
                for name in sums:
                    sums[name] += row.figures.get(name, 0.0)
        return sums

    def write(self, path: Path) -> None:
        """Write all rows as JSON."""
        rows = {sweep: [row._asdict() for row in found] for sweep, found in self.rows.items()}
        document: dict[str, Any] = {"begun": self.begun, "machine": self.machine, "rows": rows}
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> CurveResults:
        """Read a file that `write` has written."""
        document = json.loads(path.read_text())
        results = cls(begun=document["begun"], machine=document["machine"])
        for sweep, rows in document["rows"].items():
            results.rows[sweep] += [Row(**row) for row in rows]
        return results
