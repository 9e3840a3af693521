"""Why an instance is not whole: several reasons may hold at once, pages hear of the gravest. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

__all__ = ["Degradation", "HealthStatus"]


class Degradation(IntEnum):
    """What can be wrong with Redis, the gravest first."""

    NOT_RECEIVING = 0
    """It publishes, and nothing arrives here."""
    LOST = 1
    """The subscriber has no connection, or not yet read what it missed."""
    UNREACHABLE = 2
    """Live events come, but nothing can be asked or told."""
    READ_ONLY = 3
    """It refuses writes."""

    @property
    def label(self) -> str:
        """Return the value of the metric's label."""
        return "deaf" if self is Degradation.NOT_RECEIVING else self.name.lower()


class HealthStatus:
    """Reasons by kind. ``on_change`` is called with the gravest reason when it changes; None: all is well."""

    def __init__(
        self, on_change: Callable[[str | None], None], reasons: Mapping[Degradation, str] | None = None
    ) -> None:
        self._on_change = on_change
        self._reasons = dict(reasons or {})

    def __contains__(self, trouble: Degradation) -> bool:
        return trouble in self._reasons

    @property
    def most_severe(self) -> str | None:
        """The gravest reason, or None."""
        return self._reasons[min(self._reasons)] if self._reasons else None

    @property
    def read_only(self) -> str | None:
        """Why nothing can be written now, or None. To hear nothing is no reason: what is written gets there."""
        reasons = [
            self._reasons[trouble] for trouble in sorted(self._reasons) if trouble is not Degradation.NOT_RECEIVING
        ]
        return reasons[0] if reasons else None

    def begin(self, trouble: Degradation, reason: str) -> None:
        """From now on this is wrong, too."""
        before = self.most_severe
        self._reasons[trouble] = reason
        self._tell_if_news(before)

    def end(self, *troubles: Degradation) -> None:
        """These are over."""
        before = self.most_severe
        for trouble in troubles:
            self._reasons.pop(trouble, None)
        self._tell_if_news(before)

    def _tell_if_news(self, before: str | None) -> None:
        if self.most_severe != before:
            self._on_change(self.most_severe)
