"""The send queue of one slow client, and the control events that keep its resume point right while topics overtake.

The queue sends urgent events first. Before the first event that overtakes another of its channel, ``bus.hold`` names
the offset up to which the client has everything. When the channel's queue is empty, ``bus.release`` ends that. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from eventbus.flow.priority_queue import ConflatingPriorityQueue, Dropped
from webui_adapter.session.batch import Delivery

__all__ = ["OrderHeld", "OrderRestored", "Overflow", "SendQueue"]


@dataclass(frozen=True, slots=True)
class OrderHeld:
    """From here on events of a channel may overtake each other.

    Attributes:
        channel: The channel.
        offset: The client has everything up to here.
    """

    channel: str
    offset: int


@dataclass(frozen=True, slots=True)
class OrderRestored:
    """The events of a channel are in order again.

    Attributes:
        channel: The channel.
        offset: The client has everything up to here.
    """

    channel: str
    offset: int


@dataclass(frozen=True, slots=True)
class Overflow:
    """The send queue had no room for an event that must not be lost: the channel has to be read from the log.

    Attributes:
        channel: The channel of the dropped event.
        offset: The client has received everything up to here, or the queue still holds it.
    """

    channel: str
    offset: int


Step = Delivery | OrderHeld | OrderRestored


class _ChannelOffsets:
    """The queued offsets of one channel, ascending, and the highest that ever was queued."""

    __slots__ = ("held", "highest", "offsets")

    def __init__(self) -> None:
        self.offsets: OrderedDict[int, None] = OrderedDict()
        self.highest = 0
        self.held = False


class SendQueue:
    """A bounded queue of events by priority, which knows the offsets of each channel."""

    def __init__(self, limit_events: int, limit_bytes: int) -> None:
        """Begin with an empty queue.

        Args:
            limit_events: How many events it holds.
            limit_bytes: How many bytes of events it holds.
        """
        self._queue: ConflatingPriorityQueue[Delivery] = ConflatingPriorityQueue(limit_events, limit_bytes)
        self._offsets: dict[str, _ChannelOffsets] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, channel: str) -> bool:
        return channel in self._offsets

    def push(self, delivery: Delivery, now_ms: int) -> Sequence[Dropped[Delivery]]:
        """Queue an event.

        Args:
            delivery: The event.
            now_ms: The time in milliseconds since 1970.

        Returns:
            The events that were conflated, expired or dropped for it. The event itself, as ``full``, if it has no room.
        """
        dropped = self._queue.push(delivery, now_ms)
        known = self._offsets.setdefault(delivery.channel, _ChannelOffsets())
        known.offsets[delivery.record.offset] = None
        known.highest = max(known.highest, delivery.record.offset)
        for drop in dropped:
            self._forget(drop.item)
        return dropped

    def pop(self, limit_bytes: int, now_ms: int) -> tuple[list[Step], Sequence[Dropped[Delivery]]]:
        """Take out the next events: at least one if the queue has any.

        Args:
            limit_bytes: About how many bytes to take.
            now_ms: The time in milliseconds since 1970.

        Returns:
            The steps to write, in order, and the events that have expired.
        """
        served, dropped = self._queue.pop(len(self._queue), limit_bytes, now_ms)
        # Expired events count as delivered for the resume point: no client misses them.
        for drop in dropped:
            self._forget(drop.item)
        steps: list[Step] = []
        for delivery in served:
            known = self._offsets[delivery.channel]
            first = next(iter(known.offsets))
            if delivery.record.offset != first and not known.held:
                known.held = True
                steps.append(OrderHeld(delivery.channel, first - 1))
            self._forget(delivery)
            steps.append(delivery)
        for channel, known in list(self._offsets.items()):
            if not known.offsets:
                if known.held:
                    steps.append(OrderRestored(channel, known.highest))
                del self._offsets[channel]
        return steps, dropped

    def first(self, channel: str) -> int | None:
        """Return the lowest queued offset of a channel; the client has everything below it.

        Args:
            channel: The channel.

        Returns:
            The offset; None if nothing of the channel is queued.
        """
        known = self._offsets.get(channel)
        return None if known is None else next(iter(known.offsets), None)

    def discard(self, channel: str) -> int:
        """Drop everything that is queued of a channel.

        Args:
            channel: The channel.

        Returns:
            How many events were dropped.
        """
        self._offsets.pop(channel, None)
        return len(self._queue.remove(lambda delivery: delivery.channel == channel))

    def _forget(self, delivery: Delivery) -> None:
        del self._offsets[delivery.channel].offsets[delivery.record.offset]
