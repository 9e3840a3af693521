"""The wall clock."""

from __future__ import annotations

import time

__all__ = ["now_ms"]


def now_ms() -> int:
    """The wall clock; Redis' own decides wherever it matters."""
    return time.time_ns() // 1_000_000
