"""Writes the reference pages that are generated from code: ``python docs/_generators [--check]``.

``make reference`` writes them, ``make lint`` checks that they are current.
"""

from __future__ import annotations

import sys
from pathlib import Path

import metrics
import settings

REFERENCE = Path(__file__).parents[1] / "reference"
PAGES = {"settings.md": settings.page, "metrics.md": metrics.page}


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` compare them with the files."""
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(f"docs/reference/{name}")
    for path in stale:
        print(f"{path} is stale: run `make reference`", file=sys.stderr)
    return int(bool(stale))


sys.exit(main(sys.argv[1:]))
