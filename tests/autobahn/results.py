"""The stored result of Autobahn's test suite."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

__all__ = ["RESULTS", "WAYS", "Outcome", "as_text", "failed", "of_behavior", "stored"]

RESULTS = Path(__file__).parent / "results.json"
WAYS = ("alone", "mounted")
_GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})


class Outcome(NamedTuple):
    """The verdict of the suite about one case.

    Attributes:
        behavior: ``OK``, ``NON-STRICT``, ``INFORMATIONAL`` or a failure.
        close: the same about the close frame.
    """

    behavior: str
    close: str


def failed(outcomes: dict[str, Outcome]) -> list[str]:
    """The cases that failed."""
    return [case for case, outcome in outcomes.items() if not _GOOD.issuperset(outcome)]


def of_behavior(outcomes: dict[str, Outcome]) -> Counter[str]:
    """How many cases have which behavior."""
    return Counter(outcome.behavior for outcome in outcomes.values())


def as_text(found: dict[str, dict[str, Outcome]]) -> str:
    """The result as it is stored: the cases with each outcome, in the order of their numbers."""
    text = {
        way: {
            " / ".join(outcome): sorted(
                (case for case, other in outcomes.items() if other == outcome),
                key=lambda case: [int(part) for part in case.split(".")],
            )
            for outcome in sorted(set(outcomes.values()))
        }
        for way, outcomes in found.items()
    }
    lines = [
        f'  "{way}": {{\n'
        + ",\n".join(f'    "{outcome}": {json.dumps(cases)}' for outcome, cases in outcomes.items())
        + "\n  }"
        for way, outcomes in text.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def stored() -> dict[str, dict[str, Outcome]]:
    """The stored result."""
    text = json.loads(RESULTS.read_text())
    return {
        way: {case: Outcome(*outcome.split(" / ")) for outcome, cases in outcomes.items() for case in cases}
        for way, outcomes in text.items()
    }
