"""A rate per channel, for events that can be conflated. Above it the newest state waits, and always goes out. Pure.

``log`` events are never held. When a topic has another event to send, what is held of that topic goes first, so that
the topic keeps its order.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from eventbus.flow.token_bucket import TokenBucket
from eventbus.protocol.policy import Keep

__all__ = ["ChannelRateLimiter", "Limited"]

# Channels whose buckets are kept: one without events for a while has a full bucket, as a new one.
_CHANNELS = 10_000


class Limited(Protocol):
    """An item whose channel has a rate."""

    @property
    def channel(self) -> str:
        """Where it is published."""

    @property
    def topic(self) -> str:
        """Within the channel; a topic keeps its order."""

    @property
    def keep(self) -> Keep:
        """``latest`` or ``nothing``."""

    @property
    def key(self) -> str | None:
        """Conflation key of a ``latest`` item."""


T = TypeVar("T", bound=Limited)


class _Channel(Generic[T]):
    __slots__ = ("bucket", "held")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.held: OrderedDict[str, T] = OrderedDict()


class ChannelRateLimiter(Generic[T]):
    """Holds the newest state of each key while its channel is over the rate. Times are monotonic seconds.

    Args:
        rate: events of one channel a second, and as many in a burst; 0: no limit.

    Attributes:
        rate: events of one channel a second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._channels: OrderedDict[str, _Channel[T]] = OrderedDict()
        self._holding: set[str] = set()

    @property
    def holding(self) -> bool:
        """Whether anything is held."""
        return bool(self._holding)

    def admit(self, item: T, now: float) -> tuple[bool, T | None]:
        """Admit or hold an item. The caller drops a ``nothing`` item that is not admitted.

        Args:
            item: ``latest`` or ``nothing``.
            now: the time.

        Returns:
            Whether it may go now, and the older held state that it replaces.
        """
        channel = self._channel(item.channel, now)
        old = channel.held.pop(item.key, None) if item.key is not None else None
        if not channel.held and not channel.bucket.take(now):
            self._holding.discard(item.channel)
            return True, old
        if item.key is not None:
            channel.held[item.key] = item
            self._holding.add(item.channel)
        return False, old

    def retry_after(self, channel: str, now: float) -> float:
        """Return the seconds until one more event may go.

        Args:
            channel: its name.
            now: the time.
        """
        return self._channel(channel, now).bucket.wait(now)

    def release(self, channel_name: str, topic: str) -> list[T]:
        """Release what is held of a topic, before an event that must not overtake it.

        Args:
            channel_name: the topic's channel.
            topic: the topic.

        Returns:
            The items, in order.
        """
        if channel_name not in self._holding:
            return []
        channel = self._channels[channel_name]
        released = [item for item in channel.held.values() if item.topic == topic]
        for item in released:
            assert item.key is not None
            del channel.held[item.key]
        self._discard_if_empty(channel_name, channel)
        return released

    def release_all(self) -> list[T]:
        """Return everything that is held, and release it."""
        released = [item for name in self._holding for item in self._channels[name].held.values()]
        for name in self._holding:
            self._channels[name].held.clear()
        self._holding.clear()
        return released

    def due(self, now: float) -> list[T]:
        """Release what the rates allow, the longest held first.

        Args:
            now: the time.

        Returns:
            The items.
        """
        released: list[T] = []
        for name in list(self._holding):
            channel = self._channel(name, now)
            number = channel.bucket.take_many(len(channel.held), now)
            released += [channel.held.popitem(last=False)[1] for _ in range(number)]
            self._discard_if_empty(name, channel)
        return released

    def next_due(self, now: float) -> float | None:
        """Return the seconds until a held item may go; None: nothing is held.

        Args:
            now: the time.
        """
        return min((self.retry_after(name, now) for name in self._holding), default=None)

    def _channel(self, name: str, now: float) -> _Channel[T]:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(TokenBucket(self.rate, now))
            if len(self._channels) > _CHANNELS:
                self._forget_one()
        else:
            self._channels.move_to_end(name)
        return channel

    def _forget_one(self) -> None:
        """Forget the channel that was idle for longest and holds nothing: its bucket is full by now, or nearly."""
        for name, channel in self._channels.items():
            if not channel.held:
                del self._channels[name]
                return

    def _discard_if_empty(self, name: str, channel: _Channel[T]) -> None:
        if not channel.held:
            self._holding.discard(name)
