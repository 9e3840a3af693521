"""What waits for one slow browser: an outbox, and the words that keep its resume point right while topics overtake.

Before the first frame that overtakes another of its channel, ``bus.hold`` names the offset up to which everything is
handed over; when the channel's backlog is gone, ``bus.release`` says so. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from eventbus.flow.priority_queue import ConflatingPriorityQueue, Dropped
from webui_adapter.session.batch import Delivery

__all__ = ["OrderHeld", "OrderRestored", "SendQueue"]


@dataclass(frozen=True, slots=True)
class OrderHeld:
    """From here on events of ``channel`` may overtake; all up to ``offset`` has been handed over."""

    channel: str
    offset: int


@dataclass(frozen=True, slots=True)
class OrderRestored:
    """Order is the channel's again; all up to ``offset`` has been handed over."""

    channel: str
    offset: int


Step = Delivery | OrderHeld | OrderRestored


class _Waiting:
    """Offsets of one channel that are queued, ascending, and the highest that ever was."""

    __slots__ = ("held", "highest", "offsets")

    def __init__(self) -> None:
        self.offsets: OrderedDict[int, None] = OrderedDict()
        self.highest = 0
        self.held = False


class SendQueue:
    """Bounded; ``push`` says what it cost. Reason ``full`` means: this session cannot be served from memory."""

    def __init__(self, limit_events: int, limit_bytes: int) -> None:
        self._outbox: ConflatingPriorityQueue[Delivery] = ConflatingPriorityQueue(limit_events, limit_bytes)
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._outbox)

    def __contains__(self, channel: str) -> bool:
        return channel in self._waiting

    def push(self, delivery: Delivery, now_ms: int) -> Sequence[Dropped[Delivery]]:
        """Queue an event; return what was merged, expired or shed for it, or itself as ``full``."""
        dropped = self._outbox.push(delivery, now_ms)
        waiting = self._waiting.setdefault(delivery.channel, _Waiting())
        waiting.offsets[delivery.record.offset] = None
        waiting.highest = max(waiting.highest, delivery.record.offset)
        for drop in dropped:
            self._forget(drop.item)
        return dropped

    def pop(self, limit_bytes: int, now_ms: int) -> tuple[list[Step], Sequence[Dropped[Delivery]]]:
        """What goes out next: at least one event if any waits, up to about ``limit_bytes``."""
        served, dropped = self._outbox.pop(len(self._outbox), limit_bytes, now_ms)
        # Those that expired are handed over as far as the resume point goes: nobody will miss them.
        for drop in dropped:
            self._forget(drop.item)
        steps: list[Step] = []
        for delivery in served:
            waiting = self._waiting[delivery.channel]
            first = next(iter(waiting.offsets))
            if delivery.record.offset != first and not waiting.held:
                waiting.held = True
                steps.append(OrderHeld(delivery.channel, first - 1))
            self._forget(delivery)
            steps.append(delivery)
        for channel, waiting in list(self._waiting.items()):
            if not waiting.offsets:
                if waiting.held:
                    steps.append(OrderRestored(channel, waiting.highest))
                del self._waiting[channel]
        return steps, dropped

    def first(self, channel: str) -> int | None:
        """The lowest offset of this channel that waits: all below is handed over."""
        waiting = self._waiting.get(channel)
        return None if waiting is None else next(iter(waiting.offsets), None)

    def discard(self, channel: str) -> int:
        """What waits of this channel is void: nobody wants it, or its present state is about to be sent instead."""
        self._waiting.pop(channel, None)
        return len(self._outbox.remove(lambda delivery: delivery.channel == channel))

    def _forget(self, delivery: Delivery) -> None:
        del self._waiting[delivery.channel].offsets[delivery.record.offset]
