"""The queue of one topic: items in order, of which some may be gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from eventbus.protocol.policy import Keep

__all__ = ["TopicQueue", "Waiting"]


class Waiting(Protocol):
    """An item of the queue."""

    @property
    def topic(self) -> str:
        """Items of a topic keep their order."""

    @property
    def lane(self) -> int:
        """0 high, 1 normal, 2 low."""

    @property
    def keep(self) -> Keep:
        """``log``, ``latest`` or ``nothing``."""

    @property
    def key(self) -> str | None:
        """Conflation key of a ``latest`` item."""

    @property
    def expires(self) -> int:
        """Milliseconds since 1970; 0: never."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""


T = TypeVar("T", bound=Waiting)


class TopicQueue(Generic[T]):
    """The items of a topic in order. A conflated or dropped item keeps its place, and its id is in ``gone``.

    There is no object for each place: the garbage collector visits everything that waits, again and again.

    Args:
        topic: name of the topic.
    """

    __slots__ = ("blocked", "counts", "gone", "items", "latest", "ready_in", "served", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.blocked = False  # whether it is not served for now
        self.items: deque[T] = deque()
        self.gone: dict[int, T] = {}
        self.counts = [0, 0, 0]
        self.latest: dict[str, T] = {}
        self.ready_in: int | None = None
        self.served = 0  # in a row

    def urgency(self) -> int | None:
        """Return the most urgent lane that has an item; None: the queue is empty."""
        for lane, count in enumerate(self.counts):
            if count:
                return lane
        return None

    def take(self) -> T:
        """Return the oldest item that is not gone, and remove it."""
        item = self.items.popleft()
        while self.gone and self.gone.pop(id(item), None) is not None:
            item = self.items.popleft()
        return item

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove items, and the places of items that are gone.

        Args:
            unwanted: returns whether to remove an item.

        Returns:
            The removed items.
        """
        here = [item for item in self.items if id(item) not in self.gone]
        removed = [item for item in here if unwanted(item)]
        going = set(map(id, removed))
        self.items = deque(item for item in here if id(item) not in going)
        self.gone.clear()
        return removed
