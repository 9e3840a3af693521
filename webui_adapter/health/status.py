"""Why an instance is degraded: several reasons may hold; pages receive the most severe one. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

__all__ = ["Degradation", "HealthStatus"]


class Degradation(IntEnum):
    """The kinds of trouble with Redis, the most severe first."""

    NOT_RECEIVING = 0
    """Redis accepts publications, and none arrives here."""
    LOST = 1
    """The subscriber has no connection, or the channels are not recovered yet."""
    UNREACHABLE = 2
    """Live events arrive, but commands fail."""
    READ_ONLY = 3
    """Redis refuses writes."""
    NEWER_FORMAT = 4
    """A newer version writes to Redis what this gateway cannot read."""

    @property
    def label(self) -> str:
        """Return the value of the metric's label."""
        return "deaf" if self is Degradation.NOT_RECEIVING else self.name.lower()


class HealthStatus:
    """The reasons why an instance is degraded, by kind."""

    def __init__(
        self, on_change: Callable[[str | None], None], reasons: Mapping[Degradation, str] | None = None
    ) -> None:
        """Begin with some reasons.

        Args:
            on_change: Called with the most severe reason when it changes; None: everything works.
            reasons: The first reasons.
        """
        self._on_change = on_change
        self._reasons = dict(reasons or {})

    def __contains__(self, trouble: Degradation) -> bool:
        return trouble in self._reasons

    @property
    def most_severe(self) -> str | None:
        """The most severe reason, or None."""
        return self._reasons[min(self._reasons)] if self._reasons else None

    @property
    def read_only(self) -> str | None:
        """Why nothing can be written now, or None. An instance that receives nothing can still write."""
        can_write = (Degradation.NOT_RECEIVING, Degradation.NEWER_FORMAT)
        reasons = [self._reasons[trouble] for trouble in sorted(self._reasons) if trouble not in can_write]
        return reasons[0] if reasons else None

    def begin(self, trouble: Degradation, reason: str) -> None:
        """Add a reason.

        Args:
            trouble: Its kind.
            reason: A text for people.
        """
        before = self.most_severe
        self._reasons[trouble] = reason
        self._notify(before)

    def end(self, *troubles: Degradation) -> None:
        """Remove reasons.

        Args:
            troubles: Their kinds.
        """
        before = self.most_severe
        for trouble in troubles:
            self._reasons.pop(trouble, None)
        self._notify(before)

    def _notify(self, before: str | None) -> None:
        if self.most_severe != before:
            self._on_change(self.most_severe)
