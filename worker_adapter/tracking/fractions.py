"""How full a bar is, and how long it will take. Pure arithmetic, the only place where a share is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from eventbus.errors import InvalidStage

__all__ = ["WeightedProgress", "known", "share_of", "time_left"]


def known(count: float | None) -> float | None:
    """A count that a page can be told; None for what is no number, or has no end."""
    return count if count is not None and math.isfinite(count) else None


def share_of(done: float, total: float | None) -> float | None:
    """``done`` as a part of ``total``, from 0 to 1; None where nobody knows the total. Of nothing all is done."""
    if total is None:
        return None
    if total <= 0:
        return 1.0
    return min(1.0, max(0.0, done / total))


def time_left(done: float, total: float | None, rate: float | None) -> float | None:
    """Seconds until ``total`` at ``rate`` steps a second; None where that cannot be said. Never below 0."""
    if total is None:
        return None
    if done >= total:
        return 0.0
    if rate is None or rate <= 0:
        return None
    seconds = (total - done) / rate
    return seconds if math.isfinite(seconds) else None


class WeightedProgress:
    """A whole made of weighted parts.

    A part's share only rises: a bar that walks back is believed by nobody, so a total that grows makes it stand still.
    Sums are exact (``fsum``), so the whole is never above its total, and equals it when it is finished, not before.

    Attributes:
        total: the sum of the weights.
    """

    __slots__ = ("_finished", "_share", "_weight", "total")

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Raises InvalidStage for no parts at all, and for a weight that is not above 0 or not finite."""
        for name, weight in weights.items():
            if not (weight > 0 and math.isfinite(weight)):
                raise InvalidStage(f"the weight of stage {name!r} is {weight!r}; give a number above 0", stage=name)
        if not weights:
            raise InvalidStage("a whole needs at least one stage: stages(read=1, store=2)", stage="")
        self._weight = dict(weights)
        self._share = dict.fromkeys(weights, 0.0)
        self._finished = False
        self.total = math.fsum(weights.values())

    def check(self, name: str) -> None:
        """Raise InvalidStage for a name that is none of the parts."""
        if name not in self._weight:
            raise InvalidStage(
                f"there is no stage {name!r}; stages() was given {', '.join(map(repr, self._weight))}", stage=name
            )

    def fill(self, name: str, share: float | None) -> None:
        """A part is so full, from 0 to 1; None changes nothing."""
        if share is not None:
            self._share[name] = max(self._share[name], share)

    def finish(self) -> None:
        """All of it is done, parts that never began too."""
        self._finished = True

    @property
    def done(self) -> float:
        """The whole's count: below ``total`` until it is finished, then exactly that."""
        if self._finished:
            return self.total
        sum_ = math.fsum(weight * self._share[name] for name, weight in self._weight.items())
        return min(sum_, math.nextafter(self.total, 0.0))

    @property
    def share(self) -> float:
        """``done`` as a part of ``total``."""
        return self.done / self.total
