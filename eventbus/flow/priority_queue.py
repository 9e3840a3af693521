"""A bounded queue with priorities: in the worker before Redis, in the gateway before a slow browser.

Order is kept within a topic. Urgency works across topics. Each topic has a queue, and topics are served by the most
urgent item that waits in each. An urgent item takes along what its topic has queued before it. So a failure never
overtakes the progress before it, and never waits behind the flood of another operation. Lanes are weighted, so the low
lane does not starve. No I/O and no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal

from eventbus.flow.topic_queue import T, TopicQueue, Waiting
from eventbus.protocol.policy import Keep

__all__ = ["ConflatingPriorityQueue", "DropReason", "Dropped", "Waiting"]

DropReason = Literal["merged", "expired", "shed", "full"]

# Items served per round while every lane has some: a high one waits for 5 others at most.
WEIGHTS: Final = (16, 4, 1)


@dataclass(frozen=True, slots=True)
class Dropped(Generic[T]):
    """An item that will not be served.

    Attributes:
        item: the item.
        reason: ``merged``: a newer state replaced it. ``expired``: its time is over. ``shed``: room was needed, and it
            mattered least. ``full``: there was no room, and nothing to drop for it.
    """

    item: T
    reason: DropReason


class ConflatingPriorityQueue(Generic[T]):
    """Bounded in items and bytes. The newest item of a conflation key replaces the older one.

    A ``log`` item is never dropped and never conflated. When there is no room for one, ``push`` returns it as ``full``,
    and the caller decides what to do.

    Args:
        limit_items: at least 1.
        limit_bytes: at least 1.
        in_a_row: items of a topic that are served in a row, in the normal and low lane.
    """

    def __init__(self, limit_items: int, limit_bytes: int, in_a_row: int = 1) -> None:
        self._limit_items = limit_items
        self._limit_bytes = limit_bytes
        self._in_a_row = in_a_row
        self._topics: dict[str, TopicQueue[T]] = {}
        self._ready: tuple[OrderedDict[str, TopicQueue[T]], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._credit = list(WEIGHTS)
        # Items that may be dropped, oldest first, by identity. The low lane goes first, the high lane last.
        self._droppable: dict[Keep, tuple[OrderedDict[int, T], ...]] = {
            "nothing": (OrderedDict(), OrderedDict(), OrderedDict()),
            "latest": (OrderedDict(), OrderedDict(), OrderedDict()),
        }
        self._items = 0
        self._bytes = 0
        self._blocked: Callable[[str], bool] | None = None
        self._blocked_items = 0

    def __len__(self) -> int:
        return self._items

    @property
    def bytes(self) -> int:
        """Bytes that the waiting items cost."""
        return self._bytes

    @property
    def urgent(self) -> bool:
        """Whether an item of the high lane can be served."""
        return bool(self._ready[0])

    @property
    def ready(self) -> int:
        """Number of items that can be served."""
        return self._items - self._blocked_items

    def block(self, blocked: Callable[[str], bool] | None) -> None:
        """Serve no item of some topics until the next call. They wait in their order, within the same bounds.

        Args:
            blocked: returns whether a topic is not served. Called once for each topic now, and for each new one.
                None: serve all topics.
        """
        self._blocked = blocked
        self._blocked_items = 0
        for queue in self._topics.values():
            queue.blocked = blocked is not None and blocked(queue.topic)
            self._blocked_items += sum(queue.counts) if queue.blocked else 0
            self._move(queue)

    def push(self, item: T, now_ms: int) -> Sequence[Dropped[T]]:
        """Add an item.

        Args:
            item: the newest item of its topic.
            now_ms: milliseconds since 1970.

        Returns:
            Items that were dropped for it. Where there is no room, the last one is the item itself.
        """
        dropped: list[Dropped[T]] = []
        queue = self._topics.get(item.topic)
        if item.key is not None and queue is not None:
            old = queue.latest.get(item.key)
            if old is not None:
                # The newer state goes to the end. In the old one's place it would overtake what was queued since.
                self._take_out(queue, old)
                dropped.append(Dropped(old, "merged"))
        if self._full(item):
            dropped += self._expire(now_ms)
            dropped += self._drop_least(item)
            if self._full(item):
                return [*dropped, Dropped(item, "full")]
        self._append(item)
        return dropped

    def pop(self, limit_items: int, limit_bytes: int, now_ms: int) -> tuple[list[T], Sequence[Dropped[T]]]:
        """Remove the items that are next.

        Args:
            limit_items: at most so many.
            limit_bytes: ends after the item that reaches this size.
            now_ms: milliseconds since 1970.

        Returns:
            At least one item if any can be served, and the items that have expired.
        """
        served: list[T] = []
        dropped: list[Dropped[T]] = []
        size = 0
        while self._items > self._blocked_items and len(served) < limit_items and size < limit_bytes:
            item = self._next()
            if 0 < item.expires <= now_ms:
                dropped.append(Dropped(item, "expired"))
                continue
            served.append(item)
            size += item.size
        return served, dropped

    def pop_topics(
        self, limit_items: int, blocked: Callable[[str], bool], now_ms: int, *, urgent: bool
    ) -> tuple[list[T], Sequence[Dropped[T]]]:
        """Remove items of the topics that do not have to wait, the most urgent topics first.

        Args:
            limit_items: at most so many.
            blocked: returns whether a topic has to wait.
            now_ms: milliseconds since 1970.
            urgent: remove only items of the high lane, with those that are before them in their topic.

        Returns:
            The items, and the items that have expired.
        """
        served: list[T] = []
        dropped: list[Dropped[T]] = []
        lanes = 1 if urgent else len(self._ready)
        for topic, queue in [topic for ready in self._ready[:lanes] for topic in ready.items()]:
            while any(queue.counts[:lanes]) and len(served) < limit_items and not blocked(topic):
                item = queue.take()
                self._count_out(queue, item)
                if 0 < item.expires <= now_ms:
                    dropped.append(Dropped(item, "expired"))
                else:
                    served.append(item)
        return served, dropped

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove items wherever they wait. Visits everything.

        Args:
            unwanted: returns whether to remove an item.

        Returns:
            The removed items.
        """
        removed: list[T] = []
        for queue in list(self._topics.values()):
            for item in queue.remove(unwanted):
                self._count_out(queue, item)
                removed.append(item)
        return removed

    def remove_oldest(self, items: Iterable[T]) -> None:
        """Remove items in order. Each is the oldest item of its topic by then.

        Args:
            items: items of the queue.
        """
        for item in items:
            queue = self._topics[item.topic]
            first = queue.take()
            assert first is item
            self._count_out(queue, item)

    def _full(self, item: T) -> bool:
        return self._items >= self._limit_items or self._bytes + item.size > self._limit_bytes

    def _append(self, item: T) -> None:
        queue = self._topics.get(item.topic)
        if queue is None:
            queue = self._topics[item.topic] = TopicQueue(item.topic)
            queue.blocked = self._blocked is not None and self._blocked(item.topic)
        queue.items.append(item)
        queue.counts[item.lane] += 1
        if item.key is not None:
            queue.latest[item.key] = item
        if item.keep != "log":
            self._droppable[item.keep][item.lane][id(item)] = item
        self._items += 1
        self._blocked_items += queue.blocked
        self._bytes += item.size
        if queue.ready_in is None or item.lane < queue.ready_in:
            self._move(queue)

    def _move(self, queue: TopicQueue[T]) -> None:
        """Put a topic where its most urgent item belongs, at the end of that round."""
        lane = queue.urgency()
        if lane is None:
            del self._topics[queue.topic]
        elif queue.blocked:
            lane = None
        if lane == queue.ready_in:
            return
        if queue.ready_in is not None:
            del self._ready[queue.ready_in][queue.topic]
        queue.ready_in = lane
        queue.served = 0
        if lane is not None:
            self._ready[lane][queue.topic] = queue

    def _take_out(self, queue: TopicQueue[T], item: T) -> None:
        """Remove an item from the middle of its topic's queue."""
        queue.gone[id(item)] = item
        self._count_out(queue, item)
        if len(queue.gone) > 64 + sum(queue.counts):
            queue.remove(lambda _: False)

    def _count_out(self, queue: TopicQueue[T], item: T) -> None:
        """Count out an item that left its queue."""
        lane = item.lane
        queue.counts[lane] -= 1
        if item.key is not None and queue.latest.get(item.key) is item:
            del queue.latest[item.key]
        if item.keep != "log":
            del self._droppable[item.keep][lane][id(item)]
        self._items -= 1
        self._blocked_items -= queue.blocked
        self._bytes -= item.size
        if not queue.counts[lane]:
            self._move(queue)

    def _next(self) -> T:
        lane = self._turn()
        ready = self._ready[lane]
        queue = next(iter(ready.values()))
        item = queue.take()
        self._count_out(queue, item)
        self._credit[lane] -= 1
        # One urgent item a turn: topics of a lane alternate. A topic keeps its turn until its urgent item is served.
        if item.lane == lane and queue.ready_in == lane:
            queue.served += 1
            if queue.served >= self._in_a_row or lane == 0:
                queue.served = 0
                ready.move_to_end(queue.topic)
        return item

    def _turn(self) -> int:
        """The lane to serve: the most urgent one that has items and credit."""
        credit = self._credit
        for _ in (0, 1):
            for lane, topics in enumerate(self._ready):
                if topics and credit[lane] > 0:
                    return lane
            credit[:] = WEIGHTS
        raise AssertionError("a queue that has items has a topic that is ready")

    def _expire(self, now_ms: int) -> list[Dropped[T]]:
        return [Dropped(item, "expired") for item in self.remove(lambda item: 0 < item.expires <= now_ms)]

    def _drop_least(self, item: T) -> list[Dropped[T]]:
        """Make room: first drop ``nothing`` items, then old states. Never for an item that matters less."""
        dropped: list[Dropped[T]] = []
        kinds: tuple[Keep, ...] = ("nothing",) if item.keep == "nothing" else ("nothing", "latest")
        for keep in kinds:
            for lane in (2, 1, 0):
                droppable = self._droppable[keep][lane]
                while droppable and self._full(item):
                    oldest = next(iter(droppable.values()))
                    self._take_out(self._topics[oldest.topic], oldest)
                    dropped.append(Dropped(oldest, "shed"))
        return dropped
