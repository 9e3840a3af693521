"""All figures of a run by round, their medians and spread, and the JSON file."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.cases import Plan

__all__ = ["Results", "Spread", "machine"]

_PACKAGES: Final = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "websockets",
    "redis",
    "hiredis",
    "python-socketio",
    "channels",
    "channels-redis",
    "pydantic",
)
_NODE: Final = Path(__file__).parent / "node" / "package.json"


class Spread(NamedTuple):
    """Median, smallest and largest value over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def machine() -> str:
    """Return a line that describes the machine."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    software = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {cores} cores shared by server, Redis and load; {software}"


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    node: dict[str, str] = json.loads(_NODE.read_text())["dependencies"]
    return found | node


@dataclass
class Results:
    """The results. `rounds[contender][part]` has one dictionary per round; a part is a case, `open` or `emit`."""

    plan: Plan
    titles: dict[str, str]
    begun: float = field(default_factory=time.time)
    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, contender: str, part: str, figures: dict[str, float]) -> None:
        """Add a round of a part, if it has figures."""
        if figures:
            self.rounds[contender][part].append(figures)

    def spread(self, contender: str, part: str, figure: str) -> Spread | None:
        """Return median and spread of a figure, or None if it was not measured."""
        found = [figures[figure] for figures in self.rounds.get(contender, {}).get(part, []) if figure in figures]
        return Spread.of(found) if found else None

    def worst(self, contender: str, part: str, figure: str) -> float:
        """Return the largest value over the rounds, or 0 without figures."""
        spread = self.spread(contender, part, figure)
        return spread.most if spread else 0.0

    def ratio(self, one: tuple[str, str], other: tuple[str, str], figure: str) -> float | None:
        """Return the ratio of two medians of a figure. Both are given by contender and part."""
        mine, its = self.spread(*one, figure), self.spread(*other, figure)
        return mine.median / its.median if mine and its and its.median else None

    def write(self, path: Path) -> None:
        """Write all results as JSON."""
        document: dict[str, Any] = {
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.begun)),
            "machine": machine(),
            "versions": _versions(),
            "platform": sys.platform,
            "plan": asdict(self.plan),
            "titles": self.titles,
            "rounds": self.rounds,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
