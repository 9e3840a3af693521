"""Canaries through each master of a cluster. Pure.

Publications of one master stay in order on their way through the cluster, those of two masters do not. So a canary
goes through each master, and it has arrived when all its parts have.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CanaryParts", "write_part"]

_MOST: Final = 64


def write_part(text: str, part: int, parts: int) -> str:
    """Write one part of a canary.

    Args:
        text: the canary.
        part: number of the part, from 0.
        parts: number of parts.

    Returns:
        The publication.
    """
    return f"{part}/{parts} {text}"


class CanaryParts:
    """Puts the parts of canaries together. It remembers the last incomplete ones."""

    def __init__(self) -> None:
        self._arrived: dict[str, set[str]] = {}

    def add(self, publication: str) -> str | None:
        """Take a part.

        Args:
            publication: the part, as ``write_part`` wrote it.

        Returns:
            The canary if all its parts have arrived; None before. A publication without parts is complete.
        """
        head, space, text = publication.partition(" ")
        part, slash, parts = head.partition("/")
        if not (space and slash and part.isdigit() and parts.isdigit()):
            return publication
        arrived = self._arrived.setdefault(text, set())
        arrived.add(part)
        if len(arrived) >= int(parts):
            del self._arrived[text]
            return text
        if len(self._arrived) > _MOST:
            del self._arrived[next(iter(self._arrived))]
        return None
