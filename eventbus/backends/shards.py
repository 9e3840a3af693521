"""The port of a backend whose channels are at several servers, of which some may not answer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from eventbus.backends.ports import Publisher

__all__ = ["ShardedPublisher", "Shards"]


class Shards(Protocol):
    """Which of several servers answer. Other threads may ask."""

    @property
    def reaches_some(self) -> bool:
        """Whether one of them answered last time."""

    @property
    def routing_version(self) -> int:
        """Grows whenever ``reaches`` may answer otherwise than before."""

    def reaches(self, channel: str) -> bool:
        """Return whether the server of a channel answered last time.

        Args:
            channel: the channel, such as ``user:42``.
        """


@runtime_checkable
class ShardedPublisher(Publisher, Protocol):
    """A publisher whose channels may be at several servers."""

    @property
    def shards(self) -> Shards | None:
        """The servers; None: there is one only, and all channels wait together."""
