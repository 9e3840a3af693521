"""A rate per channel, for what may be merged: above it the newest state waits, and always goes out in the end. Pure.

``log`` events are never held back. Whatever else a topic has to say first lets go of what is held of that topic, so
that its order stays.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from eventbus.protocol.policy import Keep

__all__ = ["ChannelRateLimiter", "Throttled"]

_CHANNELS = 10_000


class Throttled(Protocol):
    """What is held."""

    @property
    def channel(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def keep(self) -> Keep: ...
    @property
    def key(self) -> str | None: ...


T = TypeVar("T", bound=Throttled)


class _Channel(Generic[T]):
    __slots__ = ("held", "level", "then")

    def __init__(self, level: float, now: float) -> None:
        self.level = level
        self.then = now
        self.held: OrderedDict[str, T] = OrderedDict()


class ChannelRateLimiter(Generic[T]):
    """``rate`` is events per second and channel, and as many at once; 0: no limit."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._channels: OrderedDict[str, _Channel[T]] = OrderedDict()
        self._holding: set[str] = set()

    @property
    def holding(self) -> bool:
        """Whether anything is held."""
        return bool(self._holding)

    def admit(self, item: T, now: float) -> tuple[bool, T | None]:
        """Whether a ``latest`` or ``nothing`` item may go now, and the older state that it replaces among those held.

        A ``latest`` one that may not is held; a ``nothing`` one is the caller's to drop.
        """
        channel = self._channel(item.channel, now)
        old = channel.held.pop(item.key, None) if item.key is not None else None
        if channel.level >= 1.0 and not channel.held:
            channel.level -= 1.0
            self._note(item.channel, channel)
            return True, old
        if item.key is not None:
            channel.held[item.key] = item
            self._holding.add(item.channel)
        return False, old

    def retry_after(self, channel: str, now: float) -> float:
        """Seconds until one more may go."""
        return max(0.0, (1.0 - self._channel(channel, now).level) / self.rate)

    def release(self, channel_name: str, topic: str) -> list[T]:
        """Let go of what is held of a topic: something that must not be overtaken by it comes after it."""
        if channel_name not in self._holding:
            return []
        channel = self._channels[channel_name]
        freed = [item for item in channel.held.values() if item.topic == topic]
        for item in freed:
            assert item.key is not None
            del channel.held[item.key]
        self._note(channel_name, channel)
        return freed

    def release_all(self) -> list[T]:
        """Let go of everything."""
        freed = [item for name in self._holding for item in self._channels[name].held.values()]
        for name in self._holding:
            self._channels[name].held.clear()
        self._holding.clear()
        return freed

    def due(self, now: float) -> list[T]:
        """Let go of what the rate allows by now, the longest held first."""
        freed: list[T] = []
        for name in list(self._holding):
            channel = self._channel(name, now)
            while channel.held and channel.level >= 1.0:
                channel.level -= 1.0
                freed.append(channel.held.popitem(last=False)[1])
            self._note(name, channel)
        return freed

    def next_due(self, now: float) -> float | None:
        """Seconds until something held may go; None: nothing is held."""
        return min((self.retry_after(name, now) for name in self._holding), default=None)

    def _channel(self, name: str, now: float) -> _Channel[T]:
        full = max(self.rate, 1.0)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(full, now)
            if len(self._channels) > _CHANNELS:
                self._forget_one()
        else:
            self._channels.move_to_end(name)
            channel.level = min(full, channel.level + max(0.0, now - channel.then) * self.rate)
            channel.then = now
        return channel

    def _forget_one(self) -> None:
        """The channel that was quiet for longest, and has nothing held: its bucket is full again by now, or nearly."""
        for name, channel in self._channels.items():
            if not channel.held:
                del self._channels[name]
                return

    def _note(self, name: str, channel: _Channel[T]) -> None:
        if not channel.held:
            self._holding.discard(name)
