"""Commands that Redis refused because its user lacks a right: what is missing, and how often.

The counts belong to the process: its connections all have the same user.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

__all__ = ["count_denial", "denials", "missing_right"]

# Redis 6.2 to 8 and Valkey 8 and 9, directly and within scripts.
_DENIED: Final = re.compile(
    r"NOPERM|.*ACL failure in script|.*user executing the script can't (?:run this command|access|publish)",
    re.IGNORECASE,
)
_COMMAND: Final = re.compile(r"run the '([a-z|_-]{1,40})'", re.IGNORECASE)
_SEVERAL_MAX: Final = 200

_counts: Counter[str] = Counter()


def missing_right(text: str) -> str | None:
    """Return the right that an error of the server names.

    Args:
        text: the error.

    Returns:
        The command in lower case, ``key``, ``channel``, or ``command`` if the server does not name it; None: it is
        another error.
    """
    if not _DENIED.match(text):
        return None
    found = _COMMAND.search(text)
    if found:
        return found[1].lower()
    return next((kind for kind in ("channel", "key") if re.search(rf"\b{kind}s?\b", text)), "command")


def count_denial(right: str) -> None:
    """Count a refused command.

    Args:
        right: the missing right.
    """
    _counts[right if right in _counts or len(_counts) < _SEVERAL_MAX else "command"] += 1


def denials() -> Mapping[str, int]:
    """Return how many commands Redis refused to this process, by the missing right."""
    return dict(_counts)
