"""Fractions of a progress and its remaining time. Pure: the only place that computes ``share`` and ``left``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from eventbus.errors import InvalidStage

__all__ = ["WeightedProgress", "finite", "fraction_of", "time_left"]


def finite(count: float | None) -> float | None:
    """Return a count that JSON can express; None for infinity and for what is not a number.

    Args:
        count: a number of steps.
    """
    return count if count is not None and math.isfinite(count) else None


def fraction_of(done: float, total: float | None) -> float | None:
    """Return ``done / total``, limited to 0 to 1.

    Args:
        done: steps so far.
        total: all steps. None is unknown, and so is the fraction. With 0 steps the fraction is 1.
    """
    if total is None:
        return None
    if total <= 0:
        return 1.0
    return min(1.0, max(0.0, done / total))


def time_left(done: float, total: float | None, rate: float | None) -> float | None:
    """Return the seconds until the end, at least 0; None if they are unknown.

    Args:
        done: steps so far.
        total: all steps, if known.
        rate: steps per second, if known.
    """
    if total is None:
        return None
    if done >= total:
        return 0.0
    if rate is None or rate <= 0:
        return None
    seconds = (total - done) / rate
    return seconds if math.isfinite(seconds) else None


class WeightedProgress:
    """Progress of a whole that is made of weighted stages.

    The fraction of a stage only rises, since users distrust a progress bar that moves back. A growing total makes it
    pause. Sums are exact (``fsum``): the whole equals its total when it is finished, and never before.

    Args:
        weights: weight of each stage by its name, above 0 and finite.

    Attributes:
        total: the sum of the weights.
    """

    __slots__ = ("_finished", "_fractions", "_weights", "total")

    def __init__(self, weights: Mapping[str, float]) -> None:
        for name, weight in weights.items():
            if not (weight > 0 and math.isfinite(weight)):
                raise InvalidStage(f"the weight of stage {name!r} is {weight!r}; give a number above 0", stage=name)
        if not weights:
            raise InvalidStage("a whole needs at least one stage: stages(read=1, store=2)", stage="")
        self._weights = dict(weights)
        self._fractions = dict.fromkeys(weights, 0.0)
        self._finished = False
        self.total = math.fsum(weights.values())

    def check(self, name: str) -> None:
        """Check that a stage exists.

        Args:
            name: name of the stage.

        Raises:
            InvalidStage: there is no such stage.
        """
        if name not in self._weights:
            raise InvalidStage(
                f"there is no stage {name!r}; stages() was given {', '.join(map(repr, self._weights))}", stage=name
            )

    def fill(self, name: str, fraction: float | None) -> None:
        """Raise the fraction of a stage.

        Args:
            name: name of the stage.
            fraction: from 0 to 1; None, or less than before, changes nothing.
        """
        if fraction is not None:
            self._fractions[name] = max(self._fractions[name], fraction)

    def finish(self) -> None:
        """Complete the whole, with stages that never began."""
        self._finished = True

    @property
    def done(self) -> float:
        """Weighted count: below ``total`` until the whole is finished, then exactly ``total``."""
        if self._finished:
            return self.total
        sum_ = math.fsum(weight * self._fractions[name] for name, weight in self._weights.items())
        return min(sum_, math.nextafter(self.total, 0.0))

    @property
    def fraction(self) -> float:
        """``done / total``."""
        return self.done / self.total
