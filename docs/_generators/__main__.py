"""Writes the files that are generated from code: ``python docs/_generators [--check]``.

``make reference`` writes them, ``make lint`` checks that they are current.
"""

from __future__ import annotations

import sys
from pathlib import Path

import metrics
import roles
import settings

ROOT = Path(__file__).parents[2]
FILES = {
    "docs/reference/settings.md": settings.page,
    "docs/reference/metrics.md": metrics.page,
    "docs/reference/redis-roles.md": roles.page,
    "compose/users.acl": roles.file,
}


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` compare them."""
    stale = []
    for name, make in FILES.items():
        path, text = ROOT / name, make()
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for path in stale:
        print(f"{path} is stale: run `make reference`", file=sys.stderr)
    return int(bool(stale))


sys.exit(main(sys.argv[1:]))
