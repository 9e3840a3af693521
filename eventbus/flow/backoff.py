"""Pauses between attempts: exponential, bounded, with full jitter, so that many clients do not return together."""

from __future__ import annotations

import random

__all__ = ["ceiling", "jitter"]


def ceiling(failures: int, first: float, longest: float) -> float:
    """Return the longest pause after some failures in a row. It doubles with each failure.

    Args:
        failures: 0 or more.
        first: seconds for ``failures`` of 0.
        longest: seconds at most.
    """
    # A float has an end: 2 to the power of many failures would not fit.
    return min(longest, first * 2.0 ** min(failures, 32))


def jitter(ceiling: float) -> float:
    """Return a random pause from 0 to ``ceiling``.

    Args:
        ceiling: seconds.
    """
    return random.uniform(0, ceiling)  # noqa: S311 - spreads attempts, guards nothing
