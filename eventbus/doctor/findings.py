"""The result of a check. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

__all__ = ["Check", "Finding", "Status", "bad", "good", "risky", "run_checks", "unknown"]

F = TypeVar("F")


class Status(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    """Nothing to do."""
    UNKNOWN = "unknown"
    """The fact cannot be read, for lack of a right or of a setting."""
    WARNING = "warning"
    """It works, and is less safe than it could be."""
    ERROR = "error"
    """Events get lost, or strangers get in."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: name of the check, such as ``eviction``.
        status: how grave it is.
        text: what was found.
        advice: what to do; empty if there is nothing to do.
        subject: the server that it is about; empty: the whole system.
    """

    check: str
    status: Status
    text: str
    advice: str = ""
    subject: str = ""


Check = Callable[[F], Finding]
"""A check: a pure function from facts to a finding."""


def run_checks(checks: Iterable[Check[F]], facts: F) -> list[Finding]:
    """Run checks.

    Args:
        checks: the checks.
        facts: what they judge.

    Returns:
        One finding of each, in order.
    """
    return [check(facts) for check in checks]


def good(check: str, text: str) -> Finding:
    """Return a finding with nothing to do.

    Args:
        check: name of the check.
        text: what was found.
    """
    return Finding(check, Status.OK, text)


def unknown(check: str, text: str, advice: str) -> Finding:
    """Return a finding about a fact that cannot be read.

    Args:
        check: name of the check.
        text: why.
        advice: how it could be read.
    """
    return Finding(check, Status.UNKNOWN, text, advice)


def risky(check: str, text: str, advice: str) -> Finding:
    """Return a warning.

    Args:
        check: name of the check.
        text: what was found.
        advice: what to do.
    """
    return Finding(check, Status.WARNING, text, advice)


def bad(check: str, text: str, advice: str) -> Finding:
    """Return an error.

    Args:
        check: name of the check.
        text: what was found.
        advice: what to do.
    """
    return Finding(check, Status.ERROR, text, advice)
