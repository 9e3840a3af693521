"""The reviewed survivors: mutants that change nothing which a user could see, each with its reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Accepted", "accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A reviewed survivor.

    Attributes:
        key: the name of the mutant.
        file: its file.
        reason: why the change does not matter.
    """

    key: str
    file: str
    reason: str


def accepted(path: Path) -> dict[str, Accepted]:
    """Read the list by key. Raises ValueError for an entry without a reason, or one that is there twice."""
    found: dict[str, Accepted] = {}
    if not path.exists():
        return found
    for file, entries in tomllib.loads(path.read_text()).items():
        for entry in entries:
            nth = entry.get("nth", 1)
            key = f"{file}: {entry['before']} -> {entry['after']}" + (f" ({nth})" if nth > 1 else "")
            if not entry.get("reason", "").strip():
                raise ValueError(f"{path}: give a reason for {key}")
            if key in found:
                raise ValueError(f"{path}: {key} is there twice")
            found[key] = Accepted(key, file, entry["reason"])
    return found
