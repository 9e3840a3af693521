"""A hashed timing wheel: one timer for the deadlines of all sessions, instead of a timer handle or two for each."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["TimerWheel"]

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Items by the tick in which they are due. Each item has one deadline."""

    def __init__(self, now: float, tick: float = 0.25) -> None:
        """Begin without an item.

        Args:
            now: The clock's time in seconds.
            tick: The resolution in seconds.
        """
        self._tick = tick
        self._reached = int(now / tick)
        self._spokes: dict[int, dict[T, None]] = {}
        self._where: dict[T, int] = {}

    def put(self, item: T, due: float) -> None:
        """Set or move an item's deadline. The item is due in the first tick at or after it.

        Args:
            item: The item.
            due: The clock's time in seconds.
        """
        self.remove(item)
        spoke = max(int(due / self._tick) + 1, self._reached + 1)
        self._spokes.setdefault(spoke, {})[item] = None
        self._where[item] = spoke

    def remove(self, item: T) -> None:
        """Forget an item.

        Args:
            item: The item; it may be unknown.
        """
        spoke = self._where.pop(item, None)
        if spoke is not None:
            self._spokes[spoke].pop(item, None)

    def due(self, now: float) -> list[T]:
        """Take out all items that are due.

        Args:
            now: The clock's time in seconds.

        Returns:
            The items, the earliest first.
        """
        reached = int(now / self._tick)
        items: list[T] = []
        while self._reached < reached:
            self._reached += 1
            for item in self._spokes.pop(self._reached, ()):
                del self._where[item]
                items.append(item)
        return items
