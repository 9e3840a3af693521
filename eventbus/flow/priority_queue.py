"""The outbox: a bounded, prioritised buffer. In the worker before Redis, in the gateway before a slow browser.

Order is kept per topic; urgency works across topics. There is one queue per topic, and topics are served by the most
urgent item waiting in each, so an urgent item takes along what its own topic has queued before it: a failure is
never overtaken by its own old progress, nor does it wait behind another operation's flood. Lanes are weighted, so
the low one does not starve. No I/O, no clock of its own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

from eventbus.protocol.policy import Keep

__all__ = ["ConflatingPriorityQueue", "DropReason", "Dropped", "Waiting"]

DropReason = Literal["merged", "expired", "shed", "full"]

# Items served per round while every lane has some: a high one waits for at most 5 others.
WEIGHTS: Final = (16, 4, 1)


class Waiting(Protocol):
    """What an outbox can hold. ``expires`` is milliseconds since 1970 (0: never), ``size`` bytes."""

    @property
    def topic(self) -> str: ...
    @property
    def lane(self) -> int: ...
    @property
    def keep(self) -> Keep: ...
    @property
    def key(self) -> str | None: ...
    @property
    def expires(self) -> int: ...
    @property
    def size(self) -> int: ...


T = TypeVar("T", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Dropped(Generic[T]):
    """An item that will not be served. ``merged``: a newer state replaced it; ``expired``: past its time; ``shed``: it
    mattered least when room was needed; ``full``: it came when there was no room and nothing to shed for it.
    """

    item: T
    reason: DropReason


class _TopicQueue(Generic[T]):
    """Items in order. One that is merged or shed keeps its place until that comes up, and is in ``gone``, by identity.

    No object of its own for each place: the garbage collector goes through everything that waits, again and again.
    """

    __slots__ = ("counts", "gone", "items", "latest", "ready_in", "served", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.items: deque[T] = deque()
        self.gone: dict[int, T] = {}
        self.counts = [0, 0, 0]
        self.latest: dict[str, T] = {}
        self.ready_in: int | None = None
        self.served = 0  # in a row

    def urgency(self) -> int | None:
        for lane, count in enumerate(self.counts):
            if count:
                return lane
        return None

    def take(self) -> T:
        """The oldest one that has not gone."""
        item = self.items.popleft()
        while self.gone and self.gone.pop(id(item), None) is not None:
            item = self.items.popleft()
        return item

    def rid(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take the unwanted out, and the places of those that have gone."""
        here = [item for item in self.items if id(item) not in self.gone]
        removed = [item for item in here if unwanted(item)]
        going = set(map(id, removed))
        self.items = deque(item for item in here if id(item) not in going)
        self.gone.clear()
        return removed


class ConflatingPriorityQueue(Generic[T]):
    """Bounded in items and bytes.

    A ``log`` item is never shed and never merged; when there is no room for one, ``push`` gives it back as ``full``
    and the caller decides what that means. ``limit_items`` and ``limit_bytes`` of 0 are not allowed. Of a topic up to
    ``in_a_row`` items of the normal or low lane are served before it is the next one's turn.
    """

    def __init__(self, limit_items: int, limit_bytes: int, in_a_row: int = 1) -> None:
        self._limit_items = limit_items
        self._limit_bytes = limit_bytes
        self._in_a_row = in_a_row
        self._topics: dict[str, _TopicQueue[T]] = {}
        self._ready: tuple[OrderedDict[str, _TopicQueue[T]], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._credit = list(WEIGHTS)
        # What may be shed, oldest first, by identity; the low lane before the normal one before the high one.
        self._sheddable: dict[Keep, tuple[OrderedDict[int, T], ...]] = {
            "nothing": (OrderedDict(), OrderedDict(), OrderedDict()),
            "latest": (OrderedDict(), OrderedDict(), OrderedDict()),
        }
        self._items = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._items

    @property
    def bytes(self) -> int:
        """Bytes that the waiting items cost."""
        return self._bytes

    @property
    def urgent(self) -> bool:
        """Whether something of the high lane waits."""
        return bool(self._ready[0])

    def push(self, item: T, now_ms: int) -> Sequence[Dropped[T]]:
        """Take an item in; return what is dropped for it, or the item itself where there is no room."""
        dropped: list[Dropped[T]] = []
        queue = self._topics.get(item.topic)
        if item.key is not None and queue is not None:
            old = queue.latest.get(item.key)
            if old is not None:
                # The newer state goes to the end, not into the old one's place: there it would overtake
                # what was queued between the two.
                self._take_out(queue, old)
                dropped.append(Dropped(old, "merged"))
        if self._full(item):
            dropped += self._expire(now_ms)
            dropped += self._shed(item)
            if self._full(item):
                return [*dropped, Dropped(item, "full")]
        self._append(item)
        return dropped

    def pop(self, limit_items: int, limit_bytes: int, now_ms: int) -> tuple[list[T], Sequence[Dropped[T]]]:
        """Take out what is to go next, at least one item if any waits; and what has expired on the way."""
        served: list[T] = []
        dropped: list[Dropped[T]] = []
        size = 0
        while self._items and len(served) < limit_items and size < limit_bytes:
            item = self._next()
            if 0 < item.expires <= now_ms:
                dropped.append(Dropped(item, "expired"))
                continue
            served.append(item)
            size += item.size
        return served, dropped

    def pop_urgent(
        self, limit_items: int, blocked: Callable[[str], bool], now_ms: int
    ) -> tuple[list[T], Sequence[Dropped[T]]]:
        """Only what is of the high lane, with what stands before it in its topic; nothing of blocked topics."""
        served: list[T] = []
        dropped: list[Dropped[T]] = []
        for topic, queue in list(self._ready[0].items()):
            while queue.counts[0] and len(served) < limit_items and not blocked(topic):
                item = queue.take()
                self._left(queue, item)
                if 0 < item.expires <= now_ms:
                    dropped.append(Dropped(item, "expired"))
                else:
                    served.append(item)
        return served, dropped

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out whatever is unwanted, wherever it waits. Looks at everything."""
        removed: list[T] = []
        for queue in list(self._topics.values()):
            for item in queue.rid(unwanted):
                self._left(queue, item)
                removed.append(item)
        return removed

    def unload(self, items: Iterable[T]) -> None:
        """Take out items in order, each of which is the oldest of its topic by then."""
        for item in items:
            queue = self._topics[item.topic]
            first = queue.take()
            assert first is item
            self._left(queue, item)

    def _full(self, item: T) -> bool:
        return self._items >= self._limit_items or self._bytes + item.size > self._limit_bytes

    def _append(self, item: T) -> None:
        queue = self._topics.get(item.topic)
        if queue is None:
            queue = self._topics[item.topic] = _TopicQueue(item.topic)
        queue.items.append(item)
        queue.counts[item.lane] += 1
        if item.key is not None:
            queue.latest[item.key] = item
        if item.keep != "log":
            self._sheddable[item.keep][item.lane][id(item)] = item
        self._items += 1
        self._bytes += item.size
        if queue.ready_in is None or item.lane < queue.ready_in:
            self._file(queue)

    def _file(self, queue: _TopicQueue[T]) -> None:
        """Put a topic where its most urgent item belongs, at the end of that round."""
        lane = queue.urgency()
        if lane == queue.ready_in:
            return
        if queue.ready_in is not None:
            del self._ready[queue.ready_in][queue.topic]
        queue.ready_in = lane
        queue.served = 0
        if lane is None:
            del self._topics[queue.topic]
        else:
            self._ready[lane][queue.topic] = queue

    def _take_out(self, queue: _TopicQueue[T], item: T) -> None:
        """Take an item out from the middle of its topic's queue."""
        queue.gone[id(item)] = item
        self._left(queue, item)
        if len(queue.gone) > 64 + sum(queue.counts):
            queue.rid(lambda _: False)

    def _left(self, queue: _TopicQueue[T], item: T) -> None:
        """Count an item out that is not in its queue any more."""
        lane = item.lane
        queue.counts[lane] -= 1
        if item.key is not None and queue.latest.get(item.key) is item:
            del queue.latest[item.key]
        if item.keep != "log":
            del self._sheddable[item.keep][lane][id(item)]
        self._items -= 1
        self._bytes -= item.size
        if not queue.counts[lane]:
            self._file(queue)

    def _next(self) -> T:
        lane = self._turn()
        ready = self._ready[lane]
        queue = next(iter(ready.values()))
        item = queue.take()
        self._left(queue, item)
        self._credit[lane] -= 1
        # One urgent item a turn: topics of a lane alternate, but a topic keeps its turn while it clears the way.
        if item.lane == lane and queue.ready_in == lane:
            queue.served += 1
            if queue.served >= self._in_a_row or lane == 0:
                queue.served = 0
                ready.move_to_end(queue.topic)
        return item

    def _turn(self) -> int:
        """The lane to serve: the most urgent one that waits and has credit."""
        credit = self._credit
        for _ in (0, 1):
            for lane, topics in enumerate(self._ready):
                if topics and credit[lane] > 0:
                    return lane
            credit[:] = WEIGHTS
        raise AssertionError("an outbox that holds items has a topic that is ready")

    def _expire(self, now_ms: int) -> list[Dropped[T]]:
        return [Dropped(item, "expired") for item in self.remove(lambda item: 0 < item.expires <= now_ms)]

    def _shed(self, item: T) -> list[Dropped[T]]:
        """Make room: first what is for those who are there, then old states; never for something that matters less."""
        dropped: list[Dropped[T]] = []
        kinds: tuple[Keep, ...] = ("nothing",) if item.keep == "nothing" else ("nothing", "latest")
        for keep in kinds:
            for lane in (2, 1, 0):
                sheddable = self._sheddable[keep][lane]
                while sheddable and self._full(item):
                    oldest = next(iter(sheddable.values()))
                    self._take_out(self._topics[oldest.topic], oldest)
                    dropped.append(Dropped(oldest, "shed"))
        return dropped
