"""One timer for all sessions: each has one next moment, looked at in ticks, instead of a timer handle or two each."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["TimerWheel"]

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Items by the tick in which they are due. ``tick`` is the resolution in seconds."""

    def __init__(self, now: float, tick: float = 0.25) -> None:
        self._tick = tick
        self._reached = int(now / tick)
        self._spokes: dict[int, dict[T, None]] = {}
        self._where: dict[T, int] = {}

    def put(self, item: T, due: float) -> None:
        """Set or move an item's moment; it comes up in the first tick at or after it."""
        self.remove(item)
        spoke = max(int(due / self._tick) + 1, self._reached + 1)
        self._spokes.setdefault(spoke, {})[item] = None
        self._where[item] = spoke

    def remove(self, item: T) -> None:
        """Forget an item."""
        spoke = self._where.pop(item, None)
        if spoke is not None:
            self._spokes[spoke].pop(item, None)

    def due(self, now: float) -> list[T]:
        """Take out everything whose moment has come."""
        reached = int(now / self._tick)
        items: list[T] = []
        while self._reached < reached:
            self._reached += 1
            for item in self._spokes.pop(self._reached, ()):
                del self._where[item]
                items.append(item)
        return items
