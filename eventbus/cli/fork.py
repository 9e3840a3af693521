"""Begins a new epoch of every channel, for ``eventbus fork``."""

from __future__ import annotations

from collections.abc import Sequence

from eventbus.backends.redis.cluster.key_scan import scan_keys
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts.channel import fork
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["ChannelForks"]


class ChannelForks:
    """Forks all channels of a Redis. One thread uses it at a time.

    Args:
        settings: address, limits and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys.of(self._settings)
        self._redis = RedisPublisher(self._settings)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def fork_all(self) -> int:
        """Begin a new epoch of each channel.

        Returns:
            Number of channels that were forked.

        Raises:
            Unavailable, Refused: Redis did not carry it out. Some channels may be forked; run it again.
        """
        return sum(map(self._fork, scan_keys(self._settings, self._keys.all_states)))

    def _fork(self, states: Sequence[str]) -> int:
        if not states:
            return 0
        epochs = self._redis.execute(*(("HGET", state, "epoch") for state in states))
        found = [
            fork(self._keys, self._keys.channel_of_state(state), epoch.decode())
            for state, epoch in zip(states, epochs, strict=True)
            if epoch is not None
        ]
        return sum(self._redis.run_all(found)) if found else 0
